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
    """Who is behind a process, as the kernel tells it. `login_uid` None: it knows of no login."""

    uid: int
    login_uid: int | None
    pid: int
    spiffe_ids: frozenset[str] = frozenset()  # that the process is attested as

    def is_also(self, other: "Person") -> bool:
        """Whether the two may be one: a user or login user in common, or an identity."""
        return bool(self._users & other._users or self.spiffe_ids & other.spiffe_ids)

    def same_user(self, other: "Person") -> bool:
        """Whether they count as one user: who logged in counts, whatever they have become since, if it is known of
        both. A user who is not root is one, whatever logins are told: where none is set, each process may say its own.
        """
        if self.uid == other.uid and self.uid != 0:
            return True
        if self.login_uid is not None and other.login_uid is not None:
            return self.login_uid == other.login_uid
        return bool(self._users & other._users)

    @property
    def _users(self) -> set[int]:
        return {self.uid} if self.login_uid is None else {self.uid, self.login_uid}


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
        return {
            "uid": self.person.uid,
            "login_uid": self.person.login_uid,
            "pid": self.person.pid,
            "role": self.role,
        }


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
        """As what `person` may decide this. Raise NotFound if they may not know of it, PolicyDenied if they may."""
        if operator:
            if OPERATOR not in self.approvers:
                raise PolicyDenied(f"operators do not decide this: {', '.join(self.approvers)} do")
            role = OPERATOR
        else:
            role = next((each for each in self.approvers if each in person.spiffe_ids), "")
            if not role:
                raise NotFound("there is no such approval request")
        if person.is_also(self.requester):
            raise PolicyDenied(
                "nobody decides on their own request: someone must who has not the requester's user, login or SPIFFE ID"
            )
        return role


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
