"""What keeps the journal within a size, and what is kept of it all the same: as the configuration says."""

from dataclasses import replace

from sojourn.audit.journal import Audit
from sojourn.config.model import Config
from sojourn.operating_limits import FULL_DENIALS_SECONDS
from sojourn.runtime.clock import Clock
from sojourn.settings.audit import AuditConfig
from sojourn.store.audit import AuditTable
from sojourn.store.pruning import Pruning, most_of
from sojourn.store.retention import Retention


def retention_of(config: AuditConfig) -> Retention:
    """What of the journal is not pruned, as the configuration says."""
    keep = 0 if config.keep is None else int(config.keep.total_seconds() * 1000)
    return Retention(keep, tuple(each.name for each in config.sinks if each.required))


def pruning_of(config: Config, journal: AuditTable, audit: Audit, clock: Clock) -> Pruning:
    """What keeps the journal within a size. While it is full, fewer refusals are recorded one by one."""
    most = config.audit.max_bytes or most_of(config.data_dir)
    made = Pruning(journal, most, clock, retention_of(config.audit))

    def full(is_full: bool) -> None:
        audit.denial_seconds = FULL_DENIALS_SECONDS if is_full else 1.0
        audit.note("journal_full" if is_full else "journal_has_room", max_bytes=made.max_bytes)

    made.room.on_full(full)
    if made.retention.holds:
        made.room.follow(audit.on_event)
    return made


def retain(pruning: Pruning, config: AuditConfig, audit: Audit) -> None:
    """Hold what a configuration says that was read again."""
    pruning.retention = replace(pruning.retention, keep_ms=retention_of(config).keep_ms)
    if pruning.retention.holds:
        pruning.room.follow(audit.on_event)
