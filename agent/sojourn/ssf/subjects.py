"""Whom a signed event is about (RFC 9493; SSF 1.0, 3): a workload or a task of ours, or a person for whom tasks are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sojourn.errors import InvalidEvent, InvalidInput, InvalidSpiffeId
from sojourn.limits import PERSON_TEXT_MAX_BYTES
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.tasktoken.person_claims import check_subject
from sojourn.tasktoken.task_id import is_task_id

_SESSION: Final = "session"
_USER: Final = "user"
# Members of a complex subject, the most specific first.
_MEMBERS: Final = (_SESSION, "workload", _USER, "device")
# Where each simple format has its identifier (RFC 9493, 3).
_IDENTIFIERS: Final = {"uri": "uri", "opaque": "id", "iss_sub": "sub"}
_ALL: Final = "ALL"  # as Keycloak names all sessions of a person


@dataclass(frozen=True, slots=True)
class PeopleIssuer:
    """Whose people an issuer of events may speak of: those of [people.NAME], by its name and its `iss`.

    `is_itself`: whether both are one issuer. Only then is a session that is named without a person one of its own.
    """

    name: str
    url: str
    is_itself: bool


@dataclass(frozen=True, slots=True)
class Whose:
    """A person by their `sub` at the people's issuer, a session by its `sid`, or both. With no session: all theirs."""

    subject: str = ""
    session: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """`identifier`: a SPIFFE ID of our trust domain, or a task. With neither it is nobody of ours. With both it is a
    task that is said to be for this person.
    """

    identifier: str = ""
    person: Whose | None = None


@dataclass(frozen=True, slots=True)
class Subjects:
    """Reads subjects. `people`: whose people the issuer of the events may speak of; None: of nobody's."""

    trust_domain: TrustDomain
    people: PeopleIssuer | None = None

    def read(self, claims: Mapping[str, Any], payload: Mapping[str, Any]) -> Subject:
        """The subject of an event. Older drafts have it within the event. Raise InvalidEvent if it is malformed."""
        named = [place[name] for place, name in ((claims, "sub_id"), (payload, "subject")) if name in place]
        if not named or not all(isinstance(each, dict) for each in named):
            raise InvalidEvent("the event names no subject: sub_id is missing or not an object")
        if any(each != named[0] for each in named):
            raise InvalidEvent("the event names two subjects")
        subject = named[0]
        kind = _format(subject)
        if kind == "complex" or (not kind and any(name in subject for name in _MEMBERS)):
            return self._complex(subject)
        identifier = _identifier(subject, kind)
        person = self._person(subject)
        if person is not None:  # the people's issuer names them as it likes: as a task of ours looks, too
            return Subject(person=person)
        ours = identifier if is_task_id(identifier) else self._workload(identifier)
        return Subject(ours)

    def _complex(self, subject: Mapping[str, Any]) -> Subject:
        """The most specific of all that is named and ours. A person is that, but for a task of theirs beside them."""
        members = {name: subject[name] for name in _MEMBERS if subject.get(name) is not None}
        parts = {name: self._part(name, member) for name, member in members.items()}
        person = self._of_person(members)
        task = parts.get(_SESSION, "")
        if person is not None and not task:
            return Subject(person=person)
        if person is not None and person.subject:
            return Subject(task, Whose(person.subject))
        return Subject(next(filter(None, parts.values()), ""))

    def _part(self, name: str, member: object) -> str:
        """What a member of a complex subject names, if it is ours: `session` a task, the others a workload."""
        if not isinstance(member, dict):
            raise InvalidEvent("a member of the event's subject is not an object")
        identifier = _identifier(member, _format(member))
        if name == _SESSION:
            return identifier if is_task_id(identifier) else ""
        return self._workload(identifier)

    def _of_person(self, members: Mapping[str, Any]) -> Whose | None:
        """The person whom `user` names, with the session that is named beside, if it is one of several."""
        named = self._person(members[_USER]) if _USER in members else None
        session = _session(members.get(_SESSION, {}))
        if named is not None:
            return Whose(named.subject, session)
        itself = self.people is not None and self.people.is_itself
        return Whose(session=session) if itself and session and _USER not in members else None

    def _person(self, subject: Mapping[str, Any]) -> Whose | None:
        """The person whom a simple subject names, by the `iss` and `sub` of their tokens, byte for byte."""
        people = self.people
        if people is None or _format(subject) != "iss_sub":
            return None
        issuer = subject.get("iss")
        if not isinstance(issuer, str) or not issuer:
            raise InvalidEvent("the event's subject has the format iss_sub and no iss")
        if issuer != people.url:
            return None
        try:
            return Whose(check_subject(_identifier(subject, "iss_sub")))
        except InvalidInput:
            return None  # nobody for whom a task could be

    def _workload(self, identifier: str) -> str:
        try:
            SpiffeId.parse(identifier).check_workload_of(self.trust_domain)
        except InvalidSpiffeId:
            return ""
        return identifier


def _session(member: Mapping[str, Any]) -> str:
    """The `sid` that a session is named by; '': all sessions, or one that is named in a way that no token names it."""
    session = _identifier(member, "opaque") if _format(member) == "opaque" else ""
    fits = len(session.encode(errors="replace")) <= PERSON_TEXT_MAX_BYTES and session.isprintable()
    return session if fits and session != _ALL else ""


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
