"""Restoring a data folder from a backup, or its database alone from a copy that was made before a migration.

No agent runs in the folder meanwhile. What is restored is looked at first, whole, and put in place then.
"""

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sojourn.authority import keys_at_rest
from sojourn.authority.key_seal import KeySeal
from sojourn.backup import last_start, staging
from sojourn.backup.archive import Archive
from sojourn.backup.create import KEPT_KEYS, root_keys_of, trust_domain_of
from sojourn.backup.manifest import Manifest, Part
from sojourn.errors import KeysSealed, NotFound, SojournError, StoreFailed, StoreFull
from sojourn.errors.oauth import BackupDamaged, BackupNotForHere, NewerJournal
from sojourn.files.data_folder import COPIES, DATABASE, KEYS, as_owner, claim
from sojourn.limits import RESTORE_EPOCHS_AHEAD
from sojourn.store import snapshot, tables
from sojourn.store.room import is_no_room
from sojourn.store.snapshot import DatabaseState, Head

_SQLITE = b"SQLite format 3\0"
_ALLOWED = frozenset({DATABASE, *(f"{KEYS}/{name}" for name in KEPT_KEYS)})
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `lost`: how many records of which events stood behind it in the journal that was there."""

    note: staging.RestoreNote
    trust_domain: str
    state: DatabaseState
    lost: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Present:
    """What is in the folder by now; None: there is no database there, or none that can be read.

    `loss`: why what the folder knows would be lost; empty if the backup has all of it.
    """

    state: DatabaseState | None = None
    lost: dict[str, int] | None = None
    loss: str = ""


def is_database(file: Path) -> bool:
    """Whether a file seems to be a database, so that none need be asked for a passphrase. Raise NotFound."""
    try:
        with file.open("rb") as opened:
            return opened.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise NotFound(f"the backup {str(file)!r} cannot be read: {error.strerror}") from error


def check(file: Path, passphrase: bytes | None) -> Manifest:
    """Look at all of a backup: whether it is as it was written, and with its passphrase whether it opens.

    Raise a SojournError.
    """
    with _opened(file) as opened:
        archive = Archive(opened)
        archive.check()
        if passphrase is not None:
            for _ in _parts(archive, passphrase):
                pass
        return archive.manifest


def is_restorable(schema: str, readable_by: str) -> bool:
    """Whether this release can go on from a database of a schema, which releases from another one on can read."""
    return schema <= tables.SCHEMA or readable_by <= tables.SCHEMA


def restore(
    file: Path,
    folder: Path,
    passphrase: bytes | None,
    *,
    new_root: bool = False,
    accept_loss: bool = False,
    seal: KeySeal | None = None,
) -> Restored:
    """Put what is in a backup, or a database, into the data folder. Raise a SojournError: nothing was changed then.

    `passphrase`: None for a database, which nothing seals, and which must be one of the folder's own copies; with one
    nothing but a backup is taken. `new_root`: the authority's root is to be made anew. `accept_loss`: also where it
    cannot be shown that the backup goes on from all that the folder knows. `seal`: what keys are sealed with here; it
    must be given where those that are here are sealed.
    """
    opened = _opened(file)
    with opened, as_owner(folder), claim(folder):
        staging.finish(folder)  # of an earlier one that was broken off
        if passphrase is not None and seal is None and keys_at_rest.any_sealed(folder / KEYS):
            raise KeysSealed("the keys here are sealed, and so must be those that come: give --seal-key")
        try:
            staged = staging.begin(folder)
            if passphrase is None:
                _check_own_copy(opened, file, folder)
            made_at = _stage(opened, staged, passphrase, seal)
            return _commit(file, folder, staged, made_at, new_root=new_root, accept_loss=accept_loss)
        except (OSError, sqlite3.Error) as error:
            staging.finish(folder)
            raise _told(folder, error) from error
        except SojournError:
            staging.finish(folder)
            raise


def _check_own_copy(opened: BinaryIO, file: Path, folder: Path) -> None:
    """Raise BackupDamaged unless what is open is a database that an agent of this folder has kept before a migration.

    Nothing seals a database: whoever can write it says what is registered and revoked. So it is looked at what is open,
    and not at its name alone, which may be another file's by now.
    """
    if not _begins_a_database(opened):
        raise BackupDamaged("the file is no database: a backup is opened with its passphrase")
    found = os.fstat(opened.fileno())
    try:
        copies = os.open(folder / COPIES, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            named = os.stat(file.name, dir_fd=copies, follow_symlinks=False)
            is_own = os.path.samestat(named, found) and all(map(_is_ours_alone, (found, os.fstat(copies))))
        finally:
            os.close(copies)
    except OSError:
        is_own = False
    if not is_own or not stat.S_ISREG(found.st_mode):
        raise BackupDamaged(
            f"the file is a bare database, which nothing seals: it is taken from {str(folder / COPIES)!r} alone, where"
            " it must be its owner's, a file and no link, and not to be written by others; restore a backup"
        )


def _begins_a_database(opened: BinaryIO) -> bool:
    """Whether what is open has the first bytes of a database. It is read from its beginning afterwards."""
    found = opened.read(len(_SQLITE))
    opened.seek(0)
    return found == _SQLITE


def _is_ours_alone(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise NotFound(f"the backup {str(file)!r} cannot be read: {error.strerror}") from error


def _told(folder: Path, error: OSError | sqlite3.Error) -> SojournError:
    said = error.strerror if isinstance(error, OSError) else str(error)
    if is_no_room(error):
        return StoreFull(f"the data folder {str(folder)!r} has no room for what is restored: make some")
    return StoreFailed(f"the data folder {str(folder)!r} cannot be written: {said}", detail=str(error))


def _stage(opened: BinaryIO, staged: Path, passphrase: bytes | None, seal: KeySeal | None) -> int:
    """Write what is in a backup into the staging folder, and return when it was made. Raise a SojournError, OSError."""
    if passphrase is None:
        _write(staged / DATABASE, iter(lambda: opened.read(_READ_BYTES), b""))
        return int(os.fstat(opened.fileno()).st_mtime)
    if _begins_a_database(opened):
        raise BackupDamaged(
            "the file is a bare database, and no backup that a passphrase seals: somebody may have put it there; take"
            " another one"
        )
    archive = Archive(opened)
    archive.check()
    for part, contents in _parts(archive, passphrase):
        name = Path(part.name).name
        if seal is None or not keys_at_rest.is_secret(name):
            _write(staged / part.name, contents)
        else:
            _write(staged / part.name, iter([seal.seal(name, b"".join(contents))]))
    return archive.manifest.created_at


def _parts(archive: Archive, passphrase: bytes) -> Iterator[tuple[Part, Iterator[bytes]]]:
    """Each part of a backup with its contents, which are read, and found to be what was written, before the next."""
    waiting, contents = bytearray(), archive.contents(passphrase)
    for part in archive.manifest.parts:
        if part.name not in _ALLOWED:
            raise BackupDamaged(f"the backup has a part that none has: {part.name[:100]!r}")
        reading = _part(part, waiting, contents)
        yield part, reading
        for _ in reading:  # what nobody has read
            pass
    if waiting or any(contents):
        raise BackupDamaged("the backup has more in it than it says")


def _part(part: Part, waiting: bytearray, contents: Iterator[bytes]) -> Iterator[bytes]:
    digest, left = hashlib.sha256(), part.size
    while left:
        if not waiting:
            waiting += next(contents, b"")
        if not waiting:
            raise BackupDamaged("the backup has less in it than it says")
        piece = bytes(waiting[:left])
        del waiting[: len(piece)]
        digest.update(piece)
        left -= len(piece)
        yield piece
    if digest.hexdigest() != part.sha256:
        raise BackupDamaged(f"the backup's {part.name} is not what was written")


def _write(path: Path, contents: Iterator[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        for piece in contents:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _commit(file: Path, folder: Path, staged: Path, made_at: int, *, new_root: bool, accept_loss: bool) -> Restored:
    state = _usable(staged / DATABASE)
    trust_domain = _trust_domain(folder, staged)
    present = _present(folder, staged, state.head)
    if present.loss and not accept_loss:
        raise NewerJournal(
            f"{present.loss}: what was registered, revoked and switched off there would be lost; give --accept-loss if"
            " that is to be"
        )
    there = present.state
    note = staging.RestoreNote(
        file=str(file.absolute()),
        made_at=state.head.at_ms // 1000 or made_at,
        restored_at=int(time.time()),
        epoch_at_least=max(state.epoch, there.epoch if there else 0, last_start.as_far_as_known(folder))
        + RESTORE_EPOCHS_AHEAD,
        lost_until=there.head.at_ms // 1000 if there else 0,
        lost_records=max(0, there.head.seq - state.head.seq) if there else -1,
        new_root=new_root,
    )
    staging.commit(folder, note)
    staging.finish(folder)
    return Restored(note, trust_domain, state, present.lost or {})


def _usable(database: Path) -> DatabaseState:
    """Raise a SojournError for a database that is damaged, or of a release that this one cannot go on from."""
    state = snapshot.state(database, whole=True)
    if not (state.schema.isdecimal() and state.readable_by.isdecimal()):
        raise BackupDamaged("the backup's database does not say of which schema it is")
    if not _has(database, state.head):
        raise BackupDamaged("the backup's journal does not end where its database says: no agent has left it so")
    if not is_restorable(state.schema, state.readable_by):
        raise BackupNotForHere(
            f"the backup is of a newer Sojourn (schema {state.schema}, this one knows {tables.SCHEMA}): install"
            " that one"
        )
    return state


def _trust_domain(folder: Path, staged: Path) -> str:
    """The trust domain of what is restored. Raise BackupNotForHere if the folder is another one's."""
    there, new = folder / KEYS / staging.ROOT, staged / KEYS / staging.ROOT
    own = trust_domain_of(there.read_bytes()) if there.exists() else ""
    if not new.exists():
        if not own:
            raise BackupNotForHere("a database alone is restored where its keys are, and there are none: give a backup")
        return own
    found = trust_domain_of(new.read_bytes())
    if own and own != found:
        raise BackupNotForHere(
            f"the backup is of trust domain {found!r}, and the data folder of {own!r}: use another --data-dir"
        )
    return found


