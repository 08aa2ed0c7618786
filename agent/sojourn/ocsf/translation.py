"""Records of the journal, and what sinks are sent beside them, as lines of OCSF.

A line is one event in JSON, in ASCII. `unmapped.sojourn` is the record's own line, byte for byte, so that whoever has
the event checks the record (`within.py`). The same record gives the same bytes: no clock and no release is in them.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sojourn.audit.events import EVENTS
from sojourn.audit.journal import Record
from sojourn.audit.leaves import line_of
from sojourn.jose.canonical_json import canonical
from sojourn.ocsf import parts
from sojourn.ocsf.events import NOTICES, ROWS, UNKNOWN
from sojourn.ocsf.parts import Fields, Value
from sojourn.ocsf.schema import (
    ALLOWED,
    API,
    AUTHENTICATION,
    CONTROL,
    DENIED,
    DETECTION,
    DISPOSITIONS,
    ENTITY,
    FAILURE,
    HOST,
    LIFECYCLE,
    LOG,
    OTHER,
    SESSION,
    VERSION,
    Row,
)
from sojourn.operating_limits import SINK_OCSF_BATCH_BYTES
from sojourn.spiffe.ids import SpiffeId

PRODUCT: Final = {"name": "Sojourn", "vendor_name": "Sojourn"}
_LOG: Final = {"log_name": "audit", "log_provider": "Sojourn", "log_type_id": 2}  # of an application
_NOT_RECORDED: Final = "Something that this release of Sojourn has no name for."
# Members stand as they are put together, which is the same each time: to sort them takes a fifth of a record's time.
_encoded: Final[Callable[[object], str]] = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_DECISIONS: Final = {ALLOWED: "allow", DENIED: "deny"}


@dataclass(frozen=True, slots=True)
class _Alike:
    """What all events of one kind say alike, as JSON without brackets: members, and those of `metadata`."""

    members: str
    metadata: str


class OcsfLines:
    """Makes lines of the records of one agent."""

    batch_bytes = SINK_OCSF_BATCH_BYTES

    def __init__(self, node: SpiffeId) -> None:
        """`node`: the agent's ID."""
        self._node = str(node)
        self._place = {"name": node.path.rpartition("/")[2], "uid": self._node}
        self._agent = {"app_name": "Sojourn", "app_uid": self._node}
        self._alike: dict[tuple[str, bool], _Alike] = {}

    def record(self, record: Record) -> bytes:
        """The line of a record, without a newline."""
        fields = _fields(record.fields)
        if fields is None:  # the record is damaged: it is sent as it is, in a text
            line = canonical(line_of(record).decode()).encode()
            return self._line(record.event, UNKNOWN, {}, record.seq, record.at_ms, record.digest, line)
        row = ROWS.get(record.event, UNKNOWN)
        return self._line(record.event, row, fields, record.seq, record.at_ms, record.digest, line_of(record))

    def notice(self, kind: str, seq: int, at_ms: int, line: bytes) -> bytes:
        """The line of a checkpoint or a gap, of which `line` is our own."""
        row, event, _ = NOTICES[kind]
        return self._line(event, row, {}, seq, at_ms, hashlib.sha256(line).hexdigest(), line)

    def _line(self, event: str, row: Row, fields: Fields, seq: int, at_ms: int, uid: str, ours: bytes) -> bytes:
        failed = row.fails is not None and fields.get(row.fails[0]) == row.fails[1]
        alike = self._alike.get((event, failed)) if row is not UNKNOWN else None
        if alike is None:
            alike = self._what_is_alike(event, row, failed=failed)
            if row is not UNKNOWN:  # which names these have, and how many, is not ours to say
                self._alike[event, failed] = alike
        of = parts.first_text(fields, "task", "trace_id")
        correlated = f'"correlation_uid":{_encoded(of)},' if of else ""
        said = _encoded(self._said(event, row, fields, uid, failed=failed))[1:-1]
        return (
            (
                f'{{{alike.members},{said},"metadata":{{{correlated}{alike.metadata},"sequence":{seq},"uid":"{uid}"}},'
                f'"time":{at_ms},"unmapped":{{"sojourn":'
            ).encode()
            + ours
            + b"}}"
        )

    def _said(self, event: str, row: Row, fields: Fields, uid: str, *, failed: bool) -> Value:
        """What one event says by its own fields."""
        said: Value = {"actor": parts.actor(fields, row, self._agent), **parts.status(fields)}
        count = parts.number_of(fields.get("count"))
        if count is not None:
            said["count"] = count
        if row.action and (found := parts.authorizations(fields, _DECISIONS[DENIED if failed else row.action])):
            said["authorizations"] = found
        said.update(self._of_class(event, row, fields, uid))
        return said

    def _of_class(self, event: str, row: Row, fields: Fields, uid: str) -> Value:
        match row.kind.uid:
            case AUTHENTICATION.uid:
                service = parts.service(fields, self._node)
                return {"service": service, **_of_session(fields, row), **parts.credential(fields, row)}
            case SESSION.uid:
                return {"privileges": parts.privileges(fields), **_of_session(fields, row)}
            case ENTITY.uid:
                return {"entity": parts.entity(fields, row)}
            case API.uid:
                operation = parts.first_text(fields, "action", "method") or event
                source = parts.source(fields, self._place)
                return {"api": {"operation": operation}, "src_endpoint": source, **_resources(fields)}
            case DETECTION.uid:
                finding = {"title": EVENTS[event], "types": [event], "uid": parts.text_of(fields.get("task")) or uid}
                return {"finding_info": finding, **_resources(fields)}
            case _:
                return {}

    def _what_is_alike(self, event: str, row: Row, *, failed: bool) -> _Alike:
        kind, status = row.kind, FAILURE if failed else row.status
        action = DENIED if failed and row.action else row.action
        members: Value = {
            "activity_id": row.activity_id,
            "activity_name": row.activity_name,
            "category_uid": kind.category,
            "class_name": kind.name,
            "class_uid": kind.uid,
            "device": {**self._place, "type_id": 0},
            "message": _sentence(event),
            "severity_id": row.severity,
            "status_id": status if isinstance(status, int) else OTHER,
            "type_uid": kind.type_uid(row.activity_id),
            **({} if isinstance(status, int) else {"status": status}),
            **({"action_id": action, "disposition_id": DISPOSITIONS[action]} if action else {}),
            **(_LOG if kind is LOG else {}),
            **({"app": PRODUCT} if kind is LIFECYCLE else {}),
        }
        if row.protocol is not None:
            members["auth_protocol_id"], members["auth_protocol"] = row.protocol
        profiles = [HOST, CONTROL] if action else [HOST]
        metadata = {"event_code": event, "log_name": "audit", "product": PRODUCT, "profiles": profiles}
        return _Alike(canonical(members)[1:-1], canonical({**metadata, "version": VERSION})[1:-1])


def _of_session(fields: Fields, row: Row) -> Value:
    session = parts.session(fields)
    return {"user": parts.user(fields, row), **({"session": session} if session else {})}


def _resources(fields: Fields) -> Value:
    found = parts.resources(fields)
    return {"resources": found} if found else {}


def _sentence(event: str) -> str:
    of_notices = {name: sentence for _, name, sentence in NOTICES.values()}
    return EVENTS.get(event) or of_notices.get(event) or _NOT_RECORDED


def _fields(text: str) -> Fields | None:
    """The fields of a record; None of one that was damaged."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
