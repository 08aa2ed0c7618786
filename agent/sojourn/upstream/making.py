"""Makes the upstream authority that the configuration names."""

import structlog

from sojourn.authority.key_seal import KeySeal
from sojourn.authority.upstream import Upstream, UpstreamSetting
from sojourn.config.model import Config
from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.files.data_folder import UPSTREAM
from sojourn.plugins.upstream import UpstreamPlugin
from sojourn.providers.provider import Mint
from sojourn.runtime.clock import Alarms, Clock
from sojourn.settings.plugin_loader import plugin_named
from sojourn.settings.upstream import KINDS, PluginUpstreamConfig, UpstreamAuthorityConfig
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.upstream.disk import DiskUpstream

log = structlog.get_logger()


def upstream_of(
    config: Config, mint: Mint, clock: Clock, alarms: Alarms, seal: KeySeal | None = None
) -> UpstreamSetting | None:
    """None: there is none. `mint` signs JWT-SVIDs of the agent's own, once it can. `seal`: what keys are sealed with on
    disk, if they are. Raise InvalidConfig.
    """
    table = config.authority.upstream
    if table is None:
        return None
    made = _made(config, table, mint, clock, alarms, seal)
    return UpstreamSetting(made, table.lead, table.look_every, config.identity.x509_svid_ttl)


# What each kind needs beside this is imported for those who use it: an HTTP library, or gRPC's client.


def _made(
    config: Config,
    table: UpstreamAuthorityConfig | PluginUpstreamConfig,
    mint: Mint,
    clock: Clock,
    alarms: Alarms,
    seal: KeySeal | None,
) -> Upstream:
    if isinstance(table, PluginUpstreamConfig):
        return _plugin(table, mint)
    if table.kind == "disk":
        return DiskUpstream(table, clock)
    if table.kind == "spire":
        return _spire(config, table, clock, alarms, seal)
    from sojourn.upstream.openbao import OpenBaoUpstream

    return OpenBaoUpstream(table, mint)


def _plugin(table: PluginUpstreamConfig, mint: Mint) -> Upstream:
    from sojourn.upstream.plugin_http import PluginHttp

    try:
        plugin: UpstreamPlugin = plugin_named("upstreams", table.kind, KINDS)
        return plugin(table.settings, PluginHttp, mint)
    except InvalidConfig as error:
        raise InvalidConfig([f"authority.upstream.{fault}" for fault in error.faults]) from error
    except Exception as error:
        log.exception("plugin_not_loaded", table="upstreams", name=table.kind)
        raise InvalidConfig([f"authority.upstream: cannot be made: {type(error).__name__}"]) from error


def _spire(
    config: Config, table: UpstreamAuthorityConfig, clock: Clock, alarms: Alarms, seal: KeySeal | None
) -> Upstream:
    from sojourn.upstream.downstream_identities import DownstreamIdentity, OfNode, OfWorkloadApi
    from sojourn.upstream.node import NodeSettings, SpireNode
    from sojourn.upstream.node_files import attestor_of, read_bundle
    from sojourn.upstream.spire import SpireUpstream

    trust_domain = TrustDomain(config.trust_domain)
    wanted = None if table.spiffe_id is None else SpiffeId.parse(table.spiffe_id)
    identity: DownstreamIdentity
    if table.socket is not None:
        identity = OfWorkloadApi(table.socket, trust_domain, wanted)
    else:
        assert table.bundle is not None  # the configuration has it
        try:
            bundle = read_bundle(table.bundle, trust_domain)
        except InvalidInput as error:
            raise InvalidConfig([f"authority.upstream.bundle: {error.public}"]) from error
        settings = NodeSettings(
            servers=table.servers,
            bootstrap=bundle,
            attestor=attestor_of(table),
            folder=config.data_dir / UPSTREAM,
            poll=table.look_every,
            keep="entries",
            seal=seal,
        )
        identity = OfNode(SpireNode(settings, clock, alarms), clock, trust_domain, wanted)
    return SpireUpstream(table.servers, trust_domain, identity, clock)
