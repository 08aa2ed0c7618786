"""What the doors serve by gRPC."""

from collections.abc import Iterable, Mapping
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from sojourn._pb.pool import POOL
from sojourn.endpoints.grpc.calls import Call, Calls, Method
from sojourn.errors import NotFound
from sojourn.http2.server import Handler, Server
from sojourn.limits import REQUESTS_HELD_BYTES
from sojourn.quota.turns import Paces, Turns
from sojourn.quota.usage import Held
from sojourn.runtime.readiness import CONDITIONS, Readiness, State, state_of

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].full_name


class _Common:
    """What every server has. Health is without `Watch`, which would let anybody hold streams for nothing."""

    def __init__(self, services: Iterable[str], readiness: Readiness) -> None:
        self._services = list(services)
        self._readiness = readiness
        self._reflection: Any = None

    async def check(self, _call: Call, request: Any) -> Any:
        """Tell of the agent as a whole, or of one condition of its readiness by name."""
        if request.service and request.service not in CONDITIONS:
            raise NotFound(
                "health is told of the agent as a whole, without a service; or of one of " + ", ".join(CONDITIONS)
            )
        failing = {fault.name for fault in self._readiness.faults()}
        serves = request.service not in failing if request.service else state_of(failing) is not State.UNREADY
        answer = health_pb2.HealthCheckResponse
        return answer(status=answer.SERVING if serves else answer.NOT_SERVING)

    def reflect(self, call: Call, _request: None) -> Any:
        if self._reflection is None:
            # With it comes the whole of grpcio, which nothing else in the agent needs: for those who ask.
            from grpc_reflection.v1alpha import reflection

            self._reflection = reflection.aio.ReflectionServicer(self._services, pool=POOL)
        return self._reflection.ServerReflectionInfo(call.requests, None)


def serve(
    services: Mapping[str, Mapping[str, Handler]],
    calls: Calls,
    readiness: Readiness,
    *,
    message_max_bytes: int,
    reflects: bool = True,
    health: bool = True,
    turns: Turns | None = None,
) -> Server:
    """A server of these services, and by `calls` of gRPC health if it tells of its `health`, and, if it `reflects`,
    reflection.

    `readiness`: what health tells. `turns`: those in which its connections are read; None: some of their own.
    """
    common = _Common([*services, HEALTH, REFLECTION], readiness)
    checked = Method("unary", health_pb2.HealthCheckRequest, common.check)
    methods = {HEALTH: {"Check": checked}} if health else {}
    if reflects:
        methods[REFLECTION] = {
            "ServerReflectionInfo": Method("bidi", reflection_pb2.ServerReflectionRequest, common.reflect)
        }
    for library in (health_pb2, reflection_pb2):  # so that reflection can show their services too
        POOL.AddSerializedFile(library.DESCRIPTOR.serialized_pb)
    made = [*services.values(), *(calls.service(name, methods[name]) for name in methods)]
    handlers = {path: handler for service in made for path, handler in service.items()}
    return Server(
        handlers,
        message_max=message_max_bytes,
        turns=turns or Turns(),
        paces=Paces(),
        held=Held(REQUESTS_HELD_BYTES),
    )
