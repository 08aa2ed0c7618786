"""Every error that Sojourn raises on purpose.

An error has a stable `code`, a gRPC status name, where it fits an OAuth error code, and two texts: `public`, which
may go on the wire, and `detail`, which goes to the log only.

    SojournError
    ├── InvalidInput        the caller sent something malformed
    │   ├── TooLarge, InvalidSpiffeId, InvalidSelector, InvalidEntry, InvalidBundle
    │   ├── InvalidConfig, InvalidPolicy, ReasonNeeded
    │   ├── InvalidAuthorizationDetails, UnknownTaskType, UnsupportedGrantType, InvalidScope
    │   └── InvalidToken, InvalidEvent, InvalidSvid    what was signed is not good, whatever the reason
    ├── Refused             understood, and the answer is no
    │   ├── NoIdentity, PolicyDenied, ActionOutsideType, InvalidTarget
    │   ├── NeedsApproval, ReviewOwed, ReviewOverdue, OwnReview
    │   ├── ApprovalDenied, ApprovalExpired, SvidRefused
    │   └── AgentDenied     at a server: who calls is not, or not now, one of its nodes
    ├── NotFound, AlreadyExists, NodeRefused
    ├── LimitExceeded (BudgetSpent), StoreFull (AuditFull)
    ├── TaskOver            the task has ended, or is suspended
    │   └── ApprovalRequired    it has not begun yet: someone must agree first
    ├── Unavailable         not now: attestation failed, storage failed, shutting down
    │   ├── AttestationFailed, BundleNotFetched, NoTaskTypes, StoreFailed, SvidRevoked, SvidExpired
    │   ├── UpstreamUnavailable (UpstreamNotGood)
    │   └── KeysUnavailable (PinRefused)
    ├── Unimplemented (NotOfServer), FailedPrecondition (ReviewNotShown, ReviewStale, HeldByServer)
    ├── CannotStart (KeysSealed), Unreachable    the agent cannot start here; (client side) nobody answers on the socket
    └── Bug                 a state that cannot be
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

QUOTED_MAX = 100
FAULTS_SHOWN = 20


def quoted(text: str) -> str:
    """`text` in double quotes for a message: escaped, and cut at QUOTED_MAX characters."""
    safe = text[:QUOTED_MAX].encode("utf-8", "backslashreplace").decode()
    return json.dumps(safe, ensure_ascii=False)


def joined(faults: Sequence[object]) -> str:
    """`faults` as one message: the first FAULTS_SHOWN of them, and how many more there are."""
    more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    return "; ".join(map(str, faults[:FAULTS_SHOWN])) + more


class SojournError(Exception):
    """The root. `public` is one lower-case sentence that is safe to show to the caller."""

    code: ClassVar[str] = "internal"
    grpc_status: ClassVar[str] = "INTERNAL"
    oauth_error: str = "invalid_request"  # of the class, but where one error is told as another request has it

    def __init__(self, public: str, *, detail: str = "") -> None:
        super().__init__(public)
        self.public = public
        self.detail = detail
        self.remote_code = ""  # on the client side: the agent's own code, if the agent answered this
        self.by_operator = False  # there too: it is of a call on the admin socket


class InvalidInput(SojournError):
    """The caller sent something malformed; nothing was changed."""

    code = "invalid_input"
    grpc_status = "INVALID_ARGUMENT"


class ReasonNeeded(InvalidInput):
    """What nobody used is kept by a decision that says why."""

    code = "reason_needed"


@contextmanager
def told_as(kind: Callable[[str], SojournError], what: str) -> Iterator[None]:
    """Within it whatever is InvalidInput is told as another error, with `what` it is about before it."""
    try:
        yield
    except InvalidInput as error:
        raise kind(f"{what}: {error.public}") from error


class TooLarge(InvalidInput):
    """The request is larger than any good one is."""

    code = "too_large"


class InvalidSpiffeId(InvalidInput):
    """What was given is not a SPIFFE ID, or is one that may not stand in this place."""

    code = "invalid_spiffe_id"


class InvalidSelector(InvalidInput):
    """A selector is not TYPE:VALUE."""

    code = "invalid_selector"


class InvalidSvid(InvalidInput):
    """An X.509-SVID breaks a rule of X509-SVID.md, or does not chain to its trust domain's bundle."""

    code = "invalid_svid"


class InvalidBundle(InvalidInput):
    """What was given is not a trust bundle."""

    code = "invalid_bundle"


class InvalidEntry(InvalidInput):
    """A registration entry breaks a rule."""

    code = "invalid_entry"


class InvalidConfig(InvalidInput):
    """The configuration cannot be used; `faults` lists all that is wrong with it."""

    code = "invalid_config"

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a file. `line` is 0 if it is nowhere in particular."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        line = f"{':' if self.file else 'line '}{self.line}" if self.line else ""
        return f"{self.file}{line}: {self.message}" if self.file or line else self.message


