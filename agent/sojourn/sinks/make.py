"""Sinks as the configuration has them."""

from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sojourn.errors import InvalidConfig
from sojourn.limits import (
    PROVIDER_ADDRESSES_TRIED,
    PROVIDER_LOOKUPS_AT_ONCE,
    PROVIDER_READ_BYTES,
    PROVIDER_WIRE_MAX_BYTES,
)
from sojourn.net.allowed_addresses import is_loopback, may_connect
from sojourn.net.urls import Url, parse_url
from sojourn.settings.audit import SinkConfig
from sojourn.settings.outside import OutsideTable
from sojourn.sinks.file_sender import FileSender
from sojourn.sinks.items import Wanted
from sojourn.sinks.sender import Sender
from sojourn.sinks.sink import About
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import X509Svid

if TYPE_CHECKING:
    from sojourn.sinks.http_sender import ShownSvid


def about(config: SinkConfig) -> About:
    """What is told of a sink: of a URL no path and query, which may hold a secret."""
    to = config.address or (str(config.path) if config.url is None else parse_url(config.url).authority)
    return About(config.name, config.kind, to, config.required, config.format)


def wanted(config: SinkConfig, node: SpiffeId) -> Wanted:
    """What a sink is sent of the agent with this ID."""
    if config.format == "sojourn":
        return Wanted(config.include, config.exclude)
    # Imported where one is configured: its table is nothing that a small agent needs.
    from sojourn.ocsf.translation import OcsfLines

    return Wanted(config.include, config.exclude, OcsfLines(node))


def sender_of(config: SinkConfig, node: SpiffeId, svid: Callable[[], X509Svid] | None) -> Sender:
    """What sends to a sink the records of the agent with this ID. `svid` gives the agent's own, for those that show it.

    Raise InvalidConfig if `ca` is not a file of certificates.
    """
    if config.path is not None:
        return FileSender(config.path, config.max_bytes, config.files, config.timeout.total_seconds())
    # Imported where one is configured: nothing else of a small agent speaks HTTP to the outside.
    from sojourn.providers.guarded_http import GuardedHttp
    from sojourn.sinks.http_sender import NdjsonSender, Posting, ShownSvid
    from sojourn.sinks.otlp_sender import OtlpSender

    shown = ShownSvid(svid) if config.svid and svid is not None else None
    if config.address is not None:
        return _syslog(config, node, shown)
    assert config.url is not None  # of each other kind
    table = OutsideTable(
        timeout=config.timeout,
        ca=config.ca,
        private_networks=config.private_networks,
        plain_http=True,  # to loopback addresses, which alone the configuration has as http
    )
    try:
        http = GuardedHttp(table)
    except InvalidConfig as error:
        raise InvalidConfig([f"audit.sinks: {config.name}: {fault}" for fault in error.faults]) from error
    posting = Posting(config.url, http, config.token_file, shown)
    return OtlpSender(posting, _resource(node)) if config.kind == "otlp" else NdjsonSender(posting)


def _syslog(config: SinkConfig, node: SpiffeId, shown: "ShownSvid | None") -> Sender:
    from sojourn.httpclient.lookups import Lookups
    from sojourn.httpclient.one_way import OneWay
    from sojourn.httpclient.tcp import TcpTransport
    from sojourn.httpclient.wire import WireLimits
    from sojourn.net.tls_contexts import web_context
    from sojourn.sinks.syslog_sender import SyslogSender

    try:
        context = web_context(config.ca) if config.tls else None
    except OSError as error:
        said = f"ca: {config.ca} is not a PEM file of certificates: {error.strerror}"
        raise InvalidConfig([f"audit.sinks: {config.name}: {said}"]) from error
    networks = [ip_network(each) for each in config.private_networks]
    may = partial(may_connect, allowed=networks) if config.tls else is_loopback
    wire = WireLimits(PROVIDER_READ_BYTES, PROVIDER_WIRE_MAX_BYTES)
    transport = TcpTransport(Lookups(PROVIDER_LOOKUPS_AT_ONCE), may, wire, tried=PROVIDER_ADDRESSES_TRIED)
    host, port = config.host_port
    connection = OneWay(transport, host, port, context)
    url = Url("https" if config.tls else "http", host, port, "/")
    return SyslogSender(connection, url, _name(node), config.timeout.total_seconds(), context, shown)


def _name(node: SpiffeId) -> str:
    return node.path.rpartition("/")[2]


def _resource(node: SpiffeId) -> dict[str, str]:
    """Whose records these are, in OpenTelemetry's words."""
    return {"service.name": "sojourn", "service.instance.id": str(node), "host.name": _name(node)}
