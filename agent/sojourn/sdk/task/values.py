"""What the agent says of tasks and their tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, TypedDict

from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.errors import ApprovalDenied, ApprovalExpired, InvalidInput, TaskOver
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.end_reasons import APPROVAL_DENIED, APPROVAL_EXPIRED, with_explanation
from sojourn.tasktoken.grants import Grant

PENDING = "pending"
NOT_OAUTH: Final = "N_A"  # token_type of what is no OAuth access token (RFC 8693, 2.2.1)
AWS_CREDENTIALS: Final = "urn:sojourn:token-type:aws-credentials"
VAULT_TOKEN: Final = "urn:sojourn:token-type:vault-token"  # noqa: S105  # a name; Vault takes it as Bearer too
LIVING = frozenset({PENDING, "active", "suspended"})

Params = Mapping[str, str | int | bool]  # of a task that is to be begun: values of their type, or as text


def params_as_text(params: Params | None) -> dict[str, str]:
    """Parameters as the agent takes them. Raise InvalidInput for what is of another type."""
    texts = {}
    for name, value in (params or {}).items():
        if not isinstance(value, str | int):
            raise InvalidInput(f"parameter {name!r} is neither text nor a whole number nor true or false")
        texts[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return texts


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token of a task (RFC 9068), or what a provider outside gave in its place: `provider` names it then.

    `token` is a credential: the repr hides it. A provider's may be no OAuth token (`token_type` N_A): then
    `issued_type` says how to read it. `recall` is what becomes of it at the task's end: revoke, deny or none.
    """

    token: str
    resource: str
    actions: tuple[str, ...]
    expires_at: datetime
    token_type: str = "Bearer"  # noqa: S105  # a name; or DPoP: it goes with a proof
    issued_type: str = ""
    provider: str = ""
    recall: str = ""

    @property
    def header(self) -> str:
        """The value of an `Authorization` header (RFC 6750, 2.1; RFC 9449, 7.1). Raise InvalidInput if it fits none."""
        if self.token_type != NOT_OAUTH:
            return f"{self.token_type} {self.token}"
        if self.issued_type == VAULT_TOKEN:
            return f"Bearer {self.token}"
        raise InvalidInput(
            f"what provider {self.provider!r} gives for {self.resource} is no token for an Authorization header:"
            " take it by its text (task.token), or let its own SDK have it (task.cloud_endpoints)"
        )

    @classmethod
    def of(cls, answer: tasks_pb2.GetTokenResponse) -> "AccessToken":
        expires_at = datetime.fromtimestamp(answer.expires_at, UTC)
        return cls(
            token=answer.access_token,
            resource=answer.resource,
            actions=tuple(answer.actions),
            expires_at=expires_at,
            token_type=answer.token_type or "Bearer",
            issued_type=answer.issued_token_type,
            provider=answer.provider,
            recall=answer.recall,
        )

    def __repr__(self) -> str:
        return f"AccessToken({self.resource}, {list(self.actions)}, exp={self.expires_at.isoformat()})"


@dataclass(frozen=True, slots=True)
class PersonToken:
    """A token by which a person is shown, whom a task is for. It is a credential: the repr hides it.

    It was given to this workload: an ID token of an application of it, or an access token that it receives.
    """

    text: str = field(repr=False)
    token_type: str

    @classmethod
    def id_token(cls, text: str) -> "PersonToken":
        """The ID token that an OpenID Connect server gave at login."""
        return cls(text, "urn:ietf:params:oauth:token-type:id_token")

    @classmethod
    def access_token(cls, text: str) -> "PersonToken":
        """The access token that a person's client sent: a JWT (RFC 9068), or opaque where those are taken."""
        return cls(text, "urn:ietf:params:oauth:token-type:access_token")

    def message(self) -> tasks_pb2.PersonToken:
        """As the agent takes it."""
        return tasks_pb2.PersonToken(token=self.text, token_type=self.token_type)


@dataclass(frozen=True, slots=True)
class TaskPerson:
    """Whom a task is for. `auth_time` None and `acr` empty: nobody says. `until`: when the token of them ends that was
    brought last, and the task with it.
    """

    issuer: str  # its name in the agent's configuration
    subject: str
    auth_time: datetime | None
    acr: str
    until: datetime
    iss: str = ""  # the issuer's, as its tokens say
    several: bool = False  # whether this process may have tasks for others: each use says whom it is for

    @property
    def name(self) -> str:
        """As policies, `expect_person` and operators name them."""
        return f"{self.issuer}|{self.subject}"

    @classmethod
    def of(cls, message: tasks_pb2.Person) -> "TaskPerson":
        auth_time = datetime.fromtimestamp(message.auth_time, UTC) if message.auth_time else None
        until = datetime.fromtimestamp(message.until, UTC)
        return cls(message.issuer, message.subject, auth_time, message.acr, until, message.iss, message.several)


@dataclass(frozen=True, slots=True)
class DelegationTicket:
    """What another workload begins its part of a task with. `ticket` is a credential: the repr hides it."""

    ticket: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"DelegationTicket(exp={self.expires_at.isoformat()})"