def _present(folder: Path, staged: Path, head: Head) -> _Present:
    path = folder / DATABASE
    strange = "" if _shares_a_root(folder, staged) else "no key of the backup's roots is one of the data folder's"
    if not os.path.lexists(path):
        return _Present(loss=strange)
    try:
        state = snapshot.state(path)
        lost = snapshot.events_behind(path, head.seq)
    except SojournError:
        return _Present(loss=strange or "the database in the data folder cannot be read")
    if state.head.seq > head.seq:
        said = ", ".join(f"{count} {event}" for event, count in sorted(lost.items()))
        return _Present(
            state, lost, f"the journal in the data folder has {state.head.seq - head.seq} records that the backup lacks"
            f" ({said})",
        )  # fmt: skip
    if not _has(staged / DATABASE, state.head):
        return _Present(state, lost, "the backup's journal does not have the last record of the data folder's")
    return _Present(state, lost, strange)


def _has(database: Path, head: Head) -> bool:
    """Whether a journal has a record that is, or was, the last of one. That of a journal without any is everybody's.

    One that is gone cannot be compared, and counts as another.
    """
    return head == Head() or snapshot.record_digest(database, head.seq) == head.digest


def _shares_a_root(folder: Path, staged: Path) -> bool:
    there, new = folder / KEYS / staging.ROOT, staged / KEYS / staging.ROOT
    if not there.exists() or not new.exists():
        return True
    return not root_keys_of(there.read_bytes()).isdisjoint(root_keys_of(new.read_bytes()))
