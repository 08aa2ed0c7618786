"""The sets of task types in an exported folder: whether each is the one whose digest records name.

`policy-sets/DIGEST` is JSON: the files of a set by their names, each as the SHA-256 of its text, which lies once in
`policy-texts/`. A set's digest is SHA-256 over a line for each of its types in the order of their names, `NAME DIGEST`;
a type's is over its TOML file, a zero byte and its Cedar file. Other files are test cases, which decide nothing.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Final

from sojourn.errors import InvalidInput
from sojourn.jose.canonical_json import canonical, exactly, texts

SETS, TEXTS = "policy-sets", "policy-texts"
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")
_TOML, _CEDAR = ".toml", ".cedar"


def path_of(digest: str) -> str:
    """Where a set lies in the folder."""
    return f"{SETS}/{digest}"


def text_path_of(digest: str) -> str:
    """Where a text lies."""
    return f"{TEXTS}/{digest}"


def set_of(path: str) -> str | None:
    """The digest of the set that a file of the folder is said to be; None: it is none."""
    folder, _, digest = path.partition("/")
    return digest if folder == SETS and _DIGEST.fullmatch(digest) else None


def written(digests: Mapping[str, str]) -> bytes:
    """A set, as it lies in the folder."""
    return canonical(dict(digests)).encode()


def parse(octets: bytes) -> dict[str, str]:
    """The digests of a set's texts by the names of its files. Raise InvalidInput."""
    try:
        found = texts(exactly(dict, json.loads(octets)))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the set of task types cannot be parsed") from error
    for name, digest in found.items():
        if _NAME.fullmatch(name) is None or _DIGEST.fullmatch(digest) is None:
            raise InvalidInput("the set of task types names a file that none has")
    return found


def digest_of_set(digests: Mapping[str, str], text: Callable[[str], bytes]) -> str:
    """The digest of a set, lower-case hex. `text` returns a text by its digest, and may raise."""
    names = sorted(name.removesuffix(_CEDAR) for name in digests if name.endswith(_CEDAR))
    whole = hashlib.sha256()
    for name in names:
        if f"{name}{_TOML}" in digests:
            kind = text(digests[f"{name}{_TOML}"]) + b"\0" + text(digests[f"{name}{_CEDAR}"])
            whole.update(f"{name} {hashlib.sha256(kind).hexdigest()}\n".encode())
    return whole.hexdigest()
