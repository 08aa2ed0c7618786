"""Making a backup of a data folder, also of one in which an agent runs.

It is read beside the agent, by its owner, and not through it: that needs no agent that answers, takes nothing of one
that does, and no key leaves the folder but sealed. The database comes first, then the keys, so that what is sealed in
the database has its key here. Keys that sign JWT-SVIDs are left out, since a restore replaces them anyway.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sojourn.authority import key_files, keys_at_rest
from sojourn.authority.below import ROOTS_FILE
from sojourn.authority.key_seal import KeySeal, has_secret
from sojourn.authority.root_making import AWAITED
from sojourn.backup import archive
from sojourn.backup.manifest import Manifest, Part
from sojourn.backup.staging import ROOT
from sojourn.errors import CannotStart, InvalidInput, KeysSealed, NotFound, SojournError, StoreFailed, StoreFull
from sojourn.files import atomic
from sojourn.files.data_folder import DATABASE, KEYS, NODE, as_owner
from sojourn.limits import BACKUP_SCRYPT_N
from sojourn.spiffe.x509svid import spiffe_id_of
from sojourn.store import snapshot
from sojourn.store.room import is_no_room
from sojourn.tasks.pairwise import PAIRWISE_KEY
from sojourn.tasks.pseudonyms import PEOPLE_KEY

KEPT_KEYS = (ROOT, "handles.key", PAIRWISE_KEY, PEOPLE_KEY, "sequence", ROOTS_FILE)
LAST = "last-backup"  # in the data folder: the last backup that was made of it
_SCRATCH = ".backup-"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made. `root_in_token`: no key of a root is in it, as those are in a token."""

    path: Path
    manifest: Manifest
    written: archive.Written
    root_in_token: bool = False


def create(folder: Path, to: Path, passphrase: bytes, config_digest: str = "", seal: KeySeal | None = None) -> Made:
    """Make a backup of the data folder at `to`. `seal`: what its keys are sealed with; the backup's passphrase seals
    them from then on. Raise a SojournError, with nothing made.
    """
    archive.check_passphrase(passphrase)
    if not to.parent.is_dir():
        raise InvalidInput(f"there is no folder {str(to.parent)!r} for the backup")
    with as_owner(folder):
        if not (folder / DATABASE).is_file():
            raise NotFound(f"there is no database in {str(folder)!r}: name the agent's --data-dir")
        scratch = _snapshot(folder)
    try:
        with as_owner(folder):
            keys = _keys(folder, seal)
            file = scratch.open("rb")
            database = Part(DATABASE, scratch.stat().st_size, _sha256(scratch))
            state = snapshot.state(scratch, whole=True)
        parts = [Part(f"{KEYS}/{name}", len(each), hashlib.sha256(each).hexdigest()) for name, each in keys.items()]
        manifest = Manifest(
            created_at=int(time.time()),
            release=installed("sojourn"),
            trust_domain=trust_domain_of(keys[ROOT]),
            schema=state.schema,
            readable_by=state.readable_by,
            epoch=state.epoch,
            journal=state.head,
            config_digest=config_digest,
            salt=archive.new_salt(),
            scrypt_n=BACKUP_SCRYPT_N,
            parts=(*parts, database),
        )

        def contents() -> Iterator[bytes]:
            yield from keys.values()
            while piece := file.read(_READ_BYTES):
                yield piece

        with file:
            written = _write(to, manifest, passphrase, contents())
    finally:
        with as_owner(folder):
            _remove(scratch)
    made = Made(to.absolute(), manifest, written, root_in_token=not has_secret(keys[ROOT]))
    _remember(folder, made)
    return made


def _snapshot(folder: Path) -> Path:
    """A copy of the database, beside it. Raise a SojournError."""
    for each in folder.glob(f"{_SCRATCH}*.db"):
        if not _runs(each.stem.removeprefix(_SCRATCH)):  # a crash has left it
            _remove(each)
    scratch = folder / f"{_SCRATCH}{os.getpid()}.db"
    try:
        snapshot.copy(folder / DATABASE, scratch)
    except (OSError, sqlite3.Error) as error:
        _remove(scratch)
        if is_no_room(error):
            raise StoreFull(
                f"the data folder {str(folder)!r} has no room for a copy of its database, which a backup is made of:"
                " make some",
                detail=str(error),
            ) from error
        raise StoreFailed(f"the database in {str(folder)!r} cannot be copied: {error}", detail=str(error)) from error
    except BaseException:
        _remove(scratch)
        raise
    return scratch