@dataclass(frozen=True, slots=True)
class ApprovalStatus:
    """What a task waits, or waited, for: `needed` of the `approvers` must agree, and `given` have.

    `digest` is that of what is asked for; `denial` are the words of whoever said no.
    """

    id: str
    expires_at: datetime
    digest: str
    approvers: tuple[str, ...]
    needed: int
    given: int
    denial: str

    @classmethod
    def of(cls, message: tasks_pb2.TaskApproval) -> "ApprovalStatus":
        return cls(
            id=message.approval_id,
            expires_at=datetime.fromtimestamp(message.expires_at, UTC),
            digest=message.digest,
            approvers=tuple(message.approvers),
            needed=message.needed,
            given=message.given,
            denial=message.denial,
        )


@dataclass(frozen=True, slots=True)
class Outside:
    """A resource whose credentials a provider outside gives. `details` is what programs must know to use them."""

    resource: str
    provider: str
    kind: str  # keycloak, aws, gcp, entra, vault …
    details: Mapping[str, str]

    @classmethod
    def of(cls, message: tasks_pb2.Outside) -> "Outside":
        return cls(message.resource, message.provider, message.kind, dict(message.details))


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What the agent last said of a task. `reason` says why it ended, and is empty while it lives."""

    id: str
    type: str
    spiffe_id: SpiffeId
    state: str
    reason: str
    version: int
    grants: tuple[Grant, ...]
    created_at: datetime
    expires_at: datetime
    params: Mapping[str, str]
    parent_id: str = ""  # the task that handed it on
    actors: tuple[SpiffeId, ...] = ()  # who acts for the first task's workload, this one's first; none: nobody does
    approval: ApprovalStatus | None = None  # None: nobody had to agree
    outside: tuple[Outside, ...] = ()
    explanation: str = ""  # what the operator said who ended it
    person: TaskPerson | None = None  # whom it is for; None: nobody but its workload

    @property
    def why(self) -> str:
        """The reason, with what the operator said who ended the task."""
        return with_explanation(self.reason, self.explanation)

    @property
    def pending(self) -> bool:
        """Whether it waits for someone to agree."""
        return self.state == PENDING

    def check_begun(self) -> None:
        """Raise ApprovalDenied, ApprovalExpired or TaskOver if the task was over before it began."""
        if self.reason == APPROVAL_DENIED:
            said = self.approval.denial if self.approval is not None else ""
            raise ApprovalDenied(f"the task was not approved: {said or 'no reason given'}")
        if self.reason == APPROVAL_EXPIRED:
            raise ApprovalExpired("the task was not approved in time")
        if self.state not in LIVING:
            raise TaskOver(f"the task is over: {self.state}, {self.why}")

    @classmethod
    def of(cls, message: tasks_pb2.Task) -> "TaskStatus":
        """Parse a Task message. Raise InvalidInput."""
        return cls(
            id=message.id,
            type=message.type,
            spiffe_id=SpiffeId.parse(message.spiffe_id),
            state=message.state,
            reason=message.reason,
            version=message.version,
            grants=tuple(Grant.parse(grant.resource, grant.actions) for grant in message.grants),
            created_at=datetime.fromtimestamp(message.created_at, UTC),
            expires_at=datetime.fromtimestamp(message.expires_at, UTC),
            params=dict(message.params),
            parent_id=message.parent_id,
            actors=tuple(SpiffeId.parse(each) for each in message.actors),
            approval=ApprovalStatus.of(message.approval) if message.HasField("approval") else None,
            outside=tuple(Outside.of(each) for each in message.outside),
            explanation=message.explanation,
            person=TaskPerson.of(message.person) if message.HasField("person") else None,
        )


class TaskView:
    """A task's present status, read only. Shared by the two kinds of client."""

    @property
    def status(self) -> TaskStatus:
        raise NotImplementedError

    @property
    def id(self) -> str:
        return self.status.id

    @property
    def type(self) -> str:
        return self.status.type

    @property
    def spiffe_id(self) -> SpiffeId:
        return self.status.spiffe_id

    @property
    def grants(self) -> tuple[Grant, ...]:
        return self.status.grants

    @property
    def expires_at(self) -> datetime:
        return self.status.expires_at

    @property
    def person(self) -> TaskPerson | None:
        """Whom it is for; None: nobody but its workload."""
        return self.status.person

    @property
    def state(self) -> str:
        """pending, active, suspended, completed, revoked, expired or cascaded; or lost: the agent is gone."""
        return self.status.state

    @property
    def reason(self) -> str:
        return self.status.reason

    @property
    def explanation(self) -> str:
        """What the operator said who ended it; empty if nothing, or nobody did."""
        return self.status.explanation

    @property
    def why(self) -> str:
        """The reason, with the explanation in brackets if there is one."""
        return self.status.why

    @property
    def ended(self) -> bool:
        return self.status.state not in LIVING

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, {self.type}, {self.state})"


class TokenOptions(TypedDict, total=False):
    """To what a token is bound, and to which request.

    `bound`: "agent", to a key of the task that never leaves the agent, which makes the proofs; `dpop_proof`: to the
    key of this proof for POST {issuer}/token; `certificate`: to this X.509-SVID of the task's workload (DER). At most
    one of them; none: whoever holds the token may use it. `params_digest`: the token is for that request alone.
    `expect_person`: whom this use is for, ISSUER|SUBJECT, or `-`: nobody; without it, whom `sojourn.acting_for` says.
    """

    bound: Literal["agent"] | None
    dpop_proof: str
    certificate: bytes
    params_digest: str
    expect_person: str
