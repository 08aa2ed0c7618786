"""Sojourn: an identity for as long as a process runs, authority for as long as its task lasts.

The names below are loaded when first used, so that `import sojourn` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sojourn.errors import Refused, SojournError, TaskOver
    from sojourn.sdk.ambient import current_task, task
    from sojourn.sdk.asgi import TaskTokenMiddleware
    from sojourn.sdk.authorize import authorize_any, authorize_id, authorize_member_of
    from sojourn.sdk.client import Client
    from sojourn.sdk.remoteagent import RemoteAgent
    from sojourn.sdk.source import X509Source
    from sojourn.sdk.sync import SyncClient
    from sojourn.sdk.task import Task
    from sojourn.sdk.verifier import TaskVerifier
    from sojourn.spiffe.ids import SpiffeId, TrustDomain
    from sojourn.tasks.grants import Grant

    __version__: str

__all__ = [
    "Client",
    "Grant",
    "Refused",
    "RemoteAgent",
    "SojournError",
    "SpiffeId",
    "SyncClient",
    "Task",
    "TaskOver",
    "TaskTokenMiddleware",
    "TaskVerifier",
    "TrustDomain",
    "X509Source",
    "authorize_any",
    "authorize_id",
    "authorize_member_of",
    "current_task",
    "task",
]

_HOMES = {
    "Client": "sojourn.sdk.client",
    "Grant": "sojourn.tasks.grants",
    "Refused": "sojourn.errors",
    "RemoteAgent": "sojourn.sdk.remoteagent",
    "SojournError": "sojourn.errors",
    "SpiffeId": "sojourn.spiffe.ids",
    "SyncClient": "sojourn.sdk.sync",
    "Task": "sojourn.sdk.task",
    "TaskOver": "sojourn.errors",
    "TaskTokenMiddleware": "sojourn.sdk.asgi",
    "TaskVerifier": "sojourn.sdk.verifier",
    "TrustDomain": "sojourn.spiffe.ids",
    "X509Source": "sojourn.sdk.source",
    "authorize_any": "sojourn.sdk.authorize",
    "authorize_id": "sojourn.sdk.authorize",
    "authorize_member_of": "sojourn.sdk.authorize",
    "current_task": "sojourn.sdk.ambient",
    "task": "sojourn.sdk.ambient",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = import_module("importlib.metadata").version("sojourn")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
