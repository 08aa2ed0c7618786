"""The agent's configuration: its keys, and what each may be. Every key has a default that works."""

import re
import socket
from collections.abc import Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from sojourn.audit.events import EVENTS
from sojourn.config.approval_notifier import ApprovalNotifierConfig
from sojourn.config.paths import (
    ADMIN_NAME,
    PUBLIC_NAME,
    agent_run_dir,
    default_mark_dir,
    default_state_dir,
    socket_path,
)
from sojourn.config.server import NODES_ADDRESS, NOT_OF_A_SERVER, NodeAttestorsConfig, ServerConfig
from sojourn.config.upstream import NOT_OF_A_NODE, UpstreamConfig
from sojourn.errors import InvalidInput, InvalidSpiffeId
from sojourn.limits import (
    ISSUER_LIVES,
    JWT_AUDIENCES_ANEW,
    LEAD_SHARE,
    OVERLAP_SHARE,
    PROVIDERS,
    SERVICES,
    SIGNAL_ISSUERS,
    SVID_TTL_MAX_SECONDS,
    SVID_TTL_MIN_SECONDS,
    TOKEN_KEY_SECONDS,
)
from sojourn.settings.audit import AuditConfig
from sojourn.settings.durations import duration_text
from sojourn.settings.keys import KeysConfig
from sojourn.settings.people import People
from sojourn.settings.signals import SignalsConfig
from sojourn.settings.tables import (
    Duration,
    FederationConfig,
    FilePath,
    HttpsUrl,
    LimitsConfig,
    ListenConfig,
    MetricsConfig,
    ServiceConfig,
    SpiffeIds,
    Table,
    between,
    filled,
)
from sojourn.settings.upstream import PluginUpstreamConfig, UpstreamAuthorityConfig, upstream_table
from sojourn.spiffe.ids import SERVER_PATH, SpiffeId, TrustDomain


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


Above = Annotated[UpstreamAuthorityConfig | PluginUpstreamConfig | None, BeforeValidator(upstream_table)]


