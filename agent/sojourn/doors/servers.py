"""The gRPC servers behind the doors."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from sojourn._pb.pool import POOL
from sojourn.doors.door import Door
from sojourn.errors import CannotStart
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


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # the library is not typed
    """Health without `Watch`, which would let anybody hold streams for nothing (SPIRE has none either)."""

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802  # gRPC's name
        del request
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "ask with Check")


async def serve(
    inward: Path, services: dict[str, grpc.GenericRpcHandler], *, message_max_bytes: int
) -> grpc.aio.Server:
    """Start a server on `inward` with these services, gRPC health and reflection. Raise CannotStart."""
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
    server.add_generic_rpc_handlers(tuple(services.values()))
    state = _Health()
    await state.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    names = [*services, health.SERVICE_NAME, reflection.SERVICE_NAME]
    _know([health_pb2.DESCRIPTOR.serialized_pb, reflection_pb2.DESCRIPTOR.serialized_pb])
    reflection.enable_server_reflection(names, server, pool=POOL)
    if not server.add_insecure_port(f"unix:{inward}"):
        raise CannotStart(f"cannot listen on the inward socket {str(inward)!r}")
    os.chmod(inward, 0o600)
    await server.start()
    return server


async def end(door: Door, server: grpc.aio.Server) -> None:
    """End a door's calls: those under way are answered, or find the connection closed, which means "come again"."""
    with suppress(TimeoutError):
        await door.hush()
    door.close()
    await server.stop(GRACE_SECONDS)


def _know(files: Iterable[bytes]) -> None:
    """Add the libraries' own services to our descriptor pool, so that reflection can show them."""
    for serialized in files:
        POOL.AddSerializedFile(serialized)
