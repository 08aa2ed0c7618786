"""The data files: which rows a framework has, and by which query each is answered."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sojourn.errors import Bug, InvalidInput
from sojourn.jose.canonical_json import exactly
from sojourn.oversight.controls.queries import QUERIES

_FOLDER: Final = Path(__file__).parent
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FRAMEWORK: Final = frozenset({"title", "version", "source", "titles", "verified", "why_not_verified", "rows"})
_ROW: Final = frozenset({"id", "title", "claim", "query", "not_ours", "verified", "why_not_verified"})


@dataclass(frozen=True, slots=True)
class Row:
    """One claim about the agent, of one row of a framework. A row that is not ours says why in `not_ours`, and has no
    claim and no query. `why_not_verified`: why ID and title are not compared with what is published; empty: they are.
    """

    id: str
    title: str
    claim: str
    query: str
    not_ours: str
    why_not_verified: str


@dataclass(frozen=True, slots=True)
class Framework:
    """One data file. `name`: as the command has it. `titles`: whose titles its rows bear, where rows have none."""

    name: str
    title: str
    version: str
    source: str
    titles: str
    rows: tuple[Row, ...]


def names() -> list[str]:
    """The names of all that are here."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load(name: str) -> Framework:
    """Raise InvalidInput if there is none of this name."""
    known = names()
    if name not in known:
        raise InvalidInput(f"there is no framework {name[:64]!r}; there are: {', '.join(known)}")
    return parse(name, (_FOLDER / f"{name}.toml").read_text("utf-8"))


def parse(name: str, text: str) -> Framework:
    """Read a data file. Raise Bug, as it is ours, naming what is wrong in it."""
    try:
        document = tomllib.loads(text)
        _check_keys(document, _FRAMEWORK)
        why = _unverified(document, "")
        rows = tuple(_row(each, why) for each in exactly(list, document["rows"]))
        title, version, source = (exactly(str, document[key]) for key in ("title", "version", "source"))
        found = Framework(name, title, version, source, exactly(str, document.get("titles", "")), rows)
    except (KeyError, InvalidInput, tomllib.TOMLDecodeError) as error:
        raise Bug(f"the framework {name!r} cannot be read: {error}") from error
    if not _NAME.fullmatch(name) or not found.source.startswith("https://") or not rows:
        raise Bug(f"the framework {name!r} has a wrong name, no source, or no rows")
    several = [(row.id, row.query) for row in rows]
    if len(set(several)) < len(several):
        raise Bug(f"the framework {name!r} asks a query twice in one row")
    return found


def _row(said: Mapping[str, Any], why: str) -> Row:
    _check_keys(said, _ROW)
    texts = {key: exactly(str, said.get(key, "")) for key in ("id", "title", "claim", "query", "not_ours")}
    row = Row(**texts, why_not_verified=_unverified(said, why))
    ours = bool(row.claim and row.query) and not row.not_ours
    if not row.id or not row.title or (not ours and (not row.not_ours or row.claim or row.query)):
        raise InvalidInput(f"row {row.id!r} needs an ID, a title, and either a claim with a query, or not_ours")
    if ours and row.query not in QUERIES:
        raise InvalidInput(f"row {row.id!r} names the query {row.query!r}, which there is not")
    return row


def _unverified(said: Mapping[str, Any], default: str) -> str:
    if exactly(bool, said.get("verified", not default)):
        return ""
    why = exactly(str, said.get("why_not_verified", default))
    if not why:
        raise InvalidInput("what is not verified says why_not_verified")
    return why


def _check_keys(said: Mapping[str, Any], known: frozenset[str]) -> None:
    if unknown := sorted(said.keys() - known):
        raise InvalidInput(f"unknown keys: {', '.join(unknown)}")
