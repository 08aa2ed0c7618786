"""Recertification, of the task types that are in force."""

from sojourn.audit.journal import Audit
from sojourn.runtime.clock import Clock
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.reviews import ReviewTable
from sojourn.tasks.recertification import Recertification
from sojourn.tasks.type_sets import Policies


def recertification_of(
    database: Database, journal: AuditTable, policies: Policies, audit: Audit, clock: Clock
) -> Recertification:
    """Build it before the first set comes into force: it hears of each."""
    made = Recertification(ReviewTable(database, journal), lambda: policies.in_force, audit, clock)
    policies.folder.on_brought = made.types_changed
    return made