class AuthorityConfig(Table):
    """What signs. `embedded` is this agent's own certificate authority."""

    kind: Literal["embedded"] = "embedded"
    key_type: Literal["ec-p256", "ec-p384"] = "ec-p256"
    root_ttl: Annotated[Duration, between(timedelta(days=1))] = timedelta(days=3650)
    issuer_ttl: Annotated[Duration, between(timedelta(minutes=1))] = timedelta(days=1)
    jwt_key_ttl: Annotated[Duration, between(timedelta(hours=1))] = timedelta(days=30)
    jwt_key_overlap: Annotated[Duration | None, between(timedelta(minutes=1))] = None  # default: 1h, or a third of that
    upstream: Above = None  # who signs the intermediate; none: a root of this agent's own
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

    @model_validator(mode="after")
    def _lead_fits(self) -> Self:
        most = self.issuer_ttl * LEAD_SHARE
        if self.upstream is not None and self.upstream.lead > most:
            raise ValueError(
                f"upstream.lead is {duration_text(self.upstream.lead)}: the most is a quarter of issuer_ttl,"
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
    mark_dir: FilePath | None = None  # outside of data_dir, for noticing that this was put back; default: see below
    socket: SocketPath = Field(default_factory=lambda: agent_run_dir() / PUBLIC_NAME)
    admin_socket: SocketPath = Field(default_factory=lambda: agent_run_dir() / ADMIN_NAME)
    authority: AuthorityConfig = AuthorityConfig()
    keys: KeysConfig = KeysConfig()
    upstream: UpstreamConfig = UpstreamConfig()
    server: ServerConfig | None = None  # there: it is the configuration of a server, and of no agent
    node_attestors: NodeAttestorsConfig = NodeAttestorsConfig()
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
    people: People = Field(default_factory=dict)
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
        if self.socket == self.admin_socket and self.server is None:
            raise ValueError(f"socket and admin_socket are the same, {str(self.socket)!r}: give each a path of its own")
        return self

    @model_validator(mode="after")
    def _intermediates_live_long_enough(self) -> Self:
        """One that is asked for at half of its life, and is late, must outlive what it signs."""
        least = ISSUER_LIVES * self.identity.x509_svid_ttl
        if self.authority.upstream is not None and self.authority.issuer_ttl < least:
            raise ValueError(
                f"authority.issuer_ttl is {duration_text(self.authority.issuer_ttl)}: with an upstream authority the"
                f" least is three times identity.x509_svid_ttl, {duration_text(least)}"
            )
        return self

    @model_validator(mode="after")
    def _is_not_above_itself(self) -> Self:
        above = self.authority.upstream
        if not isinstance(above, UpstreamAuthorityConfig):
            return self
        if above.socket in {self.socket, self.admin_socket}:
            raise ValueError("authority.upstream.socket is this agent's own: name that of the spire-agent")
        if above.spiffe_id is not None and SpiffeId.parse(above.spiffe_id).trust_domain.name != self.trust_domain:
            raise ValueError(
                f"authority.upstream.spiffe_id is not of the trust domain {self.trust_domain!r}: a SPIRE server signs"
                " authorities of its own trust domain alone"
            )
        return self

    @model_validator(mode="after")
    def _named_are_ours(self) -> Self:
        """SPIFFE IDs that may come in, or are services, are of our own trust domain."""
        named = {
            "listen.allowed": self.listen.allowed or (),
            "listen.https_allowed": self.listen.https_allowed or (),
            **{f"services: {each.resource!r}": each.workloads for each in self.services},
            **{
                f"people.{name}.presenters": tuple(id_ for each in table.presenters for id_ in each.workloads)
                for name, table in self.people.items()
            },
        }
        for key, ids in named.items():
            for each in ids:
                if SpiffeId.parse(each).trust_domain.name != self.trust_domain:
                    raise ValueError(f"{key}: {each!r} is not of the trust domain {self.trust_domain!r}")
        return self

    @model_validator(mode="after")
    def _sinks_name_events(self) -> Self:
        for sink in self.audit.sinks:
            for event in (*sink.include, *sink.exclude):
                if event not in EVENTS:
                    near = get_close_matches(event, EVENTS, n=1)
                    meant = f": {near[0]} is meant?" if near else ", see docs/codes.md"
                    raise ValueError(f"audit.sinks: {sink.name}: there is no event {event!r}{meant}")
        return self

    @model_validator(mode="after")
    def _people_are_of_others(self) -> Self:
        if self.listen.people is not None and not self.people:
            raise ValueError("listen.people is for issuers that are named in tables [people.NAME], and there is none")
        for number, each in enumerate(self.signals):
            if each.people is not None and each.people not in self.people:
                raise ValueError(f"signals.{number}.people: there is no table [people.{each.people}]")
        for name, table in self.people.items():
            if table.issuer == self.issuer:
                raise ValueError(f"people.{name}.issuer is this agent's own: its tokens are of tasks, not of people")
            if table.ends == "session" and self.listen.people is None:
                raise ValueError(f"people.{name}.ends is session, and nobody is heard who logs out: set listen.people")
        return self

    @model_validator(mode="after")
    def _fits_a_node(self) -> Self:
        if self.upstream.kind is None:
            return self
        self._refuse(NOT_OF_A_NODE, "a node of a SPIRE server")
        by_own = [f"signals.{number}" for number, each in enumerate(self.signals) if each.is_polled]
        by_own += [f"people.{name}.recheck" for name, table in self.people.items() if table.recheck is not None]
        if by_own:
            raise ValueError(
                f"{by_own[0]} takes a JWT-SVID of the agent's own ID, of which a SPIRE server signs none for its nodes:"
                " have events pushed, and leave recheck out"
            )
        return self

    @model_validator(mode="after")
    def _fits_a_server(self) -> Self:
        if self.server is not None:
            self._refuse(NOT_OF_A_SERVER, "a server")
        elif self.listen.nodes is not None or self.node_attestors.model_fields_set:
            key = "node_attestors" if self.listen.nodes is None else "listen.nodes"
            raise ValueError(f"{key} is for a server: give it a table [server], and run `sojourn server run`")
        return self

    def _refuse(self, unfit: Iterable[tuple[str, str, str]], whom: str) -> None:
        """Raise ValueError if one of these keys is there, by table and name: it is not for `whom`, and why."""
        for table, key, instead in unfit:
            of = getattr(self, table) if table else self
            if key in of.model_fields_set or (not key and of.model_fields_set):
                said = ".".join(each for each in (table, key) if each)
                raise ValueError(f"{said} is not for {whom}: {instead}")

    @property
    def node_id(self) -> SpiffeId:
        """The ID of a server, or of an agent that is its own authority. A server gives its nodes theirs."""
        if self.server is not None:
            return SpiffeId.from_parts(self.trust_domain, SERVER_PATH)
        name = self.node_name or _host_segment()
        return SpiffeId.from_parts(self.trust_domain, f"/spire/agent/sojourn/{name}")

    @property
    def workload_attestors(self) -> Mapping[str, Mapping[str, Any]]:
        """What attests processes of this machine: on a server nothing does."""
        return self.attestors if self.server is None else {}

    @property
    def usual_types_dir(self) -> Path | None:
        """Where task types are looked for if nobody says where; None: where an agent's are. A server has none."""
        return None if self.server is None else self.data_dir / "task-types"

    @property
    def nodes_address(self) -> str:
        """Where a server listens for its nodes."""
        return self.listen.nodes or NODES_ADDRESS

    @property
    def mark_folder(self) -> Path | None:
        """Where the mark of the data folder is; None: there is none."""
        return self.mark_dir or default_mark_dir(self.data_dir)

    @property
    def issuer(self) -> str:
        return self.tasks.issuer or f"https://sojourn.{self.trust_domain}"


def _host_segment() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
    return name if name.strip(".") else "localhost"
