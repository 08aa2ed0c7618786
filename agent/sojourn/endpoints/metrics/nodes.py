"""Metrics of a server: its nodes."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sojourn.server.nodes import Nodes


class NodesMetrics(Collector):
    """How many nodes there are."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def collect(self) -> Iterable[Metric]:
        nodes = GaugeMetricFamily(
            "sojourn_nodes", "Nodes of this server that are not banned, by how they were attested.", labels=["attestor"]
        )
        banned = GaugeMetricFamily("sojourn_nodes_banned", "Nodes of this server that are banned.")
        counts = Counter(each.attestor for each in self._nodes if not each.banned)
        for attestor, count in counts.items():
            nodes.add_metric([attestor], count)
        banned.add_metric([], sum(each.banned for each in self._nodes))
        return [nodes, banned]
