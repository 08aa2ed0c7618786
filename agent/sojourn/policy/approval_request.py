"""Requests for approval, the people who ask and decide, and who may decide what.

A request never changes, and is for one task: what was shown to whoever decides is what is decided.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sojourn.errors import AlreadyExists, FailedPrecondition, NotFound, PolicyDenied
from sojourn.policy.task_type_tables import OPERATOR
from sojourn.tasktoken.grants import Authority


@dataclass(frozen=True, slots=True)
class Person:
    """Who is behind a process, as the kernel tells it. `login_uid` None: it knows of no login. `subuid_of`: the user
    whose subordinate uid (subuid(5)) `uid` is, who may become it; None: it is nobody's.

    A process without a login may say itself which one it has, so a login makes two people one, and never one two.
    """

    uid: int
    login_uid: int | None
    pid: int
    spiffe_ids: frozenset[str] = frozenset()  # that the process is attested as
    subuid_of: int | None = None

    @property
    def who(self) -> int:
        """The user: whose the uid is, be it one of many."""
        return self.uid if self.subuid_of is None else self.subuid_of

    def is_also(self, other: "Person") -> bool:
        """Whether this person, who decides, may be the other: the same user, or logged in as the same or as the other,
        or with an identity in common.
        """
        its_own = {self.who, self.login_uid}
        return other.who in its_own or self.same_user(other) or bool(self.spiffe_ids & other.spiffe_ids)

    def same_user(self, other: "Person") -> bool:
        """Whether they count as one user. Of root, which many may become, the logins count if both are known."""
        logins = {self.login_uid, other.login_uid}
        if self.who == other.who:
            return self.who != 0 or None in logins or len(logins) == 1
        return (len(logins) == 1 and None not in logins) or self._logged_in_as(other) or other._logged_in_as(self)

    def _logged_in_as(self, other: "Person") -> bool:
        """Whether the other is who logged in here. Not root: each process without a login may say that it has root's,
        and could keep root from deciding.
        """
        return self.login_uid == other.who != 0

    def record(self, by: str = "") -> dict[str, int | None]:
        """For records: the fields `uid`, `login_uid` and `subuid_of`, each behind `by`."""
        return {f"{by}uid": self.uid, f"{by}login_uid": self.login_uid, f"{by}subuid_of": self.subuid_of}


@dataclass(frozen=True, slots=True)
class Approver:
    """Someone who decides. `role` is what makes them an approver: OPERATOR, or a SPIFFE ID."""

    person: Person
    role: str

    def is_also(self, other: "Approver") -> bool:
        """Whether the two count as one: two who agree must be two people, and no workload counts twice."""
        return self.person.same_user(other.person) or (self.role == other.role and self.role != OPERATOR)

    def document(self) -> dict[str, Any]:
        """For records."""
        return {**self.person.record(), "pid": self.person.pid, "role": self.role}


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """What is asked of approvers. `digest` is lower-case hex SHA-256; programs are claims, for showing."""

    id: str
    digest: str
    approvers: tuple[str, ...]
    count: int
    requester: Person
    program: str
    holder_program: str
    grants: Authority
    asked_at: datetime
    expires_at: datetime
    life_seconds: float  # of the task, once it has begun
    when: str = ""  # the condition of its type that holds, or could not be asked; empty: each task needs approval

    def role_of(self, person: Person, *, operator: bool) -> str:
        """As what `person` may refuse this: their own request, too. Raise NotFound if they may not know of it,
        PolicyDenied if they may.
        """
        if operator:
            if OPERATOR not in self.approvers:
                raise PolicyDenied(f"operators do not decide this: {', '.join(self.approvers)} do")
            role = OPERATOR
        else:
            role = next((each for each in self.approvers if each in person.spiffe_ids), "")
            if not role:
                raise NotFound("there is no such approval request")
        return role

    def check_not_own(self, person: Person) -> None:
        """Raise PolicyDenied if `person` may be who asked: they do not agree to it."""
        if person.is_also(self.requester):
            raise PolicyDenied(
                "nobody agrees to their own request: someone must who has not the requester's user, login or SPIFFE ID"
            )


@dataclass(slots=True, eq=False)
class Approval:
    """A request and what has been said to it so far."""

    request: ApprovalRequest
    given: list[Approver] = field(default_factory=list)
    denial: str = ""  # the words of whoever denied it

    def check_digest(self, digest: str) -> None:
        """Raise FailedPrecondition if it was another request that was looked at."""
        if digest != self.request.digest:
            raise FailedPrecondition("the digest is not that of the request: look at it again")

    def check_another(self, approver: Approver) -> None:
        """Raise AlreadyExists if the same person or workload has agreed."""
        if any(approver.is_also(each) for each in self.given):
            raise AlreadyExists("the same person or workload has agreed already: someone else must too")

    @property
    def missing(self) -> int:
        """How many must agree yet."""
        return self.request.count - len(self.given)

    def document(self) -> dict[str, Any]:
        """For the journal."""
        request = self.request
        return {
            "id": request.id,
            "digest": request.digest,
            "approvers": list(request.approvers),
            "count": request.count,
            "when": request.when,
            "given": [each.document() for each in self.given],
        }
