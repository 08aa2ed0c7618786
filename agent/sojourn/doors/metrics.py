"""Prometheus metrics over HTTP."""

from prometheus_client import Gauge, start_http_server

from sojourn.errors import CannotStart
from sojourn.identity.identities import Identities
from sojourn.identity.issuing import Issuing
from sojourn.identity.registry import Registry
from sojourn.tasks.engine import TaskEngine


def start(listen: str, registry: Registry, identities: Identities, issuing: Issuing, engine: TaskEngine) -> None:
    """Serve metrics at ADDRESS:PORT. Raise CannotStart."""
    for name, text, value in (
        ("sojourn_entries", "Registration entries.", lambda: len(registry)),
        ("sojourn_streams", "Open streams.", lambda: len(identities.streams)),
        ("sojourn_x509_svids", "X.509-SVIDs in use.", lambda: len(issuing.x509.kept())),
        ("sojourn_tasks_live", "Live tasks.", lambda: len(engine.tasks)),
        ("sojourn_validators", "Validators that watch.", lambda: len(engine.feed)),
    ):
        Gauge(name, text).set_function(value)
    host, _, port = listen.rpartition(":")
    try:
        start_http_server(int(port), host.strip("[]"))
    except OSError as error:
        raise CannotStart(f"cannot listen for metrics on {listen}: {error.strerror}") from error
