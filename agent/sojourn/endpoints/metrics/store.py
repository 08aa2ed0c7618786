"""Metrics of the database, of the disk that it lies on, and of the journal in it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sojourn.audit.journal import Audit
from sojourn.audit.signed_log import SignedLog
from sojourn.runtime.readiness import STORE, Readiness
from sojourn.store.pruning import Pruning

COMMIT: Final = Histogram(
    "sojourn_store_commit_seconds",
    "How long the database took to have writes on disk that were waiting together.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)


class StoreMetrics(Collector):
    """Sizes are as they were at the last look, which is at most half a minute ago; the disk's are of now."""

    def __init__(
        self, folder: Path, pruning: Pruning, audit: Audit, signed_log: SignedLog, readiness: Readiness
    ) -> None:
        """`folder`: the data folder."""
        self._folder = folder
        self._pruning = pruning
        self._audit = audit
        self._signed_log = signed_log
        self._readiness = readiness

    def collect(self) -> Iterable[Metric]:
        seen = self._pruning.seen
        failed = GaugeMetricFamily("sojourn_store_failed", "1 while the database takes no writes.")
        failed.add_metric([], any(fault.name == STORE for fault in self._readiness.faults()))
        size = GaugeMetricFamily("sojourn_store_bytes", "Bytes that the database takes, the journal among them.")
        size.add_metric([], seen.bytes)
        most = GaugeMetricFamily(
            "sojourn_store_max_bytes", "Bytes of the database from which on the oldest records of the journal go."
        )
        most.add_metric([], self._pruning.max_bytes)
        records = GaugeMetricFamily("sojourn_journal_records", "Records of the journal that were not pruned.")
        records.add_metric([], seen.records)
        oldest = GaugeMetricFamily(
            "sojourn_journal_oldest_timestamp_seconds",
            "When the oldest record of the journal was written, as Unix time; 0: there is none.",
        )
        oldest.add_metric([], seen.oldest_ms / 1000)
        waiting = GaugeMetricFamily("sojourn_journal_waiting", "Records that wait for the disk.")
        waiting.add_metric([], self._audit.waiting)
        pruned = CounterMetricFamily(
            "sojourn_journal_pruned", "Records that made room for others, since the database was made."
        )
        pruned.add_metric([], seen.pruned)
        lost = CounterMetricFamily("sojourn_journal_lost", "Records that were dropped, since too many waited.")
        lost.add_metric([], self._audit.lost)
        held = GaugeMetricFamily(
            "sojourn_journal_held_ratio", "Records that may not be pruned, to the bytes that the database may have."
        )
        held.add_metric([], self._pruning.room.held)
        full = GaugeMetricFamily(
            "sojourn_journal_full", "1 while the journal is full of records that may not be pruned: no token is given."
        )
        full.add_metric([], self._pruning.room.full)
        room = [held, full]
        return [failed, size, most, *self._disk(), records, oldest, waiting, pruned, lost, *room, *self._signed()]

    def _signed(self) -> list[Metric]:
        signed = self._signed_log
        tree = GaugeMetricFamily("sojourn_audit_log_size", "Records that the last checkpoint of the journal has.")
        tree.add_metric([], signed.state.size)
        at = GaugeMetricFamily(
            "sojourn_audit_log_checkpoint_timestamp_seconds",
            "When the last checkpoint of the journal was made, as Unix time; 0: none since the start.",
        )
        at.add_metric([], signed.signed_at)
        unsigned = GaugeMetricFamily("sojourn_audit_log_unsigned", "Records that no checkpoint of the journal has yet.")
        unsigned.add_metric([], signed.unsigned)
        failed = GaugeMetricFamily("sojourn_audit_log_failed", "1 while no checkpoint of the journal can be made.")
        failed.add_metric([], bool(signed.fault))
        return [tree, at, unsigned, failed]

    def _disk(self) -> list[Metric]:
        room = os.statvfs(self._folder)
        free = GaugeMetricFamily("sojourn_store_free_bytes", "Bytes that are free on the disk of the data folder.")
        free.add_metric([], room.f_bavail * room.f_frsize)
        whole = GaugeMetricFamily("sojourn_store_disk_bytes", "Bytes of the disk of the data folder in all.")
        whole.add_metric([], room.f_blocks * room.f_frsize)
        return [free, whole]
