"""Of sojourn.v1.Admin: the providers outside, and how each fares; and the metrics of that."""

from functools import partial

from prometheus_client import Counter as Metric
from prometheus_client import Gauge, Histogram

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.credentials.circuit_breaker import CLOSED, HALF_OPEN, OPEN, Circuit
from sojourn.credentials.exchange_call import ExchangeCalls
from sojourn.credentials.index import Index
from sojourn.credentials.provider_routes import Outlet, ProviderRoutes
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.runtime.clock import Clock
from sojourn.tasks.engine import TaskEngine

EXCHANGES = Metric(
    "sojourn_provider_exchanges_total", "Exchanges with providers outside, by result.", ["provider", "result"]
)
SECONDS = Histogram(
    "sojourn_provider_exchange_seconds",
    "How long an exchange took, with what was waited and tried again.",
    ["provider"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
CIRCUIT = Gauge("sojourn_provider_circuit", "Whether a provider is asked: 0 closed, 1 half open, 2 open.", ["provider"])
_LEVELS = {CLOSED: 0, HALF_OPEN: 1, OPEN: 2}


class ProvidersApi:
    """For operators. Trying a provider out is another file's."""

    def __init__(
        self, engine: TaskEngine, outlets: ProviderRoutes, asking: ExchangeCalls, index: Index, clock: Clock
    ) -> None:
        self._engine = engine
        self._outlets = outlets
        self._index = index
        self._clock = clock
        asking.on_exchange(_count)
        for outlet in outlets.all():
            CIRCUIT.labels(outlet.name).set_function(partial(_level, outlet.circuit))

    def admin_methods(self) -> dict[str, Method]:
        return {"ListProviders": Method("unary", pb.ListProvidersRequest, self.list)}

    async def list(self, _call: Call, _request: pb.ListProvidersRequest) -> pb.ListProvidersResponse:
        return pb.ListProvidersResponse(providers=[self._message(outlet) for outlet in self._outlets.all()])

    def _message(self, outlet: Outlet) -> pb.Provider:
        circuit, until = outlet.circuit, 0
        if circuit.state == OPEN:
            until = int(self._clock.now().timestamp() + circuit.until - self._clock.boot())
        return pb.Provider(
            name=outlet.name,
            kind=outlet.provider.kind,
            recall=outlet.provider.recall,
            offline=outlet.provider.offline,
            circuit=circuit.state,
            fault=circuit.fault,
            exchanges=outlet.exchanges,
            failures=outlet.failures,
            held=self._index.held(outlet.name),
            residual=self._index.outliving(outlet.name),
            circuit_until=until,
            task_types=self._outlets.types_of(outlet.name, self._engine.types),
        )


def _level(circuit: Circuit) -> float:
    return _LEVELS[circuit.state]


def _count(provider: str, result: str, seconds: float) -> None:
    EXCHANGES.labels(provider, result).inc()
    SECONDS.labels(provider).observe(seconds)
