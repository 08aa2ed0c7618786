"""The agent's configuration: one TOML file, `SOJOURN_…` variables and flags, in rising order of precedence.

Every key has a default that works. All faults are told at once, each with its line.
"""

import os
import re
import socket
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from sojourn.config.approval_notifier import ApprovalNotifierConfig
from sojourn.config.paths import default_run_dir, default_state_dir, socket_path
from sojourn.errors import InvalidConfig, InvalidInput, InvalidSpiffeId
from sojourn.files import trusted
from sojourn.limits import (
    CONFIG_MAX_BYTES,
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
from sojourn.settings.models import plain
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


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each value came from: `flag`, `SOJOURN_…`, `FILE:LINE` or `default`."""

    config: Config
    origins: Mapping[str, str]


VARIABLES = {
    "SOJOURN_TRUST_DOMAIN": "trust_domain",
    "SOJOURN_DATA_DIR": "data_dir",
    "SOJOURN_SOCKET": "socket",
    "SOJOURN_ADMIN_SOCKET": "admin_socket",
    "SOJOURN_NODE_NAME": "node_name",
    "SOJOURN_LOG_LEVEL": "log.level",
    "SOJOURN_METRICS_LISTEN": "metrics.listen",
    "SOJOURN_LISTEN_TCP": "listen.tcp",
    "SOJOURN_LISTEN_HTTPS": "listen.https",
    "SOJOURN_LISTEN_TRUST": "listen.trust",
    "SOJOURN_FOLLOW": "registration.follow",
    "SOJOURN_TASK_TYPES_DIR": "tasks.types_dir",
}


def load(path: Path | None, flags: Mapping[str, str | None], environment: Mapping[str, str] | None = None) -> Loaded:
    """Put file, variables and flags together; `flags` maps dotted keys to values. Raise InvalidConfig: all faults."""
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    lines: dict[str, int] = {}
    if path is not None:
        text = _read(path)
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidConfig([f"{path}: not TOML: {error}"]) from error
        lines = line_numbers(text)
        origins = {key: f"{path}:{line}" for key, line in lines.items()}
        _resolve_paths(values, path.resolve().parent)
    for variable, key in VARIABLES.items():
        if environment.get(variable):
            _set(values, key, environment[variable])
            origins[key] = variable
    for key, value in flags.items():
        if value is not None:
            _set(values, key, value)
            origins[key] = "flag"
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise InvalidConfig([_fault(path, origins, fault) for fault in error.errors()]) from None
    return Loaded(config, origins)


def flatten(loaded: Loaded) -> list[tuple[str, Any, str]]:
    """Every key with its value and origin, for `sojourn config show`."""

    def walk(prefix: str, value: Any) -> list[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            return [pair for name, each in value.items() for pair in walk(f"{prefix}{name}.", each)]
        return [(prefix.removesuffix("."), value)]

    return [
        (key, value, loaded.origins.get(key, "default"))
        for key, value in walk("", loaded.config.model_dump(mode="json"))
    ]


def line_numbers(text: str) -> dict[str, int]:
    """Where each dotted key stands in a TOML text (plain keys and tables; the first mention counts)."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        header = re.match(r"\[+\s*([A-Za-z0-9_.\-]+)\s*\]+", stripped)
        if header:
            table = header[1] + "."
            found.setdefault(header[1], number)
            continue
        key = re.match(r"([A-Za-z0-9_.\-]+)\s*=", stripped)
        if key:
            found.setdefault(table + key[1], number)
    return found


def _read(path: Path) -> str:
    try:
        return trusted.read(path, CONFIG_MAX_BYTES)
    except InvalidInput as error:
        raise InvalidConfig([f"{path}: {error.public}"]) from error


def _resolve_paths(values: dict[str, Any], folder: Path) -> None:
    """Paths in the file are relative to the file."""
    keys = (
        ("registration", "follow"),
        ("federation", "ca"),
        *(("approval_notifier", key) for key in ("token_file", "ca")),
        *(("tasks", key) for key in ("types_dir", "shadow_types_dir")),
        *(("listen", f"{door}_{key}") for door in ("https", "trust") for key in ("certificate", "key")),
    )
    inner = ((values.get(table), key) for table, key in keys)
    listed = values.get("signals")
    issuers = [(each, "jwks") for each in listed] if isinstance(listed, list) else []
    outside = values.get("providers")
    issuers += [(each, "ca") for each in outside.values()] if isinstance(outside, dict) else []
    for table, key in ((values, "data_dir"), (values, "socket"), (values, "admin_socket"), *inner, *issuers):
        if isinstance(table, dict) and isinstance(table.get(key), str) and table[key]:
            table[key] = table[key] if table[key].startswith("unix:") else str(folder / table[key])


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *tables, name = key.split(".")
    for table in tables:
        inner = values.setdefault(table, {})
        if not isinstance(inner, dict):
            return  # the file has something else there; validation will say so
        values = inner
    values[name] = value


def _fault(path: Path | None, origins: Mapping[str, str], fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    message = plain(fault["type"], fault["msg"])
    if fault["type"] == "extra_forbidden":
        message = "unknown key" + _there(fault["loc"])
    where = origins.get(key) or next((origins[k] for k in origins if key.startswith(f"{k}.")), str(path or "default"))
    return f"{where}: {key}: {message}"


def _there(loc: Sequence[int | str]) -> str:
    """Which key is meant, if one is spelled nearly so; otherwise which there are. Empty within lists and plugins."""
    table: type[BaseModel] = Config
    for part in loc[:-1]:
        field = table.model_fields.get(str(part))
        inner = field.annotation if field is not None else None
        if not isinstance(inner, type) or not issubclass(inner, BaseModel):
            return ""
        table = inner
    near = get_close_matches(str(loc[-1]), table.model_fields, n=1)
    return f": {near[0]} is meant?" if near else f"; there are {', '.join(table.model_fields)}"


def _host_segment() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
    return name if name.strip(".") else "localhost"
