"""What signed events say (CAEP 1.0, RISC 1.0, SSF 1.0): about whom of ours, and as which fact or which end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sojourn.errors import InvalidEvent, InvalidToken
from sojourn.jose.jws import numeric_date
from sojourn.limits import SIGNAL_TEXT_MAX
from sojourn.ssf.security_events import SecurityEvent, check_not_ahead
from sojourn.ssf.subjects import Subjects, Whose

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"

Value = str | bool
Deed = Literal["end", "block", "unblock"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact that an event tells: of a SPIFFE ID of our trust domain, or of a task."""

    name: str
    subject: str
    value: Value
    happened_at: datetime


@dataclass(frozen=True, slots=True)
class PersonFinding:
    """One fact that an event tells of a person."""

    name: str
    whose: Whose
    value: Value
    happened_at: datetime


@dataclass(frozen=True, slots=True)
class PersonAct:
    """What is to be done to a person since an event says so. `event`: the last part of its type.

    `end`: what was begun for them until it happened, or their session, is over. `block` and `unblock` are of a person,
    never of a session: they begin nothing until the second.
    """

    deed: Deed
    event: str
    whose: Whose
    happened_at: datetime


@dataclass(slots=True)
class Told:
    """What the events of one token say. `others`: types of those that are known, and say nothing of anybody of ours.

    `tasks`: those that are named as the session of a person, with that person.
    """

    findings: list[Finding] = field(default_factory=list)
    acts: list[PersonAct] = field(default_factory=list)
    of_people: list[PersonFinding] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    tasks: list[tuple[str, Whose]] = field(default_factory=list)


def told_by(event: SecurityEvent, subjects: Subjects, now: datetime) -> Told:
    """What a token says; nothing by events that are not known.

    Raise InvalidEvent if any event of a known type is not as its definition says: then the whole token is not taken.
    """
    told = Told()
    for kind, payload in event.events.items():
        if kind in KNOWN:
            _tell(told, kind, payload, event, subjects, now)
    return told


def _tell(
    told: Told, kind: str, payload: Mapping[str, Any], event: SecurityEvent, subjects: Subjects, now: datetime
) -> None:
    value = _value(kind, payload)
    happened = _happened_at(event, payload, now)
    subject = subjects.read(event.claims, payload)
    of_task = bool(subject.identifier) and kind in _MEANINGS  # what is about an account is about all of the person
    acts = [] if subject.person is None or of_task else _acts(kind, subject.person, happened)
    if subject.identifier and subject.person is not None:
        told.tasks.append((subject.identifier, subject.person))
    if kind in _MEANINGS and subject.identifier:
        told.findings.append(Finding(_MEANINGS[kind].name, subject.identifier, value, happened))
    elif acts:
        told.acts += acts
    elif kind in _MEANINGS and subject.person is not None:
        told.of_people.append(PersonFinding(_MEANINGS[kind].name, subject.person, value, happened))
    else:
        told.others.append(kind)


def _value(kind: str, payload: Mapping[str, Any]) -> Value:
    """The value of a fact that it tells; of an account's, true. Raise InvalidEvent if it is not as it must be."""
    meaning = _MEANINGS.get(kind)
    member = "reason" if meaning is None else meaning.member
    value = _text(payload.get(member, "none")) if meaning is None else meaning.read(payload.get(member))
    if value is None:
        raise InvalidEvent(f"the event's {member} is missing, or none that {kind.rpartition('/')[2]} may have")
    return value


def _acts(kind: str, whose: Whose, happened: datetime) -> list[PersonAct]:
    """What is done to a person; nothing where only a session is named and the event is about an account."""
    deeds = _DEEDS.get(kind, ())
    of_session = kind == f"{CAEP}session-revoked"
    named = whose if of_session else Whose(whose.subject)
    if not (named.subject or named.session):
        return []
    return [PersonAct(deed, kind.rpartition("/")[2], named, happened) for deed in deeds]


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


def _one_of(*allowed: str) -> Callable[[object], Value | None]:
    return lambda value: value if isinstance(value, str) and value in allowed else None


def _compliant(value: object) -> Value | None:
    return {"compliant": True, "not-compliant": False}.get(value) if isinstance(value, str) else None


def _text(value: object) -> Value | None:
    good = isinstance(value, str) and 0 < len(value) <= SIGNAL_TEXT_MAX and value.isprintable()
    return str(value) if good else None


def _true(_absent: object) -> Value | None:
    return True


@dataclass(frozen=True, slots=True)
class _Meaning:
    """The fact that an event tells, the member of the event that it is read from, and how."""

    name: str
    member: str
    read: Callable[[object], Value | None]


_MEANINGS: Final[Mapping[str, _Meaning]] = {
    f"{CAEP}risk-level-change": _Meaning("risk_level", "current_level", _one_of("LOW", "MEDIUM", "HIGH")),
    f"{CAEP}device-compliance-change": _Meaning("device_compliant", "current_status", _compliant),
    f"{CAEP}session-revoked": _Meaning("session_revoked", "", _true),
    f"{CAEP}credential-change": _Meaning(
        "credential_change",
        "change_type",
        _one_of("create", "revoke", "update", "delete"),
    ),
    f"{CAEP}assurance-level-change": _Meaning("assurance_level", "current_level", _text),
}
# What is done to a person by it: what was begun ends before nothing can begin.
_DEEDS: Final[Mapping[str, tuple[Deed, ...]]] = {
    f"{CAEP}session-revoked": ("end",),
    f"{RISC}sessions-revoked": ("end",),
    f"{RISC}account-disabled": ("end", "block"),
    f"{RISC}account-purged": ("end", "block"),
    f"{RISC}account-enabled": ("unblock",),
}
# Every type of event that means something here.
KNOWN: Final = frozenset({*_MEANINGS, *_DEEDS})
