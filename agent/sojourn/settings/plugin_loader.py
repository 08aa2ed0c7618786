"""Makes plugins of the configuration's tables: attestors, providers, upstream authorities.

Ours are found as anybody's are.
"""

import re
from collections.abc import Callable, Iterable, Mapping
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
    found, twice = _found(table)
    made: dict[str, _Made] = {}
    faults: list[str] = []
    for name, settings in tables.items():
        try:
            if name in twice:
                raise InvalidConfig([f": is in several packages, {twice[name]}: uninstall all but one"])
            made[name] = make(name, settings, found)
        except InvalidConfig as error:
            faults += faults_below(table, name, error)
        except Exception as error:
            log.exception("plugin_not_loaded", table=table, name=name)
            faults.append(f"{table}.{name}: cannot be loaded: {type(error).__name__}")
    if faults:
        raise InvalidConfig(faults)
    return made


def plugin_named(group: str, name: str, others: Iterable[str] = ()) -> Any:
    """The plugin of a group `sojourn.GROUP` by its name, loaded. `others`: names that there are beside plugins.

    Raise InvalidConfig, with a fault of the key `kind`.
    """
    found, twice = _found(group)
    if name in twice:
        raise InvalidConfig([f"kind: {name} is in several packages, {twice[name]}: uninstall all but one"])
    if name not in found:
        raise InvalidConfig([f"kind: is none that is installed; there are: {', '.join(sorted({*found, *others}))}"])
    try:
        return found[name].load()
    except Exception as error:
        log.exception("plugin_not_loaded", table=group, name=name)
        raise InvalidConfig([f"kind: {name} cannot be loaded: {type(error).__name__}"]) from error


def faults_below(table: str, name: str, error: InvalidConfig) -> list[str]:
    """The faults of one plugin's table, each beginning `TABLE.NAME`."""
    return [f"{table}.{name}{'' if fault.startswith(': ') else '.'}{fault}" for fault in error.faults]


def is_ours(point: EntryPoint) -> bool:
    """Whether a plugin comes with Sojourn."""
    return _package(point) == "sojourn"


def _found(table: str) -> tuple[dict[str, EntryPoint], dict[str, str]]:
    """The plugins by name, and the packages of those names that several have: which is meant is for nobody to guess."""
    found: dict[str, EntryPoint] = {}
    packages: dict[str, set[str]] = {}
    for point in entry_points(group=f"sojourn.{table}"):
        found[point.name] = point
        packages.setdefault(point.name, set()).add(_package(point))
    return found, {name: " and ".join(sorted(each)) for name, each in packages.items() if len(each) > 1}


def _package(point: EntryPoint) -> str:
    """The normalised name of the package that a plugin is of, or ''."""
    return "" if point.dist is None else re.sub(r"[-_.]+", "-", point.dist.name).lower()
