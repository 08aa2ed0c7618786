"""The agent's configuration: its keys, and what each may be. Every key has a default that works."""

import re
import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from sojourn.config.approval_notifier import ApprovalNotifierConfig
from sojourn.config.paths import default_run_dir, default_state_dir, socket_path
from sojourn.errors import InvalidInput, InvalidSpiffeId
from sojourn.limits import (
    JWT_AUDIENCES_ANEW,
    OVERLAP_SHARE,
    PROVIDERS,
    SERVICES,
    SIGNAL_ISSUERS,
    SVID_TTL_MAX_SECONDS,
    SVID_TTL_MIN_SECONDS,
    TOKEN_KEY_SECONDS,
)
from sojourn.settings.durations import duration_text
from sojourn.settings.tables import (
    AuditConfig,
    Duration,
    FederationConfig,
    FilePath,
    HttpsUrl,
    LimitsConfig,
    ListenConfig,
    MetricsConfig,
    ServiceConfig,
    SignalsConfig,
    SpiffeIds,
    Table,
    between,
    filled,
)
from sojourn.spiffe.ids import SpiffeId, TrustDomain


def _socket(value: object) -> object:
    try:
        return Path(socket_path(value)) if isinstance(value, str) else value
    except InvalidInput as error:
        raise ValueError(error.public) from None


def _once(key: str) -> AfterValidator:
    """Of tables, no two with the same in this key."""

    def check(tables: tuple[Table, ...]) -> tuple[Table, ...]:
        values = [getattr(each, key) for each in tables]
        if twice := next((each for each in values if values.count(each) > 1), None):
            raise ValueError(f"the {key} {twice!r} is there twice")
        return tables

    return AfterValidator(check)


SocketPath = Annotated[Path, BeforeValidator(_socket), BeforeValidator(filled)]  # the last one first
SvidTtl = Annotated[Duration, between(timedelta(seconds=SVID_TTL_MIN_SECONDS), timedelta(seconds=SVID_TTL_MAX_SECONDS))]


class AuthorityConfig(Table):
    """What signs. `embedded` is this agent's own certificate authority."""

    kind: Literal["embedded"] = "embedded"
    key_type: Literal["ec-p256", "ec-p384"] = "ec-p256"
    root_ttl: Annotated[Duration, between(timedelta(days=1))] = timedelta(days=3650)
    issuer_ttl: Annotated[Duration, between(timedelta(minutes=1))] = timedelta(days=1)
    jwt_key_ttl: Annotated[Duration, between(timedelta(hours=1))] = timedelta(days=30)
    jwt_key_overlap: Annotated[Duration | None, between(timedelta(minutes=1))] = None  # default: 1h, or a third of that
    rs256: Annotated[bool, Field(strict=True)] = False  # RSA keys beside: implied by providers that take nothing else

    @model_validator(mode="after")
    def _overlap_fits(self) -> Self:
        most = self.jwt_key_ttl * OVERLAP_SHARE
        if self.jwt_key_overlap is not None and self.jwt_key_overlap > most:
            raise ValueError(
                f"jwt_key_overlap is {duration_text(self.jwt_key_overlap)}: the most is a third of jwt_key_ttl,"
                f" {duration_text(most)}"
            )
        return self


class IdentityConfig(Table):
    """Lifetimes of SVIDs whose entry names none, and which kinds there are."""

    x509_svid_ttl: SvidTtl = timedelta(hours=1)
    jwt_svid_ttl: SvidTtl = timedelta(minutes=5)
    jwt_svid_issuer: Annotated[bool, Field(strict=True)] = False  # whether JWT-SVIDs have `iss`, as clouds want it
    jwt_svid_for_providers: Annotated[bool, Field(strict=True)] = False  # whether workloads get those providers take
    # Audiences that take a JWT-SVID once: those for them are made anew each time. "*": all are.
    jwt_svid_anew: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=JWT_AUDIENCES_ANEW)] = ()
    wit_svids: Annotated[bool, Field(strict=True)] = False  # an incubating profile of the standard


class RegistrationConfig(Table):
    """Entries that come from files."""

    follow: FilePath | None = None  # a folder of entry files whose entries are kept as it says


