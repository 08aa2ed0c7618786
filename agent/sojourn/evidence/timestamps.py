"""Time stamps of checkpoints (RFC 3161): asked for, and verified by root certificates, also years later and offline.

What is stamped is the SHA-256 of a checkpoint's whole note. An answer is kept as it came, so that others' programs
verify it too (`openssl ts -verify -data NOTE -in ANSWER -CAfile ROOTS`). Needs the extra `timestamps`.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from sojourn.errors import InvalidInput, NotFound
from sojourn.evidence.faults import Faults
from sojourn.evidence.manifest import STAMP, ExportedLog
from sojourn.evidence.tree import ExportedTree
from sojourn.extras import how_to_install
from sojourn.operating_limits import STAMP_APART_SECONDS
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.notes import Note

QUERY, REPLY = "application/timestamp-query", "application/timestamp-reply"  # RFC 3161, 3.4
_SHA256: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")
_ROOTS_MAX: Final = 1 << 20
_OURS: Final = (KeyboardInterrupt, SystemExit, MemoryError)


def check_installed() -> None:
    """Raise InvalidInput, with what to do, if what reads time stamps is not installed."""
    try:
        import rfc3161_client
    except ImportError as error:
        raise InvalidInput(f"what reads time stamps is not installed: {how_to_install('timestamps')}") from error
    del rfc3161_client


def roots_of(path: Path) -> list[x509.Certificate]:
    """The root certificates in a PEM file. Raise NotFound, InvalidInput."""
    try:
        with path.open("rb") as file:
            return x509.load_pem_x509_certificates(file.read(_ROOTS_MAX))
    except OSError as error:
        raise NotFound(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{str(path)!r} is not a PEM file of certificates") from error


def query_of(note: bytes) -> tuple[bytes, int]:
    """What an authority is asked to stamp this note, DER, and the nonce in it. It is to send its certificate along."""
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    request = TimestampRequestBuilder().data(note).hash_algorithm(HashAlgorithm.SHA256).cert_request(cert_request=True)
    made = request.nonce(nonce=True).build()
    assert made.nonce is not None
    return made.as_bytes(), made.nonce


def stamped_at(
    unverified_reply: bytes, note: bytes, roots: Sequence[x509.Certificate], nonce: int | None = None
) -> int:
    """When an authority that one of the roots vouches for had this note before it, seconds since the epoch.

    Its certificate has to be good at that time, and for time stamping alone (RFC 3161, 2.3); the signature has to be
    strong, and to name that certificate (RFC 5816). Raise InvalidInput.
    """
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    from sojourn.evidence.stamp_signers import check_signer

    try:
        reply = decode_timestamp_response(unverified_reply)
        if reply.status != 0:
            raise InvalidInput(f"the authority has not granted it (status {reply.status})")
        if reply.tst_info.message_imprint.hash_algorithm != _SHA256:
            raise InvalidInput("the stamp is of no SHA-256")
        builder = VerifierBuilder(roots=list(roots), nonce=nonce)
        builder.build().verify(reply, hashlib.sha256(note).digest())
        [signer] = reply.signed_data.signer_infos
        check_signer(reply.time_stamp_token(), reply.signed_data.certificates, signer.issuer, signer.serial_number)
        return int(reply.tst_info.gen_time.timestamp())
    except InvalidInput:
        raise
    except VerificationError as error:
        raise InvalidInput(f"the stamp is not good: {_plain(error)}") from error
    except BaseException as error:  # what it is written in may also panic, by an exception that is no Exception
        if isinstance(error, _OURS):
            raise
        raise InvalidInput("the answer is no time stamp") from error


def _plain(error: Exception) -> str:
    return str(error).partition("\n")[0][:200].rstrip(".")


@dataclass(frozen=True, slots=True)
class Stamped:
    """That an authority has seen so many leaves of a log at a time, seconds since the epoch. `until_seq`: the last."""

    origin: str
    size: int
    until_seq: int
    at: int


class StampCheck:
    """Looks at the stamps of logs in a folder, by these roots."""

    def __init__(self, roots: Sequence[x509.Certificate], faults: Faults) -> None:
        self._roots = roots
        self._faults = faults
        self.found: list[Stamped] = []

    def log(self, log: ExportedLog, tree: ExportedTree, pairs: Iterable[tuple[str, bytes, bytes]]) -> None:
        """`pairs`: name, note and answer of each stamp."""
        if not self._roots:
            return
        none = True
        for name, note, reply in pairs:
            found = self._good(name, note, reply, log, tree)
            if found is not None and not found.size:
                continue  # of no leaves it says nothing
            none = False
            if found is not None:
                self.found.append(found)
        if none:
            self._faults.add("timestamp_missing", f"no checkpoint of the log {log.origin!r} is time-stamped")

    def _good(self, name: str, note: bytes, reply: bytes, log: ExportedLog, tree: ExportedTree) -> Stamped | None:
        try:
            head = Checkpoint.parse(Note.parse(note).text)
            at = stamped_at(reply, note, self._roots)
            if at > time.time() + STAMP_APART_SECONDS:
                raise InvalidInput(f"it is of a time to come: {datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}")
            if head.origin != log.origin:
                raise InvalidInput("it is of another log")
            if head.size > log.size:
                raise InvalidInput(f"it is of {head.size} records, and the log has {log.size}")
            if (begins := tree.begins_with(head)) is None:
                self._faults.add("timestamp_unproved", f"what {name!r} is of was pruned")
                return None
            if not begins:
                raise InvalidInput("the log does not begin with what was stamped")
        except InvalidInput as error:
            self._faults.add("timestamp_wrong", f"{name!r}: {error.public}")
            return None
        return Stamped(log.origin, head.size, log.first_seq + head.size - 1, at)


def names_of(log: ExportedLog, files: Mapping[str, str]) -> list[str]:
    """The stamps of a log, the oldest first: each has a note and an answer, `NAME.note` and `NAME.tsr`."""
    begin = f"{log.folder}/{STAMP}"
    found = {name.rpartition(".")[0] for name in files if name.startswith(begin)}
    return sorted(found)