def _runs(pid: str) -> bool:
    """Whether another backup that is under way may have this number."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return int(pid) != os.getpid()


def _remove(scratch: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        scratch.with_name(scratch.name + end).unlink(missing_ok=True)


def _keys(folder: Path, seal: KeySeal | None) -> dict[str, bytes]:
    """The keys that are kept in a backup, in clear, by their files' names; those that there are."""
    try:
        found = keys_at_rest.opened(folder / KEYS, KEPT_KEYS, seal)
    except KeysSealed:
        raise
    except CannotStart as error:
        raise InvalidInput(error.public) from error
    if ROOT not in found:
        raise _no_root(folder)
    return found


def _no_root(folder: Path) -> SojournError:
    """Why there is no root key in a data folder."""
    if (folder / NODE).is_dir():
        return NotFound(
            "this agent is a node of a SPIRE server: a backup is of an authority, and a node has no root key;"
            " the server has the registrations, and a node that was lost joins anew"
        )
    if (folder / KEYS / AWAITED).exists():
        return NotFound(
            "the agent waits for its token, which has not made its root yet: make a backup once"
            " `sojourn agent health` says that it is ready"
        )
    return NotFound(f"there is no root key in {str(folder / KEYS)!r}: start the agent once")


def trust_domain_of(root: bytes) -> str:
    """The trust domain of the first root certificate in a file of roots. Raise a SojournError."""
    try:
        certificate = x509.load_pem_x509_certificate(root[root.index(b"-----BEGIN CERTIFICATE") :])
        return spiffe_id_of(certificate).trust_domain.name
    except ValueError as error:
        raise InvalidInput("the root certificate cannot be parsed") from error


def root_keys_of(roots: bytes) -> set[bytes]:
    """The public keys of all root certificates in a file of roots. Raise InvalidInput."""
    try:
        return {
            each.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            for each in x509.load_pem_x509_certificates(roots)
        }
    except ValueError as error:
        raise InvalidInput("the root certificates cannot be parsed") from error


def trust_domain_in(folder: Path) -> str:
    """The trust domain of a data folder. Raise a SojournError."""
    with as_owner(folder):
        try:
            root = key_files.read_sealed(folder / KEYS / ROOT)  # what is public in it lies there in clear
        except CannotStart as error:
            raise InvalidInput(error.public) from error
        if root is None:
            raise _no_root(folder)
        return trust_domain_of(root)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(to: Path, manifest: Manifest, passphrase: bytes, contents: Iterator[bytes]) -> archive.Written:
    try:
        return archive.write(to, manifest, passphrase, contents)
    except OSError as error:
        raise StoreFailed(f"the backup {str(to)!r} cannot be written: {error.strerror}", detail=str(error)) from error


def _remember(folder: Path, made: Made) -> None:
    """Write down beside the database that a backup was made, for the agent's metrics and its journal."""
    said = {
        "at": made.manifest.created_at,
        "file": str(made.path),
        "seq": made.manifest.journal.seq,
        "sha256": made.written.sha256,
        "size": made.written.size,
    }
    try:
        with as_owner(folder):
            atomic.write(folder / LAST, json.dumps(said).encode() + b"\n")
    except OSError as error:
        raise StoreFailed(
            f"the backup is made, and the data folder does not take that it was: {error.strerror}", detail=str(error)
        ) from error


def name_in(folder: Path, trust_domain: str, at: float) -> Path:
    """What a backup in a folder of backups is called."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    return folder / f"sojourn-{trust_domain}-{moment}.backup"


def prune(folder: Path, trust_domain: str, keep: int) -> list[Path]:
    """Remove all but the newest backups of a trust domain in a folder of backups, and what a crash has left of others.
    Return those that are gone.
    """
    found = sorted(folder.glob(f"sojourn-{trust_domain}-????????T??????Z.backup"))
    gone = [*found[:-keep], *folder.glob(f".sojourn-{trust_domain}-*.backup.new")]
    for each in gone:
        each.unlink(missing_ok=True)
    if gone:
        archive.sync_folder(folder)
    return gone
