"""Errors of the token service, of what its tokens guard, of a damaged database, and of backups."""

from collections.abc import Sequence

from sojourn.errors import (
    ApprovalRequired,
    FailedPrecondition,
    InvalidInput,
    InvalidTarget,
    InvalidToken,
    Refused,
    SojournError,
    StoreFailed,
    Unavailable,
)


class InvalidClient(Refused):
    """The client did not authenticate (RFC 6749, 5.2), or is not whom it says."""

    code = "invalid_client"
    grpc_status = "UNAUTHENTICATED"
    oauth_error = "invalid_client"


class Confined(Refused):
    """The caller descends from a command that never holds a token: the agent gives it nothing, whoever it is."""

    code = "confined"


class InvalidGrant(Refused):
    """What the client presents is over, was used, or is not its own (RFC 6749, 5.2)."""

    code = "invalid_grant"
    oauth_error = "invalid_grant"


class InvalidSubject(InvalidGrant):
    """A subject or actor token of an exchange is over, was used, or is not the client's (RFC 8693, 2.2.2)."""

    code = "invalid_subject"
    oauth_error = "invalid_request"


class UnsupportedTokenType(InvalidInput):
    """The endpoint does not know tokens of this type (RFC 7009, 2.2.1)."""

    code = "unsupported_token_type"
    oauth_error = "unsupported_token_type"


class BindingNeeded(InvalidInput):
    """The task type gives no token that whoever holds it may use."""

    code = "binding_needed"


class DigestNeeded(InvalidInput):
    """The task type gives tokens for one request alone, and none was named."""

    code = "params_digest_needed"


class BindingNotOffered(InvalidInput):
    """A provider outside gives the credential, and gives none that is bound to its sender or to one request."""

    code = "binding_not_offered"


class InvalidProof(InvalidToken):
    """A DPoP proof is not good (RFC 9449, 5). `reason_code` says in what way, stably."""

    code = "invalid_dpop_proof"
    oauth_error = "invalid_dpop_proof"


class NonceNeeded(InvalidProof):
    """A proof must carry a nonce of this server (RFC 9449, 8 and 9): make it again with `nonce`."""

    code = "use_dpop_nonce"
    oauth_error = "use_dpop_nonce"

    def __init__(self, public: str, nonce: str) -> None:
        super().__init__(public, reason_code="nonce_needed")
        self.nonce = nonce


class NotOnDisk(StoreFailed):
    """What was asked for is in force, and the database has not taken it yet: it is written as soon as that can be."""

    code = "not_on_disk"


class SendAgain(Unavailable):
    """(client side) The service wants a request with another token or nonce, and its content is gone: send it again."""

    code = "send_again"


class AuthorizationPending(ApprovalRequired):
    """Someone must agree first (RFC 8628, 3.5): ask again with `task_id`, every `interval` seconds."""

    code = "authorization_pending"
    oauth_error = "authorization_pending"
    interval = 5

    def __init__(self, public: str, *, task_id: str, approval_id: str, approvers: Sequence[str], seconds: int) -> None:
        super().__init__(public)
        self.task_id = task_id
        self.approval_id = approval_id
        self.approvers = tuple(approvers)
        self.seconds = seconds  # until it is too late


class OutsideTask(InvalidTarget):
    """(client side) A request is not within the task: nothing was sent. It was for `actions` at `resource`."""

    code = "outside_task"

    def __init__(self, public: str, *, resource: str = "", actions: tuple[str, ...] = ()) -> None:
        super().__init__(public)
        self.resource = resource
        self.actions = actions


class ActionNotAllowed(Refused):
    """A token is good, and does not allow this action."""

    code = "action_not_allowed"
    oauth_error = "insufficient_scope"


class ActionUsedUp(Refused):
    """A task has made all the uses of an action that its type allows. The task goes on."""

    code = "limit_reached"
    oauth_error = "limit_reached"


class WrongParams(Refused):
    """A token is good, and is for other parameters or another request than this one."""

    code = "wrong_params"
    oauth_error = "insufficient_scope"


class NotApproved(Refused):
    """A token is good, and this action needs a task that somebody has approved (RFC 9470, 3)."""

    code = "not_approved"
    oauth_error = "insufficient_user_authentication"


class ParamNotBound(Refused):
    """A token is for a parameter that this request is not compared with: the guard does not know where it has it."""

    code = "unbound_parameter"
    oauth_error = "unbound_parameter"


class ContentUnknown(InvalidInput):
    """A request's content is not seen where it is judged."""

    code = "content_unknown"


class RoutesNotBound(InvalidInput):
    """(client side) A strict guard does not start: it would refuse requests, or cannot tell whether it would."""

    code = "unbound_routes"


class ToolRefused(Refused):
    """(client side) A tool was not called: the task does not allow it. `reason` is a sentence, `reason_code` stable."""

    code = "tool_refused"

    def __init__(self, tool: str, action: str, why: SojournError) -> None:
        super().__init__(f"{tool} was not called: {why.public}")
        self.tool = tool
        self.action = action
        self.reason = why.public
        self.reason_code = why.remote_code or why.code


class ShuttingDown(Unavailable):
    """The agent is stopping, and has begun nothing of what was asked."""

    code = "shutting_down"

    def __init__(self, public: str = "the agent is shutting down", *, detail: str = "") -> None:
        super().__init__(public, detail=detail)


class DatabaseDamaged(StoreFailed):
    """What is in the database is not what an agent has written; nothing was changed."""

    code = "database_damaged"


class BackupDamaged(FailedPrecondition):
    """A file is no backup, or not the whole of what was written; nothing was changed."""

    code = "backup_damaged"


class WrongPassphrase(Refused):
    """A backup does not open with this passphrase; nothing was changed."""

    code = "wrong_passphrase"


class BackupNotForHere(FailedPrecondition):
    """A backup is of another trust domain, or of a release from which this one cannot go on; nothing was changed."""

    code = "backup_not_for_here"


class NewerJournal(FailedPrecondition):
    """It cannot be shown that a backup has all that the data folder knows, which would be lost; nothing was changed."""

    code = "newer_journal"


class CannotInstall(SojournError):
    """The agent cannot be installed or removed here; the sentence says what to do about it."""

    code = "cannot_install"