class TasksConfig(Table):
    """Task types and the tokens of tasks."""

    types_dir: FilePath | None = None
    shadow_types_dir: FilePath | None = None  # a candidate set that is asked beside, and decides nothing
    require_cases: Annotated[bool, Field(strict=True)] = False  # whether a set must stand by its own cases
    approval_classes: tuple[Literal["normal", "high"], ...] = ()  # of types that need an approval of an operator's
    issuer: HttpsUrl | None = None  # `iss` of task tokens; default: https://sojourn.TRUST_DOMAIN
    token_key_ttl: Annotated[Duration, between(timedelta(seconds=10))] = timedelta(seconds=TOKEN_KEY_SECONDS)


class LogConfig(Table):
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Table):
    """The whole configuration."""

    trust_domain: str = "example.org"
    node_name: str = ""  # default: the host's name
    node_aliases: SpiffeIds = ()  # further parents whose entries are served here
    data_dir: FilePath = Field(default_factory=default_state_dir)
    socket: SocketPath = Field(default_factory=lambda: default_run_dir() / "agent.sock")
    admin_socket: SocketPath = Field(default_factory=lambda: default_run_dir() / "admin.sock")
    authority: AuthorityConfig = AuthorityConfig()
    identity: IdentityConfig = IdentityConfig()
    attestors: Mapping[str, Mapping[str, Any]] = Field(default_factory=lambda: {"unix": {}})
    registration: RegistrationConfig = RegistrationConfig()
    tasks: TasksConfig = TasksConfig()
    signals: Annotated[tuple[SignalsConfig, ...], Field(max_length=SIGNAL_ISSUERS), _once("issuer")] = ()
    log: LogConfig = LogConfig()
    metrics: MetricsConfig = MetricsConfig()
    listen: ListenConfig = ListenConfig()
    services: Annotated[tuple[ServiceConfig, ...], Field(max_length=SERVICES), _once("resource")] = ()
    providers: Annotated[Mapping[str, Mapping[str, Any]], Field(max_length=PROVIDERS)] = Field(default_factory=dict)
    federation: FederationConfig = FederationConfig()
    limits: LimitsConfig = LimitsConfig()
    audit: AuditConfig = AuditConfig()
    approval_notifier: ApprovalNotifierConfig = ApprovalNotifierConfig()

    @field_validator("trust_domain")
    @classmethod
    def _trust_domain(cls, value: str) -> str:
        try:
            return TrustDomain.parse(value).name
        except InvalidSpiffeId as error:
            raise ValueError(f"is not a trust domain: {error.public}") from None

    @field_validator("node_name")
    @classmethod
    def _node_name(cls, value: str) -> str:
        if value and ("/" in value or value in {".", ".."}):
            raise ValueError("is not one segment of a SPIFFE ID")
        try:
            SpiffeId.from_parts("td", f"/{value}" if value else "")
        except InvalidSpiffeId as error:
            raise ValueError(f"is not one segment of a SPIFFE ID: {error.public}") from None
        return value

    @model_validator(mode="after")
    def _two_sockets(self) -> Self:
        if self.socket == self.admin_socket:
            raise ValueError(f"socket and admin_socket are the same, {str(self.socket)!r}: give each a path of its own")
        return self

    @model_validator(mode="after")
    def _named_are_ours(self) -> Self:
        """SPIFFE IDs that may come in, or are services, are of our own trust domain."""
        named = {
            "listen.allowed": self.listen.allowed or (),
            "listen.https_allowed": self.listen.https_allowed or (),
            **{f"services: {each.resource!r}": each.workloads for each in self.services},
        }
        for key, ids in named.items():
            for each in ids:
                if SpiffeId.parse(each).trust_domain.name != self.trust_domain:
                    raise ValueError(f"{key}: {each!r} is not of the trust domain {self.trust_domain!r}")
        return self

    @property
    def node_id(self) -> SpiffeId:
        name = self.node_name or _host_segment()
        return SpiffeId.from_parts(self.trust_domain, f"/spire/agent/sojourn/{name}")

    @property
    def issuer(self) -> str:
        return self.tasks.issuer or f"https://sojourn.{self.trust_domain}"


def _host_segment() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
    return name if name.strip(".") else "localhost"
