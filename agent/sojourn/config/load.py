"""Reading the configuration: one TOML file, `SOJOURN_…` variables and flags, in rising order of precedence.

All faults are told at once, each with its line.
"""

import hashlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sojourn.config.model import Config
from sojourn.config.paths import ADMIN_NAME, default_server_state_dir, server_run_dir
from sojourn.config.server import is_unfit
from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.files import trusted
from sojourn.limits import CONFIG_MAX_BYTES
from sojourn.settings.models import plain
from sojourn.settings.toml_lines import line_numbers


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each value came from: `flag`, `SOJOURN_…`, `FILE:LINE` or `default`.

    `digest`: of the file's text, as `digest_of` makes it. "": there is no file.
    """

    config: Config
    origins: Mapping[str, str]
    digest: str = ""


_CREDENTIAL = "credential:"
VARIABLES = {
    "SOJOURN_TRUST_DOMAIN": "trust_domain",
    "SOJOURN_DATA_DIR": "data_dir",
    "SOJOURN_MARK_DIR": "mark_dir",
    "SOJOURN_SOCKET": "socket",
    "SOJOURN_ADMIN_SOCKET": "admin_socket",
    "SOJOURN_NODE_NAME": "node_name",
    "SOJOURN_LOG_LEVEL": "log.level",
    "SOJOURN_METRICS_LISTEN": "metrics.listen",
    "SOJOURN_LISTEN_TCP": "listen.tcp",
    "SOJOURN_LISTEN_HTTPS": "listen.https",
    "SOJOURN_LISTEN_TRUST": "listen.trust",
    "SOJOURN_LISTEN_PEOPLE": "listen.people",
    "SOJOURN_FOLLOW": "registration.follow",
    "SOJOURN_TASK_TYPES_DIR": "tasks.types_dir",
}


def load(
    path: Path | None,
    flags: Mapping[str, str | None],
    environment: Mapping[str, str] | None = None,
    held: Mapping[str, Path] | None = None,
    *,
    in_service: bool = True,
    server: bool | None = None,
) -> Loaded:
    """Put file, variables and flags together; `flags` maps dotted keys to values. Raise InvalidConfig: all faults.

    `held`: where the sockets are that systemd holds, by their keys. Whoever names another place for one is refused.
    `in_service`: False for a command beside the service, to which systemd gives no credentials: then `credential:NAME`
    stays. `server`: whether it is to be a server's, or an agent's; None: it is a server's if it has a table
    [server]. A server's files are elsewhere than an agent's where nothing says where.
    """
    environment = os.environ if environment is None else environment
    text = None if path is None else _read(path)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if path is not None and text is not None:
        values, origins = _of_file(path, text, environment, in_service=in_service)
    if server is False and "server" in values:
        raise InvalidConfig([f"{path}: it has a table [server], and is a server's: run `sojourn server run`"])
    server = server or "server" in values
    for variable, key in VARIABLES.items():
        if environment.get(variable) and not (server and is_unfit(key)):
            _set(values, key, environment[variable])
            origins[key] = variable
    for key, value in flags.items():
        if value is not None:
            _set(values, key, value)
            origins[key] = "flag"
    for key, place in (held or {}).items():
        if key not in values:
            _set(values, key, str(place))
            origins[key] = "systemd"
    if server:
        _as_server(values)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise InvalidConfig([_fault(path, origins, fault) for fault in error.errors()]) from None
    elsewhere = [(key, place) for key, place in (held or {}).items() if getattr(config, key) != place]
    if elsewhere:
        raise InvalidConfig([_not_held(key, getattr(config, key), place, origins) for key, place in elsewhere])
    return Loaded(config, origins, "" if text is None else _digest(text))


def _as_server(values: dict[str, Any]) -> None:
    """Make it a server's configuration, with a server's places where it names none."""
    values.setdefault("server", {})
    if "data_dir" not in values:
        values["data_dir"] = str(default_server_state_dir())
    if "admin_socket" not in values:
        values["admin_socket"] = str(server_run_dir() / ADMIN_NAME)


def digest_of(path: Path) -> str:
    """By which one sees whether the file has another text now than when it was loaded. Raise InvalidConfig."""
    return _digest(_read(path))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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


def _of_file(
    path: Path, text: str, environment: Mapping[str, str], *, in_service: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """The tables of a file, and the line of each key."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig([f"{path}: not TOML: {error}"]) from error
    _resolve_paths(values, path.resolve().parent)
    if in_service and (faults := _load_credentials(path, values, environment.get("CREDENTIALS_DIRECTORY", ""))):
        raise InvalidConfig(faults)
    return values, {key: f"{path}:{line}" for key, line in line_numbers(text).items()}


