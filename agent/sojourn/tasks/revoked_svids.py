"""What tasks and their tokens are due to: an SVID that is revoked takes them with it."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from sojourn.errors import LimitExceeded
from sojourn.identity.issued_svids import IssuedSvid
from sojourn.identity.revocation_list import ENTRY, RevokedIdentity
from sojourn.limits import SVIDS_PER_TASK
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.mass_end import MassEnd
from sojourn.tasks.task import REVOKED, Task
from sojourn.tasktoken.end_reasons import IDENTITY_REVOKED


def remember(task: Task, svids: Mapping[tuple[str, str], float], now: datetime) -> None:
    """Note by which SVIDs a token of the task was asked for: it ends if one is revoked. Raise LimitExceeded."""
    if task.svids.keys() >= svids.keys():
        return
    known = {**task.svids, **svids}
    if len(known) > SVIDS_PER_TASK:
        known = {key: end for key, end in known.items() if end > now.timestamp() or key in svids}
    if len(known) > SVIDS_PER_TASK:
        raise LimitExceeded("too many SVIDs were used for tokens of the task: use one for several requests")
    task.be_due_to(known)


def due_to(engine: TaskEngine, svids: Iterable[IssuedSvid]) -> list[Task]:
    """The live tasks that were begun by one of these SVIDs, or have tokens that were given for one."""
    keys = {(each.kind, each.id) for each in svids}
    return [task for task in engine.tasks.all() if not keys.isdisjoint(task.svids)]


def end_of(ending: MassEnd, identity: RevokedIdentity) -> list[Task]:
    """End the live tasks of an identity that is revoked, and those that are due to an SVID of it, with all that came of
    them. Return them.
    """
    found = [
        task
        for task in ending.engine.tasks.all()
        if identity.name == (task.entry_id if identity.kind == ENTRY else str(task.spiffe_id))
        or any(identity.covers(*each) for each in task.svids)
    ]
    ending.end_all(found, REVOKED, IDENTITY_REVOKED)
    return found


def end_due_to(ending: MassEnd, svids: Iterable[IssuedSvid]) -> None:
    """End them, with all that came of them."""
    ending.end_all(due_to(ending.engine, svids), REVOKED, IDENTITY_REVOKED)
