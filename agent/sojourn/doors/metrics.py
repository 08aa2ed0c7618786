"""Prometheus metrics over HTTP."""

from collections.abc import Callable, Iterable

from prometheus_client import Gauge, start_http_server

from sojourn.errors import CannotStart

Gauges = Iterable[tuple[str, str, Callable[[], float]]]  # name, help, value


def start(listen: str, gauges: Gauges) -> None:
    """Serve all metrics on ADDRESS:PORT, these gauges among them. Raise CannotStart."""
    for name, text, value in gauges:
        Gauge(name, text).set_function(value)
    host, _, port = listen.rpartition(":")
    try:
        start_http_server(int(port), host.strip("[]"))
    except OSError as error:
        raise CannotStart(f"cannot listen for metrics on {listen}: {error.strerror}") from error
