"""The task types of an export's sets, as their TOML files say it."""

import hashlib
import tomllib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from sojourn.errors import InvalidInput
from sojourn.evidence import policy_sets
from sojourn.oversight.controls.live_tasks import Fields, is_number

_TOML, _CASES, _CEDAR = ".toml", ".test.toml", ".cedar"
_NUMBERS: Final = ("max_depth", "max_children")
_KEPT: Final = 64  # sets; a year has some tens


class ExportedTypes:
    """Reads them when they are asked for, and believes no set that is not what its digest says."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        """`read` returns a file of the export by its path. It raises OSError or KeyError if there is none."""
        self._read = read
        self._kept = lru_cache(_KEPT)(self._set)

    def of(self, policy_set: str) -> Mapping[str, Fields] | None:
        """What the TOML file of each type of a set says, by the type's name. None: the set is not there, or wrong."""
        found = self._kept(policy_set)
        return None if found is None else found[0]

    def cases(self, policy_set: str) -> int:
        """How many of its types have test cases."""
        found = self._kept(policy_set)
        return 0 if found is None else found[1]

    def _set(self, policy_set: str) -> tuple[Mapping[str, dict[str, Any]], int] | None:
        if policy_sets.set_of(policy_sets.path_of(policy_set)) is None:
            return None
        try:
            digests = policy_sets.parse(self._read(policy_sets.path_of(policy_set)))
            if policy_sets.digest_of_set(digests, self._text) != policy_set:
                return None
            read = {name: tomllib.loads(self._text(digests[f"{name}{_TOML}"]).decode()) for name in _names(digests)}
        except (OSError, LookupError, ValueError, RecursionError, InvalidInput):
            return None
        types = {name: kind for name, kind in read.items() if _is_type(kind)}
        return types, sum(f"{name}{_CASES}" in digests for name in types)

    def _text(self, digest: str) -> bytes:
        """Raise InvalidInput if it is another than its digest says."""
        found = self._read(policy_sets.text_path_of(digest))
        if hashlib.sha256(found).hexdigest() != digest:
            raise InvalidInput("a text of the set is another")
        return found


def _is_type(kind: Fields) -> bool:
    """Whether what queries read of a type is of the shape that the agent takes."""
    tables = {name: kind.get(name, {}) for name in ("approval", "delegation", "consequence_of")}
    if not all(isinstance(each, dict) for each in tables.values()):
        return False
    texts = [kind.get("owner", ""), kind.get("consequence", ""), tables["approval"].get("when", "")]
    texts += [*tables["consequence_of"].values(), *_listed(tables["approval"].get("approvers", []))]
    numbers = [tables["approval"].get("count", 1), *(tables["delegation"].get(name, 1) for name in _NUMBERS)]
    good = all(isinstance(each, str) for each in texts) and all(map(is_number, numbers))
    return good and isinstance(kind.get("break_glass", False), bool)


def _listed(value: object) -> list[object]:
    """The members of a list; what is none is a wrong member."""
    return value if isinstance(value, list) else [None]


def _names(digests: Mapping[str, str]) -> list[str]:
    names = sorted(name.removesuffix(_CEDAR) for name in digests if name.endswith(_CEDAR))
    return [name for name in names if f"{name}{_TOML}" in digests]
