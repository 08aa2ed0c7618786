"""The gRPC servers behind the doors."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from sojourn._pb.pool import POOL
from sojourn.doors.calls import Call, Calls, Method
from sojourn.doors.doorway import Doorway
from sojourn.errors import CannotStart, NotFound
from sojourn.limits import CALLS_UNSEEN, GRACE_SECONDS, METADATA_MAX_BYTES, STREAMS_PER_CONNECTION

HANDSHAKE_MS = 2_000


class InwardFolder:
    """The folder, ours alone, in which gRPC listens. Reached through a descriptor, so that its path may be long."""

    def __init__(self, folder: Path) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(folder, 0o700)
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def socket(self, name: str) -> Path:
        return Path(f"/proc/self/fd/{self._descriptor}/{name}")

    def close(self) -> None:
        os.close(self._descriptor)


class _Common:
    """What every gRPC server has. Health is without `Watch`, which would let anybody hold streams for nothing."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = reflection.aio.ReflectionServicer(services, pool=POOL)

    async def check(self, _call: Call, request: Any) -> Any:
        if request.service:
            raise NotFound("health is told of the agent as a whole: leave the service out")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    def reflect(self, call: Call, _request: None) -> Any:
        return self._services.ServerReflectionInfo(call.requests, None)


async def serve(
    inward: Path,
    services: dict[str, grpc.GenericRpcHandler],
    calls: Calls,
    *,
    message_max_bytes: int,
    reflects: bool = True,
) -> grpc.aio.Server:
    """Start a server on `inward` with these services, and by `calls` gRPC health and, if it `reflects`, reflection.

    Raise CannotStart.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
            ("grpc.max_metadata_size", METADATA_MAX_BYTES),
            ("grpc.absolute_max_metadata_size", METADATA_MAX_BYTES),
            ("grpc.max_receive_message_length", message_max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.so_reuseport", 0),
            ("grpc.server.max_pending_requests", CALLS_UNSEEN),
            ("grpc.server.max_pending_requests_hard_limit", 2 * CALLS_UNSEEN),
        ],
    )
    common = _Common([*services, health.SERVICE_NAME, reflection.SERVICE_NAME])
    methods = {
        health.SERVICE_NAME: {"Check": Method("unary", health_pb2.HealthCheckRequest, common.check)},
    }
    if reflects:
        methods[reflection.SERVICE_NAME] = {
            "ServerReflectionInfo": Method("bidi", reflection_pb2.ServerReflectionRequest, common.reflect)
        }
    _know([health_pb2.DESCRIPTOR.serialized_pb, reflection_pb2.DESCRIPTOR.serialized_pb])
    server.add_generic_rpc_handlers((*services.values(), *(calls.service(name, methods[name]) for name in methods)))
    if not server.add_insecure_port(f"unix:{inward}"):
        raise CannotStart(f"cannot listen on the inward socket {str(inward)!r}")
    os.chmod(inward, 0o600)
    await server.start()
    return server


async def end(door: Doorway[Any], server: grpc.aio.Server) -> None:
    """End a door's calls: those under way are answered, or find the connection closed, which means "come again"."""
    with suppress(TimeoutError):
        await door.hush()
    door.close()
    await server.stop(GRACE_SECONDS)


def _know(files: Iterable[bytes]) -> None:
    """Add the libraries' own services to our descriptor pool, so that reflection can show them."""
    for serialized in files:
        POOL.AddSerializedFile(serialized)
