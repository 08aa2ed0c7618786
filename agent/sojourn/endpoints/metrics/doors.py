"""Metrics of who comes: connections, those that were refused, and callers of whom nothing was proved."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sojourn.endpoints.listener.protocol_switch import Doorway
from sojourn.endpoints.listener.refusals import Refusal
from sojourn.identity.identities import Identities

REFUSED: Final = Counter(
    "sojourn_callers_refused_total",
    "Connections that were closed before any call was answered, by door and reason.",
    ["door", "reason"],
)
NO_IDENTITY: Final = Counter("sojourn_no_identity_total", "Calls of processes that have no identity.")


def count_no_identity(identities: Identities) -> None:
    """Count from now on."""
    identities.on_no_identity(NO_IDENTITY.inc)


class DoorMetrics(Collector):
    """The sockets `workload` and `admin`, and the listeners for other machines by their names."""

    def __init__(self) -> None:
        self._doors: dict[str, Doorway[Any]] = {}

    def follow(self, doors: Mapping[str, Doorway[Any]]) -> None:
        """Count at these doors from now on."""
        for name, door in doors.items():
            self._doors[name] = door
            for reason in Refusal:
                REFUSED.labels(name, reason)
            door.on_refused(partial(_count, name))

    def collect(self) -> Iterable[Metric]:
        connections = GaugeMetricFamily("sojourn_connections", "Open connections, by door.", labels=["door"])
        for name, door in dict(self._doors).items():
            connections.add_metric([name], door.connections)
        return [connections]


def _count(door: str, reason: Refusal) -> None:
    REFUSED.labels(door, reason).inc()
