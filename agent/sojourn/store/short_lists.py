"""Short lists that outlive the agent, each as one value in the database."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Generic, TypeVar

from sqlalchemy import Connection

from sojourn.audit.journal import Event
from sojourn.store import settings
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Value = TypeVar("Value", bound=DataclassInstance)
else:
    Value = TypeVar("Value")

TASK_BLOCKS, REVIEWS = "task_blocks", "reviews_owed"  # names of lists


class KeptList(Generic[Value]):
    """A list of flat dataclass values, written as a whole together with the record of the change."""

    def __init__(self, database: Database, audit: AuditTable, name: str, make: Callable[..., Value]) -> None:
        """`make` makes a value of its fields."""
        self._database = database
        self._audit = audit
        self._name = name
        self._make = make

    def load(self) -> list[Value]:
        """Read in the calling thread: for the start."""

        def work(connection: Connection) -> list[Value]:
            return [self._make(**each) for each in json.loads(settings.get(connection, self._name) or "[]")]

        return self._database.read_now(self._name.replace("_", " "), work)

    async def save(self, values: Sequence[Value], event: Event) -> None:
        text = json.dumps([asdict(value) for value in values])

        def work(connection: Connection) -> None:
            settings.put(connection, self._name, text)
            self._audit.append_in(connection, [event])

        await self._database.write(work)
