"""Records as lines, and as leaves of the signed log's tree.

A line is canonical JSON of `at_ms`, `digest`, `event`, `fields` and `seq`. A leaf is the line, or, if that is longer
than LEAF_MAX_BYTES, the line with the length and the SHA-256 of its fields in their place: C2SP's bundles of entries
hold no longer ones.
"""

import hashlib
import re
from typing import Final

from sojourn.audit.journal import Event, Record, digest_of
from sojourn.errors import InvalidInput
from sojourn.jose.canonical_json import canonical

LEAF_MAX_BYTES: Final = 60_000
_LINE: Final = re.compile(
    rb'\{"at_ms":(0|-?[1-9][0-9]{0,18}),"digest":"([0-9a-f]{64})","event":"([!#-\[\]-~]{1,64})","fields":(\{[ -~]*\}),'
    rb'"seq":([1-9][0-9]{0,18})\}'
)


def line_of(record: Record) -> bytes:
    """A record as one line, without a newline."""
    return (
        f'{{"at_ms":{record.at_ms},"digest":"{record.digest}","event":"{record.event}","fields":{record.fields},'
        f'"seq":{record.seq}}}'
    ).encode()


def record_of(unverified_line: bytes) -> Record:
    """The record of a line. Raise InvalidInput."""
    matched = _LINE.fullmatch(unverified_line)
    if matched is None:
        raise InvalidInput("the line is no record")
    at_ms, digest, event, fields, seq = matched.groups()
    return Record(int(seq), int(at_ms), event.decode(), fields.decode(), digest.decode())


def chained(record: Record, before: str) -> bool:
    """Whether a record's digest is the one that follows on the digest before it."""
    return digest_of(before, record.seq, Event(record.at_ms, record.event, record.fields)) == record.digest


def leaf_of(line: bytes) -> bytes:
    """The leaf of a record that has this line."""
    if len(line) <= LEAF_MAX_BYTES:
        return line
    record = record_of(line)
    fields = record.fields.encode()
    cut = canonical({"fields_bytes": len(fields), "fields_sha256": hashlib.sha256(fields).hexdigest()})
    return line_of(Record(record.seq, record.at_ms, record.event, cut, record.digest))
