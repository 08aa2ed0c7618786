"""What the bench measures in services: what a task's token costs where it is checked, and on its way there."""

import asyncio
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from beside import Subject, alternate
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from figures import Figure, ratios
from ground import Bench
from harness.taskagent import PLACE_A
from httpload import Step, Work, http_load
from sojourn import Client, TaskVerifier
from sojourn.sdk.integrations.asgi import TaskTokenMiddleware
from tokenground import TokenGround, token_ground

# --- in the services ---


def validations(bench: Bench) -> Iterator[Figure]:
    """One core: this process's, with nothing beside it."""
    with token_ground() as site, site.client.task("docs") as task:
        token = task.token(PLACE_A).token
        fresh = [
            [task.token(PLACE_A).token for _ in range(bench.effort.calls)] for _ in range(bench.effort.repetitions)
        ]
        first, verified, bare = asyncio.run(_validated(bench, site, token, fresh))
    yield Figure.of("task tokens that the SDK's verifier sees for the first time", "1/s", first)
    yield Figure.of("one again and again", "1/s", verified)
    yield Figure.of("a bare ES256 verification", "1/s", bare)
    yield Figure.of("share of the bare rate, first time", "%", [100 * each for each in ratios(first, bare)])
    yield Figure.of("share of the bare rate, again", "%", [100 * each for each in ratios(verified, bare)])


async def _first_seen(verifier: TaskVerifier, fresh: list[str]) -> float:
    begun = perf_counter()
    for each in fresh:
        await verifier.verify(each, "doc:read")
    return len(fresh) / (perf_counter() - begun)


async def _validated(
    bench: Bench, site: TokenGround, token: str, fresh: list[list[str]]
) -> tuple[list[float], list[float], list[float]]:
    key = ec.generate_private_key(ec.SECP256R1())
    message = token.rpartition(".")[0].encode()
    signature, public = key.sign(message, ec.ECDSA(hashes.SHA256())), key.public_key()
    first, verified, bare = [], [], []
    async with Client(site.agent.socket) as client, TaskVerifier(client, PLACE_A) as verifier:
        await verifier.verify(token, "doc:read")
        for batch in fresh:
            first.append(await _first_seen(verifier, batch))
            count, begun = 0, perf_counter()
            while perf_counter() < begun + bench.effort.seconds:
                for _ in range(50):
                    await verifier.verify(token, "doc:read")
                count += 50
            verified.append(count / (perf_counter() - begun))
            count, begun = 0, perf_counter()
            while perf_counter() < begun + bench.effort.seconds:
                for _ in range(50):
                    public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
                count += 50
            bare.append(count / (perf_counter() - begun))
    return first, verified, bare


async def _application(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def middleware(bench: Bench) -> Iterator[Figure]:
    with token_ground() as site, site.client.task("docs") as task:
        with_it, without = asyncio.run(_asked(bench, site, task.token(PLACE_A).token))
    yield Figure.of("a request through the ASGI middleware", "µs", with_it)
    yield Figure.of("the same without it", "µs", without)
    yield Figure.of("added", "µs", [a - b for a, b in zip(with_it, without, strict=True)])


async def _asked(bench: Bench, site: TokenGround, token: str) -> tuple[list[float], list[float]]:
    scope = {
        "type": "http", "method": "GET", "path": "/docs/1", "raw_path": b"/docs/1", "query_string": b"",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
    }  # fmt: skip
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if "status" in message:
            statuses.append(message["status"])

    async def took(application: Any) -> float:
        begun = perf_counter()
        for _ in range(bench.effort.calls * 4):
            await application(dict(scope), receive, send)
        return (perf_counter() - begun) / (bench.effort.calls * 4) * 1e6

    with_it, without = [], []
    async with Client(site.agent.socket) as client, TaskVerifier(client, PLACE_A) as verifier:
        guarded = TaskTokenMiddleware(_application, actions={"GET /docs/{doc}": "doc:read"}, verifier=verifier)
        await took(guarded)
        for _ in range(bench.effort.repetitions):
            with_it.append(await took(guarded))
            without.append(await took(_application))
    if set(statuses) != {200}:
        raise RuntimeError(f"requests were answered {set(statuses)}")
    return with_it, without


# --- out of a task ---


def proxy(bench: Bench) -> Iterator[Figure]:
    """A request of a command, over one kept connection: to the service itself, and through its task's proxy."""
    with (
        Answering() as service,
        token_ground(service.url) as site,
        site.client.task("docs") as task,
        task.proxy() as out,
    ):
        parts = urlsplit(out.url)
        secret = b64encode(f"{parts.username}:{parts.password}".encode()).decode()
        asked = Step("/docs/1", want="ok", headers=(), method="GET")
        sent = Step(f"{service.url}/docs/1", want="ok", headers=(f"Proxy-Authorization: Basic {secret}",), method="GET")
        through, direct = Subject("through", {}), Subject("direct", {})
        works = {
            through.name: Work(f"http://{parts.hostname}:{parts.port}", [sent]),
            direct.name: Work(service.url, [asked]),
        }
        with http_load(works, 1) as load:
            load(through, bench.effort.seconds)
            runs = alternate([through, direct], bench.effort.repetitions, lambda each: load(each, bench.effort.seconds))
    for name, each in runs.items():
        if any(run.failed for run in each):
            raise RuntimeError(f"requests, {name}, were refused: {each[0].failed}")
    took = {name: [run.p50_ms for run in each] for name, each in runs.items()}
    yield Figure.of("a request through the proxy: p50", "ms", took["through"])
    yield Figure.of("the same without it: p50", "ms", took["direct"])
    yield Figure.of("added", "ms", [a - b for a, b in zip(took["through"], took["direct"], strict=True)])


class Answering:
    """A service of few words, in a process of its own. Use as a context manager."""

    _PROGRAM = """
import asyncio
async def serve(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

    def __enter__(self) -> "Answering":
        self._process = subprocess.Popen([sys.executable, "-c", self._PROGRAM], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


TOKEN_LINES = (
    (16, "validation in a service", validations),
    (17, "the ASGI middleware", middleware),
    (18, "the egress proxy of a task", proxy),
)
