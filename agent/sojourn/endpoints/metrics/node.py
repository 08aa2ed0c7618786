"""Metrics of a node: whether its server answers, how old what it has is, and what is near its end."""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sojourn.endpoints.admin.upstream import ToldNode


class NodeMetrics(Collector):
    """What a node tells of its server."""

    def __init__(self, node: ToldNode) -> None:
        self._node = node

    def collect(self) -> Iterable[Metric]:
        state = self._node.state
        up = GaugeMetricFamily("sojourn_node_server_up", "1 while a server answers this node.")
        refused = GaugeMetricFamily(
            "sojourn_node_refused",
            "1 while the server takes this agent for no node of its own: banned, or evicted.",
        )
        age = GaugeMetricFamily(
            "sojourn_node_sync_age_seconds", "How long ago this node had all as its server has it; none: never yet."
        )
        ends = GaugeMetricFamily(
            "sojourn_node_svid_not_after_seconds", "When the node's own SVID ends, as Unix time; none: it has none."
        )
        near = GaugeMetricFamily(
            "sojourn_node_svids_near_end", "X.509-SVIDs of workloads that should have been renewed by now."
        )
        left_out = GaugeMetricFamily(
            "sojourn_node_entries_left_out", "Entries that the server gives and that cannot be served."
        )
        up.add_metric([], float(state.away_seconds is None and state.spiffe_id is not None))
        refused.add_metric([], float(bool(state.refused)))
        if state.synced_seconds is not None:
            age.add_metric([], state.synced_seconds)
        if state.svid_ends is not None:
            ends.add_metric([], state.svid_ends.timestamp())
        near.add_metric([], state.svids_near_end)
        left_out.add_metric([], state.left_out)
        return [up, refused, age, ends, near, left_out]
