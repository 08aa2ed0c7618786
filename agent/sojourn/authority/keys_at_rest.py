"""All keys of a folder sealed, or all in clear, as the configuration has it by now: at a start, before any is used.

Once they are sealed a key in clear is nobody's but an intruder's: it is not taken. A sealed file of its own, MARKER,
says so: it has the SHA-256 of each file that may lie there in clear still, since sealing it has begun, by its name.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from sojourn.authority import key_files
from sojourn.authority.key_seal import KeySeal, has_secret, is_sealed
from sojourn.errors import CannotStart, KeysSealed
from sojourn.files import atomic

# All that the agent keeps in its folders of keys, but for the bundle's number; `seal.key` is a node's. What an operator
# has put there stays as it is.
SECRETS: Final = frozenset(
    {
        "root.pem",
        "intermediates.pem",
        "jwt.pem",
        "jwt-rs256.pem",
        "wit.pem",
        "handles.key",
        "pairwise.key",
        "people.key",
    }
    | {"audit.key", "audit.key.new", "seal.key"}
)

MARKER: Final = "all-sealed"  # in the folder


def settle(folder: Path, seal: KeySeal | None, *, sealed: bool) -> list[str]:
    """Seal what lies in clear, or with `sealed` False the other way round; return the names of those files.

    `seal`: by what they are, or were, sealed; None: by nothing, and then none may be. Raise KeysSealed or CannotStart
    before anything is changed if one cannot be opened, or lies in clear where all were sealed before; CannotStart if
    one cannot be written: the next start goes on.
    """
    if not folder.is_dir():
        return []
    found = [(path, _as_it_lies(path, strictly=seal is not None)) for path in _secrets(folder)]
    wrong = {}
    for path, content in found:
        if content is None or not has_secret(content):
            continue
        clear = key_files.in_clear(path, content, seal) if is_sealed(content) else content
        if is_sealed(content) is not sealed:
            wrong[path] = clear
    begun = None
    if sealed and seal is not None:
        begun = _begun(folder, seal)
        _check_clear(wrong, begun, some_sealed=any(is_sealed(content or b"") for _, content in found))
    at = folder / MARKER
    try:
        if wrong and sealed and seal is not None:
            _mark(at, seal, {path.name: hashlib.sha256(clear).hexdigest() for path, clear in wrong.items()})
        for at, clear in wrong.items():
            key_files.write(at, clear, seal if sealed else None)
        at = folder / MARKER
        if not sealed:
            at.unlink(missing_ok=True)
        elif seal is not None and (wrong or begun != {}):
            _mark(at, seal, {})
    except OSError as error:
        raise CannotStart(f"key file {str(at)!r} cannot be written: {error.strerror}") from error
    return [path.name for path in wrong]


def _as_it_lies(path: Path, *, strictly: bool) -> bytes | None:
    """A file's content; None: there is no such file, or it is not to be used, which whoever uses it says. `strictly`:
    raise CannotStart for that instead.
    """
    try:
        return key_files.read_sealed(path)
    except CannotStart:
        if strictly:
            raise
        return None


def _mark(marker: Path, seal: KeySeal, digests: Mapping[str, str]) -> None:
    """Say which files may lie in clear still. Raise OSError."""
    atomic.write(marker, seal.seal(_marked_as(marker), json.dumps(digests).encode()))


def _marked_as(marker: Path) -> str:
    """What the marker is sealed as, so that it is good in no other folder's place."""
    return f"{marker.parent.name}/{marker.name}"


def _begun(folder: Path, seal: KeySeal) -> dict[str, str] | None:
    """What the folder's marker says; None: there is none. Raise KeysSealed, CannotStart."""
    marker = folder / MARKER
    atomic.scratch_of(marker).unlink(missing_ok=True)
    content = key_files.read_sealed(marker)
    if content is None:
        return None
    found: dict[str, str] = json.loads(seal.open(_marked_as(marker), content))
    return found


def _check_clear(wrong: Mapping[Path, bytes], begun: Mapping[str, str] | None, *, some_sealed: bool) -> None:
    """Raise CannotStart for a key in clear where all keys were sealed, but for what sealing has not come to yet."""
    if begun is None and not some_sealed:
        return  # they are sealed for the first time
    for path, clear in wrong.items():
        if begun is None or begun.get(path.name) != hashlib.sha256(clear).hexdigest():
            raise CannotStart(
                f"key file {str(path)!r} lies in clear, and the keys here were sealed: somebody may have put it there;"
                ' restore a backup, or, if it is yours, start once with keys.manager = "file" and the same'
                " keys.seal_key, and then with sealed again"
            )


def opened(folder: Path, names: tuple[str, ...], seal: KeySeal | None) -> dict[str, bytes]:
    """The content in clear of those of these files that are there. Raise KeysSealed, CannotStart."""
    found = {}
    for name in names:
        content = key_files.read_sealed(folder / name)
        if content is not None and is_sealed(content):
            if seal is None:
                raise KeysSealed(f"key file {name!r} is sealed: give the key that it was sealed with, by --seal-key")
            content = seal.open(name, content)
        if content is not None:
            found[name] = content
    return found


def is_secret(name: str) -> bool:
    """Whether a file of the folder, by its name, is one with a key."""
    return name in SECRETS


def any_sealed(folder: Path) -> bool:
    """Whether keys of a folder are sealed. Raise CannotStart."""
    if not folder.is_dir():
        return False
    return (folder / MARKER).exists() or any(is_sealed(key_files.read_sealed(path) or b"") for path in _secrets(folder))


def _secrets(folder: Path) -> Iterator[Path]:
    """The files of keys. What a crash has left of one that was being written goes."""
    for path in sorted(folder.iterdir()):
        if is_secret(path.name):
            atomic.scratch_of(path).unlink(missing_ok=True)
            yield path
