"""Forms of the token service's endpoints, read strictly: nothing that a client says is left out of account."""

from collections.abc import Collection, Iterable, Mapping
from urllib.parse import unquote_to_bytes

from sojourn.errors import InvalidInput


def decode(content: bytes | bytearray, most: int) -> list[tuple[str, str]]:
    """The names and values of application/x-www-form-urlencoded content, in UTF-8, as they were sent.

    Raise ValueError if it is none, or has more than so many. The library's `parse_qsl` takes twice as long.
    """
    fields = content.decode("ascii").split("&") if content else []
    if len(fields) > most:
        raise ValueError("too many fields")
    found = []
    for each in fields:
        name, equals, value = each.partition("=")
        if not equals:
            raise ValueError("a field has no value")
        found.append((_decoded(name), _decoded(value)))
    return found


def _decoded(text: str) -> str:
    # Most that is escaped is a URN or a URL, and has these two alone. Neither can make another escape of what is near.
    plain = text.replace("+", " ").replace("%3A", ":").replace("%2F", "/")
    return unquote_to_bytes(plain).decode() if "%" in plain else plain


def read(
    form: Iterable[tuple[str, str]], known: Collection[str], repeatable: Collection[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The parameters that have a value, each with its values. Raise InvalidInput.

    One that is not `known`, or is given twice and is not `repeatable`, is refused. One without a value counts as left
    out (RFC 6749, 3.2).
    """
    found: dict[str, list[str]] = {}
    for name, value in form:
        if name in found and name not in repeatable:
            raise InvalidInput(f"parameter {name[:64]!r} is given twice")
        found.setdefault(name, []).append(value)
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise InvalidInput(f"parameter {unknown[0][:64]!r} is not supported here")
    said = ((name, tuple(filter(None, values))) for name, values in found.items())
    return {name: values for name, values in said if values}


def single(fields: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The parameters that may be given once, by their value."""
    return {name: values[0] for name, values in fields.items() if len(values) == 1}


def check_not_empty(form: Iterable[tuple[str, str]], names: Collection[str]) -> None:
    """Raise InvalidInput if one of these is given without a value: to leave it out would be another request."""
    for name, value in form:
        if name in names and not value:
            raise InvalidInput(f"parameter {name!r} has no value: give one, or leave it out")