class InvalidPolicy(InvalidInput):
    """A task type or its policy cannot be used; `faults` lists all that is wrong."""

    code = "invalid_policy"

    def __init__(self, faults: str | Sequence[Fault], *, detail: str = "") -> None:
        self.faults = (Fault("", 0, faults),) if isinstance(faults, str) else tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults), detail=detail)


class InvalidToken(InvalidInput):
    """A token is not good. `reason_code` says in what way, stably."""

    code = "invalid_token"
    oauth_error = "invalid_request"

    def __init__(self, public: str, *, reason_code: str = "invalid_token", detail: str = "") -> None:
        super().__init__(public, detail=detail)
        self.reason_code = reason_code


class InvalidEvent(InvalidInput):
    """A signed event is not taken. `err` is the code of RFC 8935, 2.4."""

    code = "invalid_event"

    def __init__(self, public: str, *, err: str = "invalid_request", detail: str = "") -> None:
        super().__init__(public, detail=detail)
        self.err = err


class InvalidAuthorizationDetails(InvalidInput):
    """The `authorization_details` name an unknown type, or ask for what the type does not have (RFC 9396, 5)."""

    code = "invalid_authorization_details"
    oauth_error = "invalid_authorization_details"


class UnknownTaskType(InvalidInput):
    """No task type has this name."""

    code = "unknown_task_type"
    oauth_error = "invalid_authorization_details"


class InvalidScope(InvalidInput):
    """The scope names something that cannot be had here (RFC 6749, 5.2)."""

    code = "invalid_scope"
    oauth_error = "invalid_scope"


class UnsupportedGrantType(InvalidInput):
    """The token endpoint does not know this grant type (RFC 6749, 5.2)."""

    code = "unsupported_grant_type"
    oauth_error = "unsupported_grant_type"


class Refused(SojournError):
    """The request was understood, and the answer is no."""

    code = "refused"
    grpc_status = "PERMISSION_DENIED"
    oauth_error = "access_denied"


class NoIdentity(Refused):
    """No registration entry matches the caller."""

    code = "no_identity"
    oauth_error = "invalid_client"


class PolicyDenied(Refused):
    """Policy said no, or something went wrong while asking it."""

    code = "policy_denied"


class ActionOutsideType(Refused):
    """The task type does not have this action at this resource, whoever asks."""

    code = "action_outside_type"
    oauth_error = "invalid_authorization_details"


class NeedsApproval(Refused):
    """Someone must agree before such a task begins, and this way of asking cannot wait for that."""

    code = "needs_approval"


class ReviewOwed(Refused):
    """A break-glass task of this type has to be reviewed before the next one."""

    code = "review_owed"


class ReviewOverdue(Refused):
    """The review of a task type is overdue, and the type says that no new task of it begins then."""

    code = "review_overdue"


class OwnReview(Refused):
    """Nobody reviews what they changed themselves, and no workload reviews anything."""

    code = "own_review"


class ApprovalDenied(Refused):
    """Whoever was asked to agree to the task said no."""

    code = "approval_denied"


class ApprovalExpired(Refused):
    """Nobody agreed to the task in time."""

    code = "approval_expired"


class InvalidTarget(Refused):
    """The resource or audience is not one that this caller's task may reach (RFC 8707)."""

    code = "invalid_target"
    oauth_error = "invalid_target"


class LimitExceeded(SojournError):
    """A limit is reached; the request would be good at another time."""

    code = "limit_exceeded"
    grpc_status = "RESOURCE_EXHAUSTED"
    oauth_error = "temporarily_unavailable"


class BudgetSpent(LimitExceeded):
    """The task has had all the tokens that its type allows."""

    code = "budget_spent"
    oauth_error = "invalid_grant"


class NotFound(SojournError):
    """There is no such thing, or none that this caller may know of: the two cannot be told apart."""

    code = "not_found"
    grpc_status = "NOT_FOUND"
    oauth_error = "invalid_grant"


class AlreadyExists(SojournError):
    """The same thing is there already."""

    code = "already_exists"
    grpc_status = "ALREADY_EXISTS"


class NodeRefused(SojournError):
    """The SPIRE server does not take this agent for a node of its own. `reason_code` says why, stably: expired,
    not_attested, not_active, banned or must_reattest.
    """

    code = "node_refused"
    grpc_status = "FAILED_PRECONDITION"

    def __init__(self, public: str, *, reason_code: str = "not_attested", detail: str = "") -> None:
        super().__init__(public, detail=detail)
        self.reason_code = reason_code


class TaskOver(SojournError):
    """The task is not active: it has ended, or is suspended."""

    code = "task_not_active"
    grpc_status = "FAILED_PRECONDITION"
    oauth_error = "invalid_grant"


