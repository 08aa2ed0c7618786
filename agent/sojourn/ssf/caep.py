"""What signed events say (CAEP 1.0, SSF 1.0): about which of our subjects, and as which fact."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sojourn.errors import InvalidEvent, InvalidSpiffeId, InvalidToken
from sojourn.jose.jws import numeric_date
from sojourn.limits import SIGNAL_TEXT_MAX
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.ssf.security_events import SecurityEvent, check_not_ahead
from sojourn.tasktoken.task_id import is_task_id

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
_SESSION: Final = "session"
# Members of a complex subject, the most specific first.
_MEMBERS: Final = (_SESSION, "workload", "user", "device")
# Where each simple format has its identifier (RFC 9493, 3).
_IDENTIFIERS: Final = {"uri": "uri", "opaque": "id", "iss_sub": "sub"}

Value = str | bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact that an event tells: of a SPIFFE ID of our trust domain, or of a task."""

    name: str
    subject: str
    value: Value
    happened_at: datetime


def findings(event: SecurityEvent, trust_domain: TrustDomain, now: datetime) -> tuple[Finding, ...]:
    """The facts that an event tells; none for events and subjects that are none of ours.

    Raise InvalidEvent if any event of a known type is not as its definition says: then the whole token is not taken.
    """
    found = []
    for kind, payload in event.events.items():
        meaning = _MEANINGS.get(kind)
        if meaning is None:
            continue
        name, member, read = meaning
        value = read(payload.get(member))
        if value is None:
            raise InvalidEvent(f"the event's {member} is missing, or none that {kind.removeprefix(CAEP)} may have")
        happened = _happened_at(event, payload, now)
        subject = _subject(event.claims, payload, trust_domain)
        if subject:
            found.append(Finding(name, subject, value, happened))
    return tuple(found)


def _happened_at(event: SecurityEvent, payload: Mapping[str, Any], now: datetime) -> datetime:
    try:
        seconds = numeric_date(payload, "event_timestamp")
    except InvalidToken as error:
        raise InvalidEvent("the event's event_timestamp is not a number of seconds") from error
    if seconds is None:
        return event.issued_at
    # One that is far ahead would outlive every event that comes after it.
    check_not_ahead(seconds, now, "the event's event_timestamp")
    return datetime.fromtimestamp(seconds, UTC)


def _subject(claims: Mapping[str, Any], payload: Mapping[str, Any], trust_domain: TrustDomain) -> str:
    """The subject, or "" if it is none of ours. Older drafts have it within the event."""
    named = [place[name] for place, name in ((claims, "sub_id"), (payload, "subject")) if name in place]
    if not named or not all(isinstance(each, dict) for each in named):
        raise InvalidEvent("the event names no subject: sub_id is missing or not an object")
    if any(each != named[0] for each in named):
        raise InvalidEvent("the event names two subjects")
    subject = named[0]
    kind = _format(subject)
    if kind == "complex" or (not kind and any(name in subject for name in _MEMBERS)):
        members = ((name, subject.get(name)) for name in _MEMBERS)
        parts = [_part(name, member, trust_domain) for name, member in members if member is not None]
        return next(filter(None, parts), "")
    identifier = _identifier(subject, kind)
    return identifier if is_task_id(identifier) else _workload(identifier, trust_domain)


def _part(name: str, member: object, trust_domain: TrustDomain) -> str:
    """What a member of a complex subject names, if it is ours: `session` a task, the others a workload."""
    if not isinstance(member, dict):
        raise InvalidEvent("a member of the event's subject is not an object")
    identifier = _identifier(member, _format(member))
    if name == _SESSION:
        return identifier if is_task_id(identifier) else ""
    return _workload(identifier, trust_domain)


def _format(subject: Mapping[str, Any]) -> str:
    kind = subject.get("format", subject.get("subject_type", ""))
    if not isinstance(kind, str):
        raise InvalidEvent("the format of the event's subject is not a text")
    return kind.replace("-", "_")  # `iss-sub` is how older drafts spell it


def _identifier(subject: Mapping[str, Any], kind: str) -> str:
    """The identifier of a simple subject; "" for a format that names nothing of ours, such as an e-mail address."""
    member = _IDENTIFIERS.get(kind)
    if member is None:
        return ""
    identifier = subject.get(member)
    if not isinstance(identifier, str) or not identifier:
        raise InvalidEvent(f"the event's subject has the format {kind} and no {member}")
    return identifier


def _workload(identifier: str, trust_domain: TrustDomain) -> str:
    try:
        SpiffeId.parse(identifier).check_workload_of(trust_domain)
    except InvalidSpiffeId:
        return ""
    return identifier


def _one_of(*allowed: str) -> Callable[[object], Value | None]:
    return lambda value: value if isinstance(value, str) and value in allowed else None


def _compliant(value: object) -> Value | None:
    return {"compliant": True, "not-compliant": False}.get(value) if isinstance(value, str) else None


def _text(value: object) -> Value | None:
    good = isinstance(value, str) and 0 < len(value) <= SIGNAL_TEXT_MAX and value.isprintable()
    return str(value) if good else None


def _true(_absent: object) -> Value | None:
    return True


# Event type -> the fact, the member of the event that it is read from, and how.
_MEANINGS: Final[Mapping[str, tuple[str, str, Callable[[object], Value | None]]]] = {
    f"{CAEP}risk-level-change": ("risk_level", "current_level", _one_of("LOW", "MEDIUM", "HIGH")),
    f"{CAEP}device-compliance-change": ("device_compliant", "current_status", _compliant),
    f"{CAEP}session-revoked": ("session_revoked", "", _true),
    f"{CAEP}credential-change": (
        "credential_change",
        "change_type",
        _one_of("create", "revoke", "update", "delete"),
    ),
    f"{CAEP}assurance-level-change": ("assurance_level", "current_level", _text),
}
