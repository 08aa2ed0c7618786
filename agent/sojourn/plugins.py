"""Makes plugins of the configuration's tables: attestors, providers. Ours are found as anybody's are."""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import structlog

from sojourn.errors import InvalidConfig

log = structlog.get_logger()
_Made = TypeVar("_Made")


def make_plugins(
    table: str,
    tables: Mapping[str, Mapping[str, Any]],
    make: Callable[[str, Mapping[str, Any], Mapping[str, EntryPoint]], _Made],
) -> dict[str, _Made]:
    """Make one plugin for each of `tables`, by its name. They are those of the configuration's `[TABLE.NAME]`.

    `make` is given the name, its table and the entry points of the group `sojourn.TABLE`, and raises InvalidConfig with
    faults that begin with the key. Raise InvalidConfig with all faults of all tables, each beginning `TABLE.NAME`.
    """
    found = {point.name: point for point in entry_points(group=f"sojourn.{table}")}
    made: dict[str, _Made] = {}
    faults: list[str] = []
    for name, settings in tables.items():
        try:
            made[name] = make(name, settings, found)
        except InvalidConfig as error:
            faults += [f"{table}.{name}{'' if fault.startswith(': ') else '.'}{fault}" for fault in error.faults]
        except Exception as error:
            log.exception("plugin_not_loaded", table=table, name=name)
            faults.append(f"{table}.{name}: cannot be loaded: {type(error).__name__}")
    if faults:
        raise InvalidConfig(faults)
    return made
