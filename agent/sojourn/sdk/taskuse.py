"""What a task is used with: HTTP clients that have its authority, and the egress proxy."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sojourn.sdk.asking import AsyncAsking, SyncAsking

if TYPE_CHECKING:
    import ssl

    import httpx

    from sojourn.sdk.egress import Egress
    from sojourn.sdk.httpauth import TaskAuth, Timeout, Verify
    from sojourn.sdk.requestsauth import TaskAdapter

Asking = TypeVar("Asking", AsyncAsking, SyncAsking)