class ApprovalRequired(TaskOver):
    """The task waits for someone to agree; it has no authority yet."""

    code = "approval_required"


class Unavailable(SojournError):
    """It cannot be done now: trying again later may work."""

    code = "unavailable"
    grpc_status = "UNAVAILABLE"
    oauth_error = "temporarily_unavailable"


class UpstreamUnavailable(Unavailable):
    """What is above this agent is away, refuses, or cannot be used: a node's server, or who signs the intermediate."""

    code = "upstream_unavailable"


class UpstreamNotGood(UpstreamUnavailable):
    """What the upstream authority gave breaks a rule: it is not used, and what there is signs on."""

    code = "upstream_not_good"


class BundleNotFetched(Unavailable):
    """A foreign trust domain's bundle could not be had from its endpoint. `reason_code` says why, stably."""

    code = "bundle_not_fetched"

    def __init__(self, public: str, *, reason_code: str = "unreachable", detail: str = "") -> None:
        super().__init__(public, detail=detail)
        self.reason_code = reason_code


class AttestationFailed(Unavailable):
    """The caller could not be attested, so there is neither an identity nor a refusal.

    The text begins as SPIRE's does; `reason`, if it is the caller's to know, follows.
    """

    code = "attestation_failed"

    def __init__(self, reason: str = "", *, detail: str = "") -> None:
        said = "workload attestation failed"
        self.reason = reason.removeprefix(said).removeprefix(": ")  # on the client side it begins so already
        super().__init__(f"{said}: {self.reason}" if self.reason else said, detail=detail)


class SvidRevoked(Unavailable):
    """An SVID that the stream's caller had was revoked. Another one is there for whoever asks again."""

    code = "svid_revoked"


class SvidExpired(Unavailable):
    """The X.509-SVID with which the caller made its connection has ended. With the present one it may connect again."""

    code = "svid_expired"


class SvidRefused(Refused):
    """The X.509-SVID with which the caller made its connection is revoked, or the authority that signed it is."""

    code = "svid_refused"


class AgentDenied(Refused):
    """Who calls is none of the server's nodes, or not by the SVID that it shows. `reason_code` says why, stably:
    expired, not_attested, not_active, banned or must_reattest.
    """

    code = "agent_denied"

    def __init__(self, public: str, *, reason_code: str = "not_attested", detail: str = "") -> None:
        super().__init__(public, detail=detail)
        self.reason_code = reason_code


class NoTaskTypes(Unavailable):
    """No task types are in force, since those of the folder cannot be used and there is no earlier set that can be."""

    code = "no_task_types"


class KeysUnavailable(Unavailable):
    """The token with the root's key, or the process that uses it, does not do what it is asked for now."""

    code = "keys_unavailable"


class PinRefused(KeysUnavailable):
    """The token refuses its PIN, or there is none; it is not tried again until the PIN's file has changed."""

    code = "pin_refused"


class StoreFailed(Unavailable):
    """The database did not take the write; nothing was changed."""

    code = "store_failed"


class StoreFull(SojournError):
    """There is no room for the write; nothing was changed."""

    code = "store_full"
    grpc_status = "RESOURCE_EXHAUSTED"
    oauth_error = "temporarily_unavailable"


class AuditFull(StoreFull):
    """The audit journal is full of records that may not be pruned, so that nothing is given that would add to it."""

    code = "audit_full"


class Unreachable(SojournError):
    """Nobody answers on the socket."""

    code = "unreachable"
    grpc_status = "UNAVAILABLE"


class CannotStart(SojournError):
    """The agent cannot start here; the sentence says what to do about it."""

    code = "cannot_start"


class KeysSealed(CannotStart):
    """Keys are sealed, and what opens them is not there, or is another key; the sentence says what to do about it."""

    code = "keys_sealed"


class Unimplemented(SojournError):
    """What is asked for has no meaning here, or is not there yet; the sentence says what to do instead."""

    code = "unimplemented"
    grpc_status = "UNIMPLEMENTED"


class NotOfServer(Unimplemented):
    """What was asked for is an agent's, and this is a server; the sentence says where it is to be asked."""

    code = "not_of_server"


class FailedPrecondition(SojournError):
    """Something else must be done first; nothing was changed."""

    code = "failed_precondition"
    grpc_status = "FAILED_PRECONDITION"


class HeldByServer(FailedPrecondition):
    """What was to be changed is the server's whose node this agent is: change it there."""

    code = "held_by_server"


class ReviewNotShown(FailedPrecondition):
    """A decision names evidence that the agent has not shown of this, or has let go of."""

    code = "review_not_shown"


class ReviewStale(FailedPrecondition):
    """What is reviewed was changed since its evidence was shown."""

    code = "review_stale"


class Bug(SojournError):
    """The program is in a state that cannot be. It is never caught by name."""

    code = "internal"