def _read(path: Path) -> str:
    try:
        return trusted.read(path, CONFIG_MAX_BYTES)
    except InvalidInput as error:
        raise InvalidConfig([f"{path}: {error.public}"]) from error


def _resolve_paths(values: dict[str, Any], folder: Path) -> None:
    """Paths in the file are relative to the file."""
    own = [(values, key) for key in ("data_dir", "mark_dir", "socket", "admin_socket")]
    places = [*own, *_named_files(values)]
    for table, key in places:
        if isinstance(table, dict) and isinstance(table.get(key), str) and table[key]:
            here = table[key].startswith(("unix:", _CREDENTIAL))
            table[key] = table[key] if here else str(folder / table[key])


def _load_credentials(path: Path, values: dict[str, Any], folder: str) -> list[str]:
    """Put the path of a credential of systemd's in the place of `credential:NAME`. Return what is wrong with them."""
    faults = []
    for table, key in _named_files(values):
        if not isinstance(table, dict) or not str(table.get(key, "")).startswith(_CREDENTIAL):
            continue
        name = table[key].removeprefix(_CREDENTIAL)
        if not folder.startswith("/"):
            faults.append(f"{path}: {key}: there is no credential {name!r}: systemd gives credentials to a service, by"
                          f" LoadCredential={name}:FILE in its unit")  # fmt: skip
        elif not name or "/" in name or name in {".", ".."}:
            faults.append(f"{path}: {key}: {table[key]!r} does not name a credential: it is credential: and a name")
        else:
            table[key] = str(Path(folder) / name)
    return faults


def _named_files(values: dict[str, Any]) -> list[tuple[Any, str]]:
    """Where the file names files and folders, its sockets and its data apart: tables with the key in each."""
    keys = (
        ("registration", "follow"),
        ("federation", "ca"),
        *(("keys", key) for key in ("seal_key", "pin_file", "socket")),
        *(("upstream", key) for key in ("bundle", "token_file", "certificate", "key")),
        *(("approval_notifier", key) for key in ("token_file", "ca")),
        *(("tasks", key) for key in ("types_dir", "shadow_types_dir")),
        *(("listen", f"{door}_{key}") for door in ("https", "trust", "people") for key in ("certificate", "key")),
    )
    inner = ((values.get(table), key) for table, key in keys)
    held = values.get("keys")
    listed = values.get("signals")
    issuers = [(each, key) for each in listed for key in ("jwks", "ca")] if isinstance(listed, list) else []
    issuers += [(held.get("openbao"), key) for key in ("token_file", "ca")] if isinstance(held, dict) else []
    audit = values.get("audit")
    sinks = audit.get("sinks") if isinstance(audit, dict) else None
    issuers += (
        [(each, key) for each in sinks for key in ("path", "token_file", "ca")] if isinstance(sinks, list) else []
    )
    witnesses = audit.get("witnesses") if isinstance(audit, dict) else None
    issuers += [(each, "ca") for each in witnesses] if isinstance(witnesses, list) else []
    issuers += [(audit.get("timestamps"), key) for key in ("ca", "tsa_ca")] if isinstance(audit, dict) else []
    attestors = values.get("node_attestors")
    issuers += [(attestors.get("x509pop"), "ca")] if isinstance(attestors, dict) else []
    pods = attestors.get("k8s_psat") if isinstance(attestors, dict) else None
    clusters = pods.get("clusters") if isinstance(pods, dict) else None
    issuers += [(each, "kube_config_file") for each in clusters.values()] if isinstance(clusters, dict) else []
    for outside, keys_of_it in ((values.get("providers"), ("ca",)), (values.get("people"), ("ca", "jwks"))):
        found = outside.values() if isinstance(outside, dict) else ()
        issuers += [(each, key) for each in found for key in keys_of_it]
    authority = values.get("authority")
    above = authority.get("upstream") if isinstance(authority, dict) else None
    issuers += [
        (above, key)
        for key in ("certificate", "key", "roots", "token_file", "ca", "bundle", "socket", "credentials_file")
    ]
    return [*inner, *issuers]


def _not_held(key: str, place: Path, held: Path, origins: Mapping[str, str]) -> str:
    unit = f"sojourn-{'admin' if key == 'admin_socket' else 'agent'}.socket"
    return (
        f"{origins.get(key, 'default')}: {key}: systemd holds this socket at {str(held)!r}, and this says"
        f" {str(place)!r}: take the line out, or change ListenStream= by `systemctl edit {unit}`"
    )


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
