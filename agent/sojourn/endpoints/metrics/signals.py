"""Metrics of the issuers of signed events whose events are fetched."""

from collections.abc import Collection, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sojourn.ssf.receiver import Issuer


class SignalMetrics(Collector):
    """By issuer, of which the configuration has a few. A thread collects, and may miss what is being counted."""

    def __init__(self, issuers: Collection[Issuer]) -> None:
        self._issuers = issuers

    def collect(self) -> Iterable[Metric]:
        polls = CounterMetricFamily(
            "sojourn_signal_polls", "Polls of a transmitter of signed events, by issuer.", labels=["issuer"]
        )
        failures = CounterMetricFamily(
            "sojourn_signal_poll_failures", "Polls of a transmitter that failed, by issuer.", labels=["issuer"]
        )
        last = GaugeMetricFamily(
            "sojourn_signal_poll_last_success_timestamp_seconds",
            "When a transmitter was polled well last, by issuer; 0: not in this run.",
            labels=["issuer"],
        )
        for each in self._issuers:
            if (state := each.polled) is not None:
                issuer = [each.rules.issuer]
                polls.add_metric(issuer, state.polls)
                failures.add_metric(issuer, state.failures)
                last.add_metric(issuer, 0 if state.last_at is None else state.last_at.timestamp())
        return [polls, failures, last]
