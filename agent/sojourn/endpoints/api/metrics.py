"""Prometheus metrics over HTTP, for whoever reaches the address: so few connections, each for a while, and one answer
at a time. Whoever asks without end keeps nobody waiting but others who ask for metrics.

`/livez` says that the agent turns, `/readyz` whether it is ready and which conditions do not hold; any other path has
the metrics.
"""

import asyncio
from collections.abc import Callable, Iterable

from prometheus_client import REGISTRY, Gauge, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sojourn.errors import CannotStart
from sojourn.http2.limits import METADATA_MAX_BYTES
from sojourn.limits import METRICS_CONNECTIONS, METRICS_SECONDS
from sojourn.runtime.readiness import Readiness, State, state_of

Gauges = Iterable[tuple[str, str, Callable[[], float]]]  # name, help, value
_OK, _UNAVAILABLE = "200 OK", "503 Service Unavailable"
_GONE = (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


async def start(listen: str, gauges: Gauges, collectors: Iterable[Collector], readiness: Readiness) -> "Metrics":
    """Serve all metrics on ADDRESS:PORT, these gauges and collectors among them, and readiness. Raise CannotStart.

    Without the times at which each counter was made: they would be half of all lines.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as the library has it
    for collector in collectors:
        REGISTRY.register(collector)
    for name, text, value in gauges:
        Gauge(name, text).set_function(value)
    made = Metrics(readiness)
    await made.open(listen)
    return made


class Metrics:
    """The listener. Each connection is for one request."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, None] = {}  # the oldest first
        self._turn = asyncio.Lock()

    async def open(self, listen: str) -> None:
        """Raise CannotStart."""
        host, _, port = listen.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._connected, host.strip("[]"), int(port), limit=METADATA_MAX_BYTES
            )
        except OSError as error:
            raise CannotStart(f"cannot listen for metrics on {listen}: {error.strerror}") from error

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for each in tuple(self._connections):
            each.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= METRICS_CONNECTIONS:  # the last that came may be the one who is meant to come
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.transport.abort()
        self._connections[writer] = None
        try:
            async with asyncio.timeout(METRICS_SECONDS):
                await self._answer(reader, writer)
        except _GONE:
            writer.transport.abort()
        finally:
            self._connections.pop(writer, None)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        path = first[4:].split(b" ")[0].split(b"?")[0]
        if first.startswith(b"GET ") and path in {b"/livez", b"/readyz"}:
            status, text = (_OK, "alive\n") if path == b"/livez" else _ready(self._readiness)
            head, content = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n", text.encode()
        elif first.startswith(b"GET "):
            accepted = (line[7:].decode("latin-1") for line in lines if line[:7].lower() == b"accept:")
            async with self._turn:
                kind, content = await asyncio.to_thread(_metrics, ",".join(accepted))
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n"
        else:
            head, content = "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\n", b""
        writer.transport.set_write_buffer_limits(0)
        writer.write(f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content)
        await writer.drain()


def _ready(readiness: Readiness) -> tuple[str, str]:
    """Status and text of /readyz: the state, then a line for each condition that does not hold."""
    faults = readiness.faults()
    state = state_of(fault.name for fault in faults)
    lines = [str(state), *(f"{fault.name}: {fault.said}" for fault in faults)]
    return _UNAVAILABLE if state is State.UNREADY else _OK, "\n".join(lines) + "\n"


def _metrics(accepted: str) -> tuple[str, bytes]:
    """Their media type and text, as a scraper wants them."""
    try:
        encode, kind = choose_encoder(accepted)
    except Exception:  # noqa: BLE001  # hostile input: whatever the library raises of a version that is none
        encode, kind = choose_encoder("")
    return kind, encode(REGISTRY)
