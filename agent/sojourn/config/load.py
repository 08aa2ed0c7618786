"""Reading the configuration: one TOML file, `SOJOURN_…` variables and flags, in rising order of precedence.

All faults are told at once, each with its line.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sojourn.config.model import Config
from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.files import trusted
from sojourn.limits import CONFIG_MAX_BYTES
from sojourn.settings.models import plain
from sojourn.settings.toml_lines import line_numbers


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
