"""gRPC statuses as Sojourn's errors."""

import os
import socket
import stat
from collections.abc import Callable

import grpc

from sojourn import errors
from sojourn.config import service_unit
from sojourn.errors import SojournError, oauth
from sojourn.errors.oauth import NonceNeeded
from sojourn.errors.people import PersonRefused

NONCE_KEY = "dpop-nonce"  # trailing metadata: the nonce that a DPoP proof must have
UNKNOWN_METHOD = "unknown method "  # so an agent's socket answers a call that it does not serve
CODE_KEY = "sojourn-code"  # trailing metadata: the stable code of the error at the agent
ACR_VALUES_KEY, MAX_AGE_KEY = "acr-values", "max-age"  # there too: how a person must log in (RFC 9470, 3)
_OF_PEOPLE: frozenset[str] = frozenset(each.code for each in PersonRefused.__subclasses__())
_STATUSES: dict[grpc.StatusCode, type[SojournError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.PERMISSION_DENIED: errors.Refused,
    grpc.StatusCode.UNIMPLEMENTED: errors.Refused,
    grpc.StatusCode.FAILED_PRECONDITION: errors.TaskOver,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.LimitExceeded,
}
_CODES: dict[str, type[SojournError]] = {
    each.code: each
    for each in (
        errors.InvalidSpiffeId,
        errors.InvalidToken,
        errors.InvalidPolicy,
        errors.InvalidAuthorizationDetails,
        errors.UnknownTaskType,
        errors.NoIdentity,
        errors.PolicyDenied,
        errors.ActionOutsideType,
        errors.InvalidTarget,
        errors.StoreFull,
        errors.AuditFull,
        errors.AttestationFailed,
        errors.ApprovalRequired,
        errors.NeedsApproval,
        errors.ReviewOwed,
        errors.ReviewOverdue,
        errors.OwnReview,
        errors.ReasonNeeded,
        errors.ReviewNotShown,
        errors.ReviewStale,
        errors.StoreFailed,
        errors.NoTaskTypes,
        errors.SvidExpired,
        errors.SvidRefused,
        errors.InvalidSvid,
        oauth.Confined,
        oauth.DatabaseDamaged,
        oauth.InvalidProof,
        oauth.BindingNeeded,
        oauth.DigestNeeded,
        oauth.NotOnDisk,
        oauth.ShuttingDown,
    )
}


# What gRPC's library says of a call that was over before its first request went out: it does not have the status then.
_NEVER_SENT = "Internal error from Core"


def never_sent(error: SojournError) -> bool:
    """Whether a call ended before its first request went out, as far as that is known: nothing came of it."""
    return isinstance(error, errors.Unavailable) and error.public == _NEVER_SENT


def translate(error: grpc.aio.AioRpcError, unreachable: Callable[[], str]) -> SojournError:
    """Return our error for a status that a call ended with. `unreachable` says why nobody answers, and what to do.

    `remote_code` on it is the agent's own stable code, or empty if the agent sent none.
    """
    status, details = error.code(), error.details() or ""
    code = _trailing(error, CODE_KEY)
    made: SojournError
    if status is grpc.StatusCode.UNAVAILABLE and not code and "failed to connect" in details:
        made = errors.Unreachable(unreachable(), detail=details)
    elif code == NonceNeeded.code:
        made = NonceNeeded(details, _trailing(error, NONCE_KEY))
    elif code in _OF_PEOPLE:
        made = _of_person(error, code, details)
    else:
        made = _kind(status, code, details)(details or f"agent answered {status.name}")
    made.remote_code = code
    return made


def unreachable_sentence(path: str) -> str:
    """Say why nobody answers at `path`, and what to do."""
    of_unit = service_unit.is_of_unit(path)
    start = service_unit.START if of_unit else "`sojourn agent run`"
    cure = f"start the agent with {start}, or name its socket (SPIFFE_ENDPOINT_SOCKET, SOJOURN_ADMIN_SOCKET)"
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except PermissionError:
        is_socket = True  # and the next sentence says what is wrong
    except OSError:
        return f"no socket at {path!r}: {cure}"
    if not is_socket:
        return f"{path!r} is not a socket: {cure}"
    if not os.access(path, os.W_OK):
        return (
            f"no permission to connect to the socket {path!r}: an admin socket is for root and the agent's user, so run"
            " this as one of them"
        )
    if listened_on(path):
        # A socket that systemd holds takes connections also while no agent runs.
        look = "`systemctl status sojourn` and `journalctl -u sojourn`" if of_unit else "its process and its log"
        return (
            f"the socket {path!r} is there, but nothing answered in time: its agent is stopped or very busy; look at"
            f" {look}"
        )
    return f"nobody answers on the socket {path!r}: {cure}"


def listened_on(path: str) -> bool:
    """Whether somebody listens there, be it that more wait than there is room for."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # so many wait there already that there is no room
            return True
        except OSError:
            return False
    return True


def other_socket_sentence(path: str) -> str:
    """Say why who answers at `path` does not know a call, and what to do."""
    return (
        f"the socket {path!r} does not serve this call: workloads' calls go to an agent's public socket (--socket,"
        " SPIFFE_ENDPOINT_SOCKET), operators' to its admin socket (--admin-socket, SOJOURN_ADMIN_SOCKET)"
    )


def _of_person(error: grpc.aio.AioRpcError, code: str, details: str) -> PersonRefused:
    age = _trailing(error, MAX_AGE_KEY)
    max_age = int(age) if age.isdecimal() else None
    return PersonRefused(code, details, acr_values=_trailing(error, ACR_VALUES_KEY).split(), max_age=max_age)


def _kind(status: grpc.StatusCode, code: str, details: str) -> type[SojournError]:
    exact = _CODES.get(code)
    if exact is not None and exact.grpc_status == status.name:
        return exact
    if status is grpc.StatusCode.PERMISSION_DENIED and "no identity issued" in details:
        return errors.NoIdentity
    return _STATUSES.get(status, errors.Unavailable)


def _trailing(error: grpc.aio.AioRpcError, name: str) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == name:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""
