"""Prometheus metrics over HTTP."""

from collections.abc import Callable, Iterable

from prometheus_client import REGISTRY, Gauge, start_http_server
from prometheus_client.registry import Collector

from sojourn.errors import CannotStart

Gauges = Iterable[tuple[str, str, Callable[[], float]]]  # name, help, value


def start(listen: str, gauges: Gauges, collectors: Iterable[Collector] = ()) -> None:
    """Serve all metrics on ADDRESS:PORT, these gauges and collectors among them. Raise CannotStart."""
    for collector in collectors:
        REGISTRY.register(collector)
    for name, text, value in gauges:
        Gauge(name, text).set_function(value)
    host, _, port = listen.rpartition(":")
    try:
        start_http_server(int(port), host.strip("[]"))
    except OSError as error:
        raise CannotStart(f"cannot listen for metrics on {listen}: {error.strerror}") from error
