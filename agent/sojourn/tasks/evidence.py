"""What tasks and their tokens are due to: an SVID that is revoked takes them with it."""

from collections.abc import Iterable

from sojourn.identity.issued import IssuedSvid
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.reasons import IDENTITY_REVOKED
from sojourn.tasks.task import REVOKED, Task


def due_to(engine: TaskEngine, svids: Iterable[IssuedSvid]) -> list[Task]:
    """The live tasks that were begun by one of these SVIDs, or have tokens that were given for one."""
    keys = {(each.kind, each.id) for each in svids}
    return [task for task in engine.tasks.all() if not keys.isdisjoint(task.svids)]


def end_due_to(engine: TaskEngine, svids: Iterable[IssuedSvid]) -> None:
    """End them, with all that came of them."""
    for task in due_to(engine, svids):
        if task.live:
            engine.end(task, REVOKED, IDENTITY_REVOKED)
