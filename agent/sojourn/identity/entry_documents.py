"""Declared entries: what YAML or JSON texts say of entries, SPIRE's `-data` files too.

A text holds entries: one document with `entries:`, a list, or several documents of one entry each. An entry has
`spiffe_id` and `selectors` (each `TYPE:VALUE`, or SPIRE's `type` and `value`), and may have `id`, `parent_id`,
`x509_svid_ttl`, `jwt_svid_ttl` (a duration, or seconds), `hint`, `dns_names`, `federates_with`, `expires_at` (seconds
since the epoch), `priority`, `admin`, `downstream`, `store_svid`, `additional_attributes`, `jwt_claims` (by name),
`owner`, `sponsor`. The SPIFFE ID and the texts in `jwt_claims` may have placeholders such as `{k8s.ns}`.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sojourn.attestation.selectors import Selector
from sojourn.errors import CannotStart, InvalidConfig, InvalidInput, SojournError, quoted
from sojourn.extras import how_to_install
from sojourn.identity.custom_claims import JwtClaims
from sojourn.identity.templates import parse_id
from sojourn.limits import ENTRIES_PER_BATCH
from sojourn.settings.durations import parse_duration
from sojourn.spiffe.ids import SpiffeId, TrustDomain

SUFFIXES = (".yaml", ".yml", ".json")
_WHOLE_MAX = {"expires_at": 2**53, "priority": 2**31 - 1}
_FLAGS = ("admin", "downstream", "store_svid")
_ATTRIBUTES = ("disable_x509_svid_prefetch", "jwt_svid_include_jti")
_TTLS = ("x509_svid_ttl", "jwt_svid_ttl")
# Names that SPIRE's files, or ours in another place, have for the same.
_ALIASES = {"entry_id": "id", "entry_expiry": "expires_at", "entryExpiry": "expires_at"}
_IGNORED = frozenset({"revision", "revision_number", "created_at", "origin"})
_KNOWN = frozenset(
    {"id", "spiffe_id", "parent_id", "selectors", "hint", "dns_names", "federates_with", "additional_attributes"}
    | {"jwt_claims", "owner", "sponsor"}
    | {*_WHOLE_MAX, *_FLAGS, *_TTLS}
)


@dataclass(frozen=True, slots=True)
class Declared:
    """One declared entry: where it stands, and the fields of an Entry that it names."""

    place: str
    fields: Mapping[str, Any]


def is_ours(name: str) -> bool:
    """Whether a file of a folder holds entries, by its name."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def collect(files: Iterable[tuple[str, Callable[[], str]]]) -> list[Declared]:
    """Read files, each a name and what returns its text or raises InvalidInput. Raise InvalidConfig with all faults."""
    found: list[Declared] = []
    faults: list[str] = []
    for name, text in files:
        try:
            for number, document in enumerate(_documents(text()), 1):
                place = f"{name}: entry {number}"
                try:
                    found.append(Declared(place, _fields(document)))
                except SojournError as error:
                    faults.append(f"{place}: {error.public}")
        except InvalidInput as error:
            faults.append(f"{name}: {error.public}")
    if len(found) > ENTRIES_PER_BATCH:
        faults.append(f"more than {ENTRIES_PER_BATCH} entries")
    if faults:
        raise InvalidConfig(faults)
    return found


def _documents(text: str) -> Iterator[Any]:
    for document in _parsed(text):
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


