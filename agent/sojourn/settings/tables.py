"""The tables of the configuration about the outside: who signs events, who may connect, which services there are."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from sojourn.errors import InvalidInput, InvalidSpiffeId
from sojourn.limits import (
    AUDITED_TEXT,
    CONFIGURED_MAX_SECONDS,
    CONNECTIONS_PER_UID_PER_SECOND,
    SERVICE_WORKLOADS,
)
from sojourn.settings.durations import duration_text, parse_duration
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Grant

Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(duration_text, return_type=str, when_used="json")
]


def filled(value: object) -> object:
    """Not empty, as a shell's variable is that was never set: a path would then be the current folder. Nor what no path
    can have.
    """
    if value == "":
        raise ValueError("is empty: give a path, or leave it out")
    if "\0" in str(value):
        raise ValueError("has a NUL character, which no path can have")
    return value


FilePath = Annotated[Path, BeforeValidator(filled)]


@dataclass(frozen=True, slots=True)
class Between:
    """A duration's limits, as a validator with a message that people read."""

    low: timedelta
    high: timedelta

    def __call__(self, value: timedelta) -> timedelta:
        if value < self.low:
            raise ValueError(f"is {duration_text(value)}: the least is {duration_text(self.low)}")
        if value > self.high:
            raise ValueError(f"is {duration_text(value)}: the most is {duration_text(self.high)}")
        return value


def between(low: timedelta, high: timedelta = timedelta(seconds=CONFIGURED_MAX_SECONDS)) -> AfterValidator:
    """What keeps a duration of the configuration within these limits."""
    return AfterValidator(Between(low, high))


@dataclass(frozen=True, slots=True)
class Called:
    """What people call the values of a type of the configuration. Validates nothing."""

    name: str


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


def _issuer_url(value: str) -> str:
    """An issuer's URL, or raise ValueError."""
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or value.endswith("/"):
        raise ValueError("is not an https URL without query, fragment and trailing slash (RFC 8414, 2)")
    return value


HttpsUrl = Annotated[str, AfterValidator(_issuer_url), Called("https URL")]


def _spiffe_ids(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        try:
            SpiffeId.parse(text)
        except InvalidSpiffeId as error:
            raise ValueError(f"{text!r} is not a SPIFFE ID: {error.public}") from None
    return texts


_ARE_SPIFFE_IDS = AfterValidator(_spiffe_ids)
SpiffeIds = Annotated[tuple[str, ...], _ARE_SPIFFE_IDS, Called("SPIFFE IDs")]


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise ValueError("is not ADDRESS:PORT, such as 127.0.0.1:9464")
    return value


Address = Annotated[str, AfterValidator(_address), Called("ADDRESS:PORT")]  # of an IP socket; IPv6 as [::1]:9464


class MetricsConfig(Table):
    """Prometheus metrics over HTTP, off unless an address is given. It should be a loopback one."""

    listen: Address | None = None


class ListenConfig(Table):
    """What other machines may connect to; each is off unless an address is given. Port 0: any that is free.

    `tcp`: validators, over mutual TLS. `https`: the token service, for clients with or without an X.509-SVID. `trust`:
    the keys by which outside parties trust this agent, for anybody. `people`: where issuers of people's
    tokens say who has logged out. `nodes`: the nodes of a server.
    """

    nodes: Address | None = None  # of a server alone; default there: NODES_ADDRESS of config/server.py
    tcp: Address | None = None
    allowed: SpiffeIds | None = None  # SPIFFE IDs, for `tcp`; default: all of the trust domain
    https: Address | None = None
    https_certificate: FilePath | None = None  # a PEM file, leaf first; default: the agent's own X.509-SVID
    https_key: FilePath | None = None  # the private key of it, a PEM file
    https_url: HttpsUrl | None = None  # by which clients reach it, for the metadata
    https_allowed: SpiffeIds | None = None  # SPIFFE IDs whose certificates may be shown; default: as above

    trust: Address | None = None
    trust_certificate: FilePath | None = None  # as for `https`
    trust_key: FilePath | None = None
    trust_url: HttpsUrl | None = None  # by which it is reached; default: the issuer

    people: Address | None = None
    people_certificate: FilePath | None = None  # as for `https`
    people_key: FilePath | None = None

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        for name, certificate, key in (
            ("https", self.https_certificate, self.https_key),
            ("trust", self.trust_certificate, self.trust_key),
            ("people", self.people_certificate, self.people_key),
        ):
            if (certificate is None) != (key is None):
                raise ValueError(f"{name}_certificate and {name}_key go together")
        return self


class ServiceConfig(Table):
    """A service that takes task tokens: its resource, which is their audience, and who it is."""

    resource: str  # an absolute URI, compared byte for byte
    workloads: Annotated[SpiffeIds, Field(min_length=1, max_length=SERVICE_WORKLOADS)]
    name: Annotated[str, Field(min_length=1, max_length=AUDITED_TEXT)] | None = None  # for people (RFC 9728, 2)

    @field_validator("resource")
    @classmethod
    def _resource(cls, value: str) -> str:
        try:
            return Grant.parse(value, ("any",)).resource
        except InvalidInput:
            raise ValueError("is not an absolute URI without fragment (RFC 8707, 2)") from None


class FederationConfig(Table):
    """How the bundles of other trust domains are fetched. Which ones are is said through the admin socket."""

    ca: FilePath | None = None  # a PEM file: the authorities for `https_web`, in the place of the system's
    public_only: Annotated[bool, Field(strict=True)] = False  # whether endpoints at private addresses are refused


class LimitsConfig(Table):
    """What one uid may take of the door."""

    connections_per_uid: Annotated[int, Field(ge=1, strict=True)] | None = None  # default: half of all connections
    connections_per_uid_per_second: Annotated[int, Field(ge=1, strict=True)] = CONNECTIONS_PER_UID_PER_SECOND
