"""The keys of the configuration, described from the models that read them: type, default, limits, meaning."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sojourn.config.load import VARIABLES
from sojourn.config.meanings import AT_ONCE, DEFAULTS, MEANINGS
from sojourn.config.model import Config
from sojourn.limits import CONFIGURED_MAX_SECONDS
from sojourn.settings.durations import duration_text
from sojourn.settings.tables import Between, Called, Table

# Keys that `sojourn agent run` has an option for, which wins over variable and file.
FLAGS: Final = {
    "trust_domain": "--trust-domain",
    "data_dir": "--data-dir",
    "socket": "--socket",
    "admin_socket": "--admin-socket",
    "registration.follow": "--follow",
}
_PLAIN: Final = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    timedelta: "duration",
    Path: "path",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key, as people read of it. `default` is empty where there is none; `limits` where there are no such."""

    name: str
    kind: str
    default: str
    limits: str
    meaning: str
    at_once: bool
    flag: str
    variable: str


@dataclass(slots=True)
class _Kind:
    """What an annotation says: what people call its values, and what limits those."""

    name: str = ""
    limits: list[str] = field(default_factory=list)


def described(model: type[Table] = Config, prefix: str = "") -> list[Key]:
    """Every key of the configuration, or of the model of one table.

    Those of arrays of tables stand as `TABLE[].KEY`, and those of tables that have names as `TABLE.NAME.KEY`.
    """
    return list(_keys(model, prefix))


def _keys(model: type[Table], prefix: str) -> Iterator[Key]:
    hints = get_type_hints(model, include_extras=True)
    for name, told in model.model_fields.items():
        inner = _table(hints[name])
        if inner is not None and get_origin(told.annotation) is not tuple:
            yield from _keys(inner, f"{prefix}{name}.")
            continue
        yield _key(prefix + name, hints[name], told)
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}[].")
        elif (named := _named(hints[name])) is not None:
            yield from _keys(named, f"{prefix}{name}.NAME.")


def _key(name: str, hint: Any, told: FieldInfo) -> Key:
    kind = _kind(hint)
    whole = name.partition("[]")[0]
    return Key(
        name,
        kind.name,
        DEFAULTS.get(name) or _default(told),
        ", ".join(kind.limits),
        MEANINGS.get(name, ""),
        whole in AT_ONCE,
        FLAGS.get(name, ""),
        next((variable for variable, key in VARIABLES.items() if key == name), ""),
    )


def _table(hint: Any) -> type[Table] | None:
    """The model of a table, or of each of an array of tables."""
    if isinstance(hint, type) and issubclass(hint, Table):
        return hint
    if get_origin(hint) in {Annotated, tuple, UnionType}:  # of a union: one that may be left out
        return _table(get_args(hint)[0])
    return None


def _named(hint: Any) -> type[Table] | None:
    """The model of each of several tables that have names."""
    if get_origin(hint) is Annotated:
        return _named(get_args(hint)[0])
    return _table(get_args(hint)[1]) if get_origin(hint) is Mapping else None


def _kind(hint: Any) -> _Kind:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind = _kind(inner[0])
        for each in inner[1:]:
            _add(kind, each)
        return kind
    if origin in {Union, UnionType}:
        kinds = [_kind(each) for each in inner if each is not NoneType]
        return _Kind(" or ".join(each.name for each in kinds), [one for each in kinds for one in each.limits])
    if origin is tuple:
        of = _kind(inner[0])
        return _Kind("array of tables" if _table(hint) else f"array of {of.name}", of.limits)
    if origin is Literal:
        return _Kind(" or ".join(f"`{each}`" for each in inner))
    if origin is dict:
        return _Kind("table of texts")
    return _Kind("tables" if origin is Mapping else _PLAIN.get(hint, ""))


def _add(kind: _Kind, told: Any) -> None:
    """What one thing beside an annotation says of its values."""
    if isinstance(told, Called):
        kind.name = told.name
    elif isinstance(told, AfterValidator) and isinstance(told.func, Between):
        kind.limits.append(_span(told.func))
    elif isinstance(told, FieldInfo):
        for each in told.metadata:
            kind.limits += _bounds(each, "characters" if kind.name == "text" else "of them")


def _span(told: Between) -> str:
    if told.high.total_seconds() == CONFIGURED_MAX_SECONDS:
        return f"at least {duration_text(told.low)}"
    return f"{duration_text(told.low)} to {duration_text(told.high)}"


def _bounds(told: Any, unit: str) -> Iterator[str]:
    lengths = {"min_length": "at least", "max_length": "at most"}
    for name, words in ({"ge": "at least", "le": "at most"} | lengths).items():
        bound = getattr(told, name, None)
        # That a text or an array is not empty needs no word.
        if bound is not None and (name, bound) != ("min_length", 1):
            yield f"{words} {bound}{f' {unit}' if name in lengths else ''}"


def _default(told: FieldInfo) -> str:
    value = told.default
    if value is PydanticUndefined:
        return "none" if told.default_factory is not None else ""
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None or value in {(), ""} else str(value)
