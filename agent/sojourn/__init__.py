"""Sojourn: an identity for as long as a process runs, authority for as long as its task lasts.

The names below are loaded when first used, so that `import sojourn` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sojourn.errors import Refused, SojournError, TaskOver
    from sojourn.errors.people import PersonRefused, WrongPerson
    from sojourn.sdk.client.client import Client
    from sojourn.sdk.client.remote_agent import RemoteAgent
    from sojourn.sdk.client.sync import SyncClient
    from sojourn.sdk.client.x509_source import X509Source
    from sojourn.sdk.guard.verifier import TaskVerifier
    from sojourn.sdk.integrations.asgi import TaskTokenMiddleware
    from sojourn.sdk.task.acting import acting_for, acting_for_nobody
    from sojourn.sdk.task.current import current_task, task
    from sojourn.sdk.task.task import Task
    from sojourn.sdk.task.values import PersonToken
    from sojourn.spiffe.ids import SpiffeId, TrustDomain
    from sojourn.spiffetls.authorize import authorize_any, authorize_id, authorize_member_of
    from sojourn.tasktoken.grants import Grant

    __version__: str

__all__ = [
    "Client",
    "Grant",
    "PersonRefused",
    "PersonToken",
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
    "WrongPerson",
    "X509Source",
    "acting_for",
    "acting_for_nobody",
    "authorize_any",
    "authorize_id",
    "authorize_member_of",
    "current_task",
    "task",
]

_HOMES = {
    "Client": "sojourn.sdk.client.client",
    "Grant": "sojourn.tasktoken.grants",
    "PersonRefused": "sojourn.errors.people",
    "PersonToken": "sojourn.sdk.task.values",
    "Refused": "sojourn.errors",
    "RemoteAgent": "sojourn.sdk.client.remote_agent",
    "SojournError": "sojourn.errors",
    "SpiffeId": "sojourn.spiffe.ids",
    "SyncClient": "sojourn.sdk.client.sync",
    "Task": "sojourn.sdk.task.task",
    "TaskOver": "sojourn.errors",
    "TaskTokenMiddleware": "sojourn.sdk.integrations.asgi",
    "TaskVerifier": "sojourn.sdk.guard.verifier",
    "TrustDomain": "sojourn.spiffe.ids",
    "WrongPerson": "sojourn.errors.people",
    "X509Source": "sojourn.sdk.client.x509_source",
    "acting_for": "sojourn.sdk.task.acting",
    "acting_for_nobody": "sojourn.sdk.task.acting",
    "authorize_any": "sojourn.spiffetls.authorize",
    "authorize_id": "sojourn.spiffetls.authorize",
    "authorize_member_of": "sojourn.spiffetls.authorize",
    "current_task": "sojourn.sdk.task.current",
    "task": "sojourn.sdk.task.current",
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
