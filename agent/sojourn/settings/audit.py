"""The table [audit] of the configuration: how much of the journal is kept here, and where else its records go."""

import re
from datetime import timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from sojourn.limits import AUDIT_MAX_BYTES_LEAST
from sojourn.net.urls import parse_url
from sojourn.operating_limits import (
    AUDIT_KEEP_LEAST_SECONDS,
    SINK_DEADLINE_MAX_SECONDS,
    SINK_DEADLINE_SECONDS,
    SINK_EVENTS,
    SINK_FILE_BYTES,
    SINK_FILE_BYTES_LEAST,
    SINK_FILES,
    SINK_FILES_MOST,
    SINKS,
    USAGE_KEEP_DAYS,
    USAGE_KEEP_DAYS_LEAST,
    WITNESSES,
)
from sojourn.settings.outside import Networks
from sojourn.settings.tables import Called, Duration, FilePath, Table, between
from sojourn.settings.witnesses import TimestampsConfig, WitnessConfig, is_here

_OF_FILES: Final = ("path", "max_bytes", "files")
_OF_HTTP: Final = ("url", "token_file", "ca", "svid", "private_networks")
_OF_SYSLOG: Final = ("address", "tls", "ca", "svid", "private_networks")
_KEYS_OF: Final = {"file": _OF_FILES, "https": _OF_HTTP, "otlp": _OF_HTTP, "syslog": _OF_SYSLOG}
_HOST_PORT: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,253}):(?P<port>[0-9]{1,5})")
Events = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=SINK_EVENTS)]


def _host_port(value: str) -> str:
    found = _HOST_PORT.fullmatch(value)
    if found is None or not 0 < int(found["port"]) < 65_536:
        raise ValueError("is not HOST:PORT, such as siem.example.org:6514")
    return value


HostPort = Annotated[str, AfterValidator(_host_port), Called("HOST:PORT")]


class SinkConfig(Table):
    """One place outside of the database to which the journal's records go."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    kind: Literal["file", "https", "otlp", "syslog"]
    format: Literal["sojourn", "ocsf"] = "sojourn"  # what its lines are
    include: Events = ()  # events whose records go there; none: all
    exclude: Events = ()  # events whose records do not
    required: Annotated[bool, Field(strict=True)] = False  # whether nothing is pruned that it has not had
    start: Literal["now", "beginning"] = "now"  # where a sink begins that is new
    timeout: Annotated[Duration, between(timedelta(seconds=0.1), timedelta(seconds=SINK_DEADLINE_MAX_SECONDS))] = (
        timedelta(seconds=SINK_DEADLINE_SECONDS)
    )  # for one batch
    path: FilePath | None = None  # of a file
    max_bytes: Annotated[int, Field(ge=SINK_FILE_BYTES_LEAST, strict=True)] = SINK_FILE_BYTES  # of one file
    files: Annotated[int, Field(ge=1, le=SINK_FILES_MOST, strict=True)] = SINK_FILES  # full ones that are kept
    url: str | None = None  # to which batches are posted
    address: HostPort | None = None  # of a syslog receiver
    tls: Annotated[bool, Field(strict=True)] = True  # without it to loopback addresses alone
    token_file: FilePath | None = None  # with the bearer token that is shown
    ca: FilePath | None = None  # a PEM file: who may have signed the certificate; default: the system's
    svid: Annotated[bool, Field(strict=True)] = False  # whether the agent's own X.509-SVID is shown
    private_networks: Networks = ()  # not public, and may be connected to

    @field_validator("url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = parse_url(value)  # its ValueError says what is wrong
        if url.scheme != "https" and not is_here(url.host):
            raise ValueError("is not an https URL: plain http is for loopback addresses alone")
        return value

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        own = _KEYS_OF[self.kind]
        if getattr(self, own[0]) is None:
            raise ValueError(f"a sink of kind {self.kind} needs {own[0]}")
        for keys in _KEYS_OF.values():
            for key in keys:
                if key in self.model_fields_set and key not in own:
                    raise ValueError(f"{key} is not of a sink of kind {self.kind}, which has {', '.join(own)}")
        if self.include and self.exclude:
            raise ValueError("has include and exclude: it is one of them")
        return self

    @model_validator(mode="after")
    def _nothing_is_shown_in_the_open(self) -> Self:
        if not self.secure:
            for key in ("ca", "svid"):
                if getattr(self, key):
                    raise ValueError(f"{key} is for TLS")
        if not self.tls and not is_here(self.host_port[0]):
            raise ValueError("tls = false is for loopback addresses alone")
        return self

    @property
    def secure(self) -> bool:
        """Whether it is sent over TLS."""
        return self.tls and (self.url is None or parse_url(self.url).scheme == "https")

    @property
    def host_port(self) -> tuple[str, int]:
        """Of `address`; an IPv6 address has no brackets. Empty and 0 where there is none."""
        host, _, port = (self.address or ":0").rpartition(":")
        return host.strip("[]"), int(port)


class AuditConfig(Table):
    """How much of the audit journal is kept, and of what is added up of it, and who gets its records."""

    # The most that the database may have, in bytes. Default: AUDIT_MAX_BYTES, or half of the data folder's file system
    # if that is less.
    max_bytes: Annotated[int, Field(ge=AUDIT_MAX_BYTES_LEAST, strict=True)] | None = None
    keep: Annotated[Duration, between(timedelta(seconds=AUDIT_KEEP_LEAST_SECONDS))] | None = None  # at least so long
    # For how long the daily sums are kept of what tasks were granted and used.
    usage_keep: Annotated[Duration, between(timedelta(days=USAGE_KEEP_DAYS_LEAST))] = timedelta(days=USAGE_KEEP_DAYS)
    sinks: Annotated[tuple[SinkConfig, ...], Field(max_length=SINKS)] = ()
    witnesses: Annotated[tuple[WitnessConfig, ...], Field(max_length=WITNESSES)] = ()
    timestamps: TimestampsConfig = TimestampsConfig()

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for key in ("name", "path"):
            values = [getattr(each, key) for each in self.sinks if getattr(each, key) is not None]
            if twice := next((each for each in values if values.count(each) > 1), None):
                raise ValueError(f"sinks: the {key} {str(twice)!r} is there twice")
        for key in ("name", "key"):
            values = [getattr(each, key) for each in self.witnesses]
            if twice := next((each for each in values if values.count(each) > 1), None):
                raise ValueError(f"witnesses: the {key} {str(twice)!r} is there twice")
        return self