def _parsed(text: str) -> list[Any]:
    try:
        # Most JSON is YAML too, but not what is indented with tabs.
        return [json.loads(text, object_pairs_hook=_unique)]
    except RecursionError:
        raise InvalidInput("is nested too deeply") from None
    except ValueError:
        pass
    try:
        import yaml
    except ModuleNotFoundError:
        raise CannotStart(f"reading entries from files needs PyYAML: {how_to_install('agent')}") from None
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        found = []
        while loader.check_node():
            node = loader.get_node()
            _check_unique(node)
            found.append(loader.construct_document(node))
        return found
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidInput(f"neither YAML nor JSON: {' '.join(str(error).split())[:200]}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = _twice(name for name, _ in pairs)
    if twice is not None:
        raise InvalidInput(f"{quoted(twice)} is given twice")
    return dict(pairs)


def _check_unique(root: Any) -> None:
    """Raise InvalidInput if a mapping of a composed YAML document has a key twice: the last would win in silence."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node.value, list):
            continue
        seen.add(id(node))
        pairs = [each for each in node.value if isinstance(each, tuple)]
        twice = _twice(key.value for key, _ in pairs if isinstance(key.value, str))
        if twice is not None:
            raise InvalidInput(f"{quoted(twice)} is given twice, in the mapping at line {node.start_mark.line + 1}")
        waiting += [value for _, value in pairs] or node.value


def _twice(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _fields(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise InvalidInput("is not a mapping")
    given: dict[Any, Any] = {}
    for key, value in document.items():
        name = _ALIASES.get(key, key) if isinstance(key, str) else key
        if name in given:
            raise InvalidInput(f"{name} is given twice")
        given[name] = value
    unknown = sorted(str(name) for name in given.keys() - _KNOWN - _IGNORED)
    if unknown:
        raise InvalidInput(f"unknown key {unknown[0][:64]!r}")
    if "spiffe_id" not in given or not given.get("selectors"):
        raise InvalidInput("spiffe_id and selectors are needed")
    made: dict[str, Any] = {"spiffe_id": parse_id(_id_text("spiffe_id", given["spiffe_id"]))}
    if given.get("parent_id"):
        made["parent_id"] = SpiffeId.parse(_id_text("parent_id", given["parent_id"]))
    if not isinstance(given["selectors"], list):
        raise InvalidInput("selectors is not a list")
    made["selectors"] = frozenset(_selector(each) for each in given["selectors"])
    readers: dict[str, Callable[[str, Any], Any]] = {
        "id": _text,
        "hint": _text,
        "owner": _text,
        "sponsor": _text,
        "dns_names": _texts,
        "jwt_claims": lambda _, value: JwtClaims.parse(value),
        "federates_with": lambda name, value: tuple(TrustDomain.parse(each) for each in _texts(name, value)),
        **dict.fromkeys(_TTLS, _seconds),
        **dict.fromkeys(_FLAGS, _flag),
        **dict.fromkeys(_WHOLE_MAX, _whole),
    }
    made.update({name: read(name, given[name]) for name, read in readers.items() if given.get(name) is not None})
    made.update(_attributes(given.get("additional_attributes") or {}))
    return made


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is not of the right type: str is wanted")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name} is not Unicode text") from error
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidInput(f"{name} is not a list of strings")
    return tuple(_text(name, each) for each in value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} is not of the right type: bool is wanted")
    return value


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(f"{name} is not of the right type: int is wanted")
    if abs(value) > _WHOLE_MAX[name]:
        raise InvalidInput(f"{name} is too large a number")
    return value


def _attributes(value: Any) -> dict[str, bool]:
    if not isinstance(value, dict) or value.keys() - set(_ATTRIBUTES):
        raise InvalidInput(f"additional_attributes is not a mapping with {' or '.join(_ATTRIBUTES)}")
    return {name: _flag(name, each) for name, each in value.items()}


def _id_text(name: str, value: Any) -> str:
    if isinstance(value, dict):  # as SPIRE's API has it
        value = f"spiffe://{value.get('trust_domain')}{value.get('path', '')}"
    return _text(name, value)


def _selector(value: Any) -> Selector:
    if isinstance(value, dict):
        return Selector.from_parts(_text("type", value.get("type", "")), _text("value", value.get("value", "")))
    if isinstance(value, str):
        return Selector.parse(_text("selector", value))
    raise InvalidInput("a selector is neither TYPE:VALUE nor a mapping of type and value")


def _seconds(name: str, value: Any) -> int:
    try:
        seconds = parse_duration(value).total_seconds()
    except ValueError as error:
        raise InvalidInput(f"{name} {error}") from error
    if seconds != int(seconds) or not 0 <= seconds < 2**31:
        raise InvalidInput(f"{name} is not a whole number of seconds")
    return int(seconds)
