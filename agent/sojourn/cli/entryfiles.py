"""Entries in files: YAML or JSON, SPIRE's `-data` files too.

A file holds entries: one document with `entries:`, a list, or several documents of one entry each. An entry has
`spiffe_id` and `selectors` (each `TYPE:VALUE`, or SPIRE's `type` and `value`), and may have `id`, `parent_id`,
`x509_svid_ttl`, `jwt_svid_ttl` (a duration, or seconds), `hint`, `dns_names`, `federates_with`, `expires_at` (seconds
since the epoch), `admin`, `downstream`, `store_svid`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sojourn.durations import parse_duration
from sojourn.errors import CannotStart, InvalidConfig, InvalidInput, SojournError

SUFFIXES = (".yaml", ".yml", ".json")
_FILE_MAX_BYTES = 32 * 1024 * 1024
_PLAIN: dict[str, type] = {
    "id": str,
    "hint": str,
    "admin": bool,
    "downstream": bool,
    "store_svid": bool,
    "expires_at": int,
}
_LISTS = ("dns_names", "federates_with")
# Names that SPIRE's files, or ours in another place, have for the same.
_ALIASES = {"entry_id": "id", "entry_expiry": "expires_at", "entryExpiry": "expires_at"}
_IGNORED = frozenset({"revision", "revision_number", "created_at", "additional_attributes"})


def read(path: Path) -> list[Any]:
    """Read a file, or every file of a folder in the order of their names. Raise InvalidConfig with all faults."""
    files = [path]
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES and not each.name.startswith("."))
    messages: list[Any] = []
    faults: list[str] = []
    for file in files:
        try:
            for place, document in enumerate(_documents(file), 1):
                try:
                    messages.append(_message(document))
                except (SojournError, ValueError) as error:
                    faults.append(f"{file}: entry {place}: {error}")
        except InvalidInput as error:
            faults.append(f"{file}: {error.public}")
    if faults:
        raise InvalidConfig(faults)
    return messages


def _documents(file: Path) -> Iterator[Any]:
    try:
        import yaml
    except ModuleNotFoundError:
        raise CannotStart("reading entries from files needs PyYAML: pip install 'sojourn[agent]'") from None
    try:
        if not file.is_file() or file.stat().st_size > _FILE_MAX_BYTES:
            raise InvalidInput(f"not a regular file of at most {_FILE_MAX_BYTES} bytes")
        documents = list(yaml.load_all(file.read_text("utf-8"), _loader()))  # a safe one; JSON is YAML too
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(f"neither YAML nor JSON: {' '.join(str(error).split())[:200]}") from error
    for document in documents:
        if document is None:
            continue
        if isinstance(document, list):
            yield from document
        elif isinstance(document, dict) and "entries" in document:
            unknown = sorted(set(document) - {"entries"}, key=str)
            if unknown or not isinstance(document["entries"], list):
                raise InvalidInput("beside a list `entries` there is nothing else in a document")
            yield from document["entries"]
        else:
            yield document


def _loader() -> type:
    """YAML's safe loader, with an error for a key that is there twice: otherwise the last would silently count."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        "while reading a mapping", node.start_mark, f"the key {key.value[:64]!r} is there twice"
                    )
                if isinstance(key, yaml.ScalarNode):
                    seen.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

    return Loader


def _message(document: Any) -> Any:
    from sojourn._pb.spire.api.types import types_pb2 as types

    if not isinstance(document, dict):
        raise InvalidInput("is not a mapping")
    fields = {_ALIASES.get(name, name): value for name, value in document.items()}
    known = {"spiffe_id", "parent_id", "selectors", "x509_svid_ttl", "jwt_svid_ttl", *_PLAIN, *_LISTS}
    unknown = sorted(str(name) for name in set(fields) - known - _IGNORED)
    if unknown:
        raise InvalidInput(f"unknown key {unknown[0][:64]!r}")
    if "spiffe_id" not in fields or not fields.get("selectors"):
        raise InvalidInput("spiffe_id and selectors are needed")
    entry = types.Entry(spiffe_id=_spiffe_id("spiffe_id", fields["spiffe_id"]))
    if fields.get("parent_id"):
        entry.parent_id.CopyFrom(_spiffe_id("parent_id", fields["parent_id"]))
    if not isinstance(fields["selectors"], list):
        raise InvalidInput("selectors is not a list")
    entry.selectors.extend(_selector(each) for each in fields["selectors"])
    for name in ("x509_svid_ttl", "jwt_svid_ttl"):
        setattr(entry, name, _seconds(name, fields.get(name) or 0))
    for name, kind in _PLAIN.items():
        value = fields.get(name)
        if value is None:
            continue
        if type(value) is not kind:
            raise InvalidInput(f"{name} is not of the right type: {kind.__name__} is wanted")
        setattr(entry, name, value)
    for name in _LISTS:
        values = fields.get(name) or []
        if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
            raise InvalidInput(f"{name} is not a list of strings")
        getattr(entry, name).extend(values)
    return entry


def _spiffe_id(name: str, value: Any) -> Any:
    from sojourn._pb.spire.api.types import types_pb2 as types
    from sojourn.spiffe.ids import SpiffeId

    if isinstance(value, Mapping):  # as SPIRE's API has it
        value = f"spiffe://{value.get('trust_domain')}{value.get('path', '')}"
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is not a string")
    parsed = SpiffeId.parse(value)
    return types.SPIFFEID(trust_domain=parsed.trust_domain.name, path=parsed.path)


def _selector(value: Any) -> Any:
    from sojourn._pb.spire.api.types import types_pb2 as types
    from sojourn.attestation.selectors import Selector

    if isinstance(value, Mapping):
        selector = Selector.from_parts(str(value.get("type", "")), str(value.get("value", "")))
    elif isinstance(value, str):
        selector = Selector.parse(value)
    else:
        raise InvalidInput("a selector is neither TYPE:VALUE nor a mapping of type and value")
    return types.Selector(type=selector.type, value=selector.value)


def _seconds(name: str, value: Any) -> int:
    try:
        seconds = parse_duration(value).total_seconds()
    except ValueError as error:
        raise InvalidInput(f"{name} {error}") from error
    if seconds != int(seconds) or not 0 <= seconds < 2**31:
        raise InvalidInput(f"{name} is not a whole number of seconds")
    return int(seconds)
