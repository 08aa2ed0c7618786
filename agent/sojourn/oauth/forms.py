"""Forms of the token service's endpoints, read strictly: nothing that a client says is left out of account."""

from collections.abc import Collection, Iterable, Mapping

from sojourn.errors import InvalidInput


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
    return {name: tuple(filter(None, values)) for name, values in found.items() if any(values)}


def single(fields: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The parameters that may be given once, by their value."""
    return {name: values[0] for name, values in fields.items() if len(values) == 1}


def check_not_empty(form: Iterable[tuple[str, str]], names: Collection[str]) -> None:
    """Raise InvalidInput if one of these is given without a value: to leave it out would be another request."""
    for name, value in form:
        if name in names and not value:
            raise InvalidInput(f"parameter {name!r} has no value: give one, or leave it out")
