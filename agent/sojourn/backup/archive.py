r"""The file of a backup.

    sojourn-backup 1\n
    MANIFEST\n                         one line of JSON, in clear (manifest.py)
    LENGTH CHUNK, LENGTH CHUNK, …     the contents of all parts in a row, each chunk sealed; LENGTH is four octets
    0 0 0 0
    SHA-256                           32 octets, over all before

Chunks are sealed by AES-256-GCM under a key that scrypt makes of the passphrase and a salt of this backup alone. A
chunk's nonce is its number and whether it is the last one, and each is bound to the manifest: none can be left out,
moved, or put into another backup. The digest at the end needs no passphrase, and tells damage from a wrong passphrase.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sojourn.backup.manifest import Manifest
from sojourn.errors import InvalidInput
from sojourn.errors.oauth import BackupDamaged, WrongPassphrase
from sojourn.files.atomic import scratch_of
from sojourn.limits import (
    BACKUP_CHUNK_BYTES,
    BACKUP_MANIFEST_BYTES,
    BACKUP_SCRYPT_N,
    BACKUP_SCRYPT_N_MAX,
    PASSPHRASE_LEAST,
)

MAGIC = b"sojourn-backup 1\n"
_SCRYPT_R, _SCRYPT_P = 8, 1
_LENGTH, _DIGEST, _TAG, _NONCE = 4, 32, 16, 12


def new_salt() -> str:
    return os.urandom(16).hex()


def check_passphrase(passphrase: bytes) -> None:
    """Raise InvalidInput for one that could be guessed."""
    if len(passphrase) < PASSPHRASE_LEAST:
        raise InvalidInput(f"a backup's passphrase has {PASSPHRASE_LEAST} characters at the least")


@dataclass(frozen=True, slots=True)
class Written:
    """`sha256` is what stands at the file's end, hex."""

    size: int
    sha256: str


def write(path: Path, manifest: Manifest, passphrase: bytes, contents: Iterable[bytes]) -> Written:
    """Make a backup at `path`, 0600, whole or not at all, in the place of a file that may be there.

    `contents`: of the manifest's parts, in a row, in pieces. Raise OSError.
    """
    scratch = scratch_of(path)
    scratch.unlink(missing_ok=True)  # a crash may have left it
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(scratch, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            written = _write(file, manifest, passphrase, contents)
            file.flush()
            os.fsync(file.fileno())
        os.rename(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return written


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk. Raise OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(file: BinaryIO, manifest: Manifest, passphrase: bytes, contents: Iterable[bytes]) -> Written:
    digest, size = hashlib.sha256(), 0

    def put(octets: bytes) -> None:
        nonlocal size
        digest.update(octets)
        size += file.write(octets)

    put(MAGIC)
    put(manifest.line() + b"\n")
    cipher, bound = _cipher(manifest, passphrase), hashlib.sha256(manifest.line()).digest()
    for number, (chunk, last) in enumerate(_chunks(contents)):
        sealed = cipher.encrypt(_nonce(number, last=last), chunk, bound)
        put(len(sealed).to_bytes(_LENGTH) + sealed)
    put(bytes(_LENGTH))
    file.write(digest.digest())
    return Written(size + _DIGEST, digest.hexdigest())


def _chunks(contents: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The contents in chunks of one size, and whether each is the last."""
    waiting = bytearray()
    for piece in contents:
        waiting += piece
        while len(waiting) > BACKUP_CHUNK_BYTES:
            yield bytes(waiting[:BACKUP_CHUNK_BYTES]), False
            del waiting[:BACKUP_CHUNK_BYTES]
    yield bytes(waiting), True


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(_NONCE - 1) + bytes([last])


def _cipher(manifest: Manifest, passphrase: bytes) -> AESGCM:
    cost = manifest.scrypt_n
    salt = bytes.fromhex(manifest.salt)
    room = 2 * 128 * cost * _SCRYPT_R + (1 << 20)
    return AESGCM(hashlib.scrypt(passphrase, salt=salt, n=cost, r=_SCRYPT_R, p=_SCRYPT_P, maxmem=room, dklen=32))


def _check_cost(cost: int) -> None:
    """Raise BackupDamaged for one that whoever opens the backup must not pay, or that is less than was meant."""
    if not BACKUP_SCRYPT_N <= cost <= BACKUP_SCRYPT_N_MAX or cost & (cost - 1):
        raise BackupDamaged("the backup's passphrase is stretched as no release does it")


class Archive:
    """A backup that is read. Raise BackupDamaged for what is none, or not a whole one."""

    def __init__(self, file: BinaryIO) -> None:
        """`file`: at its beginning, and one in which can be gone back."""
        self._file = file
        if file.read(len(MAGIC)) != MAGIC:
            raise BackupDamaged("the file is no backup of Sojourn's, or its beginning is gone")
        line = file.readline(BACKUP_MANIFEST_BYTES)
        if not line.endswith(b"\n"):
            raise BackupDamaged("the backup does not say what it is of: it is cut short or damaged")
        self._line = line[:-1]
        self.manifest = Manifest.parse(self._line)
        _check_cost(self.manifest.scrypt_n)
        self._begin = file.tell()
        self.sha256 = ""

    def check(self) -> None:
        """Look at every octet: whether they are those that were written. No passphrase is needed."""
        digest = hashlib.sha256(MAGIC + self._line + b"\n")
        for sealed in self._sealed():
            digest.update(len(sealed).to_bytes(_LENGTH) + sealed)
        digest.update(bytes(_LENGTH))
        said = self._file.read(_DIGEST + 1)
        if said != digest.digest():
            raise BackupDamaged("the backup is not what was written: it is cut short, added to, or damaged")
        self.sha256 = said.hex()

    def contents(self, passphrase: bytes) -> Iterator[bytes]:
        """The clear contents, in pieces. Raise WrongPassphrase, which after `check` is what it says."""
        cipher, bound = _cipher(self.manifest, passphrase), hashlib.sha256(self._line).digest()
        ahead: bytes | None = None
        number = 0
        for sealed in self._sealed():
            if ahead is not None:
                yield _open(cipher, _nonce(number, last=False), ahead, bound)
                number += 1
            ahead = sealed
        yield _open(cipher, _nonce(number, last=True), ahead or b"", bound)

    def _sealed(self) -> Iterator[bytes]:
        self._file.seek(self._begin)
        while length := int.from_bytes(self._exactly(_LENGTH)):
            if not _TAG <= length <= BACKUP_CHUNK_BYTES + _TAG:
                raise BackupDamaged("the backup is damaged: a part of it has no length that any has")
            yield self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        found = self._file.read(length)
        if len(found) != length:
            raise BackupDamaged("the backup is cut short: its end is not there")
        return found


def _open(cipher: AESGCM, nonce: bytes, sealed: bytes, bound: bytes) -> bytes:
    try:
        return cipher.decrypt(nonce, sealed, bound)
    except InvalidTag as error:
        raise WrongPassphrase(
            "the passphrase is another one than the backup was made with, or somebody has changed the backup"
        ) from error
