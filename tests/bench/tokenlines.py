"""What the bench measures of the token service and of what its tokens guard, beside a Keycloak if one is there.

The load (load.py) comes from this process, the same for both servers, and has its share of the machine.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from figures import Figure, ratios
from ground import FULL, TRIAGE, Admin, Bench, entry
from harness.agent import AgentProcess
from harness.exchanges import form
from harness.taskagent import CONFIG, ISSUER, PLACE_A, write_type
from harness.taskagent import TRIAGE as TRIAGE_ID
from load import Load, run
from processes import cpu_seconds
from sojourn import Client, SyncClient, TaskVerifier
from sojourn.sdk.asgi import TaskTokenMiddleware

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
SPIFFE_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
CONNECTIONS = (1, 8)
TYPE = (
    f"""
allowed_workloads = ["{TRIAGE_ID}"]
max_duration = "1h"
[[ceiling]]
resource = "{PLACE_A}"
actions = ["doc:read", "doc:write"]
""",
    '@id("all") permit (principal, action, resource);',
)
KEYCLOAK = "SOJOURN_BENCH_KEYCLOAK"


@dataclass
class Runs:
    """What came of one load, once for each repetition."""

    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # of the server, milliseconds for each request

    def figures(self, what: str) -> Iterator[Figure]:
        yield Figure.of(what, "1/s", self.rate)
        yield Figure.of(f"{what}: p50", "ms", self.p50)
        yield Figure.of(f"{what}: p99", "ms", self.p99)
        yield Figure.of(f"{what}: CPU of the server", "ms", self.cpu)


def loaded(pid: int, seconds: float, body: str, **load: Any) -> dict[str, float]:
    """Put a load on the server `pid`. Raise RuntimeError if it refuses anything."""
    before = cpu_seconds(pid)
    told = run(Load(bodies=[body], seconds=seconds, **load))
    if told["refused"]:
        raise RuntimeError(f"{told['refused']} of {told['number']} were refused: {told['refusal']}")
    return {**told, "cpu": (cpu_seconds(pid) - before) * 1000 / told["number"]}


def repeated(bench: Bench, pid: int, body: Callable[[], str], **load: Any) -> Runs:
    runs = Runs()
    loaded(pid, bench.effort.seconds / 2, body(), **load)  # warm
    for _ in range(bench.effort.repetitions):
        told = loaded(pid, bench.effort.seconds, body(), **load)
        for name in ("rate", "p50", "p99", "cpu"):
            getattr(runs, name).append(told[name])
    return runs


@dataclass(frozen=True)
class Ground:
    agent: AgentProcess
    client: SyncClient
    roots: str
    pair: str

    @property
    def https(self) -> str:
        return f"https://localhost:{self.agent.https.rpartition(':')[2]}"


@contextmanager
def ground(resource: str = PLACE_A) -> Iterator[Ground]:
    """An agent with an HTTPS listener whose certificate is a web server's, and a task type for `resource`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate, key = folder / "web.pem", folder / "web.key"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-subj", "/CN=localhost", "-days", "2", "-addext", "subjectAltName=DNS:localhost"]
        subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True, timeout=30)
        listen = f'\n[listen]\nhttps = "127.0.0.1:0"\nhttps_certificate = "{certificate}"\nhttps_key = "{key}"\n'
        listen += f'[[services]]\nresource = "{PLACE_A}"\nworkloads = ["{TRIAGE_ID}"]\n'
        agent = AgentProcess(config=CONFIG.format(level="warning") + listen)
        types = agent.folder / "types"
        types.mkdir()
        write_type(types, "docs", TYPE[0].replace(PLACE_A, resource), TYPE[1])
        with agent, Admin(agent.admin_socket) as admin, SyncClient(agent.socket) as client:
            admin.create([entry(TRIAGE)])
            agent.run("svid", "x509", "--write", str(folder))
            pair = folder / "pair.pem"
            pair.write_bytes(b"".join((folder / each).read_bytes() for each in ("svid.0.pem", "svid.0.key")))
            yield Ground(agent, client, str(certificate), str(pair))


def _bare(site: Ground) -> str:
    """An exchange of a JWT-SVID, which begins a task of its own."""
    details = json.dumps([{"type": "docs", "actions": ["doc:read"], "locations": [PLACE_A]}])
    subject = site.client.fetch_jwt_svid(ISSUER).token
    return urlencode(form(subject, audience=PLACE_A, authorization_details=details))


def _narrower(site: Ground) -> str:
    """An exchange of a task's own token for a narrower one, as clients of other servers do it again and again."""
    task = site.client.begin_task("docs")
    return urlencode(
        {
            "grant_type": EXCHANGE,
            "subject_token": task.token(PLACE_A).token,
            "subject_token_type": ACCESS_TOKEN,
            "resource": PLACE_A,
            "scope": "doc:read",
        }
    )


def over_the_socket(bench: Bench) -> Iterator[Figure]:
    with ground() as site:
        load = {"url": "http://localhost/token", "socket": site.agent.socket, "want": "access_token"}
        for what, body in (("exchange of an access token", _narrower), ("bare exchange of a JWT-SVID", _bare)):
            for connections in CONNECTIONS:
                made = repeated(bench, site.agent.pid, partial(body, site), connections=connections, **load)
                yield from made.figures(f"{what}, {connections} connections")


def over_tls(bench: Bench) -> Iterator[Figure]:
    with ground() as site:
        load = {"url": f"{site.https}/token", "roots": site.roots, "pair": site.pair, "want": "access_token"}
        details = json.dumps([{"type": "docs", "actions": ["doc:read"], "locations": [PLACE_A]}])
        body = urlencode({"grant_type": "client_credentials", "authorization_details": details})
        for connections in CONNECTIONS:
            made = repeated(bench, site.agent.pid, lambda: body, connections=connections, **load)
            yield from made.figures(f"client_credentials, {connections} connections")


def introspections(bench: Bench) -> Iterator[Figure]:
    with ground() as site, site.client.task("docs") as task:
        body = urlencode({"token": task.token(PLACE_A).token})
        load = {"url": "http://localhost/introspect", "socket": site.agent.socket, "want": '"active":true'}
        for connections in CONNECTIONS:
            made = repeated(bench, site.agent.pid, lambda: body, connections=connections, **load)
            yield from made.figures(f"introspection, {connections} connections")


# --- in the services ---


def validations(bench: Bench) -> Iterator[Figure]:
    """One core: this process's, with nothing beside it."""
    with ground() as site, site.client.task("docs") as task:
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
    bench: Bench, site: Ground, token: str, fresh: list[list[str]]
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
    with ground() as site, site.client.task("docs") as task:
        with_it, without = asyncio.run(_asked(bench, site, task.token(PLACE_A).token))
    yield Figure.of("a request through the ASGI middleware", "µs", with_it)
    yield Figure.of("the same without it", "µs", without)
    yield Figure.of("added", "µs", [a - b for a, b in zip(with_it, without, strict=True)])


async def _asked(bench: Bench, site: Ground, token: str) -> tuple[list[float], list[float]]:
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
    with Answering() as service, ground(service.url) as site, site.client.task("docs") as task, task.proxy() as out:
        parts = urlsplit(out.url)
        secret = b64encode(f"{parts.username}:{parts.password}".encode()).decode()
        direct = {"url": f"{service.url}/docs/1", "want": "200 OK", "connections": 1, "method": "GET"}
        through = {
            **direct,
            "url": f"http://{parts.hostname}:{parts.port}/",
            "target": f"{service.url}/docs/1",
            "headers": [f"Proxy-Authorization: Basic {secret}"],
        }
        took: dict[str, list[float]] = {"direct": [], "through": []}
        with ProcessPoolExecutor(1, get_context("spawn")) as command:  # the proxy has this process to itself

            def p50(**load: Any) -> float:
                told = command.submit(run, Load(bodies=[""], seconds=bench.effort.seconds, **load)).result()
                if told["refused"]:
                    raise RuntimeError(f"{told['refused']} were refused: {told['refusal']}")
                return float(told["p50"])

            p50(**through)
            for _ in range(bench.effort.repetitions):
                took["direct"].append(p50(**direct))
                took["through"].append(p50(**through))
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


# --- beside Keycloak ---


@dataclass
class Keycloak:
    """One that runs on this machine, with a realm in which a JWT-SVID is a client's credential."""

    folder: Path
    pid: int
    token_url: str

    @classmethod
    def find(cls) -> "Keycloak | None":
        """That in the folder which SOJOURN_BENCH_KEYCLOAK names, with its pid and with what makes JWT-SVIDs for it."""
        if not (name := os.environ.get(KEYCLOAK)):
            return None
        folder = Path(name)
        pid = _java_of(int((folder / "kc.pid").read_text()))
        url = os.environ.get(f"{KEYCLOAK}_URL", "http://127.0.0.1:18080/realms/sj/protocol/openid-connect/token")
        return cls(folder, pid, url)

    def token(self) -> str:
        """A token to exchange: it lives five minutes."""
        with urlopen(
            self.token_url, urlencode({"grant_type": "client_credentials", **self._client}).encode()
        ) as answer:
            token: str = json.load(answer)["access_token"]
        return token

    def body(self) -> str:
        fields = {"grant_type": EXCHANGE, "subject_token_type": ACCESS_TOKEN, "audience": "svc-b", **self._client}
        return urlencode({**fields, "subject_token": self.token()})

    @cached_property
    def _client(self) -> dict[str, str]:
        command = [sys.executable, self.folder / "svid.py", "mint", "spiffe://sj.test/agent"]
        command += [self.token_url.partition("/protocol/")[0], "3600"]
        svid = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
        return {"client_assertion_type": SPIFFE_ASSERTION, "client_assertion": svid}


def _java_of(pid: int) -> int:
    """The server itself: the script that starts it may have stayed as its parent."""
    for each in Path("/proc").glob("[0-9]*/stat"):
        fields = each.read_text().rpartition(")")
        if int(fields[2].split()[1]) == pid and "java" in fields[0]:
            return int(each.parent.name)
    return pid


def beside_keycloak(bench: Bench) -> Iterator[Figure | str]:
    keycloak = Keycloak.find()
    if keycloak is None:
        yield f"no Keycloak: name the folder in which one was started (kc.pid, svid.py) in {KEYCLOAK}"
        return
    there = {"url": keycloak.token_url, "want": "access_token"}
    loaded(
        keycloak.pid, 25 if bench.effort is FULL else 5, keycloak.body(), connections=8, **there
    )  # a cold one is slow
    for connections in CONNECTIONS:
        theirs = repeated(bench, keycloak.pid, keycloak.body, connections=connections, **there)
        with ground() as site:
            here = {"url": "http://localhost/token", "socket": site.agent.socket, "want": "access_token"}
            ours = repeated(bench, site.agent.pid, partial(_narrower, site), connections=connections, **here)
        yield from theirs.figures(f"Keycloak: exchange of its access token, {connections} connections")
        yield from ours.figures(f"ours: exchange of an access token, {connections} connections")
        yield Figure.of(f"rate, ours to Keycloak's, {connections} connections", "x", ratios(ours.rate, theirs.rate))
        yield Figure.of(f"CPU of one, ours to Keycloak's, {connections} connections", "x", ratios(ours.cpu, theirs.cpu))


TOKEN_LINES = (
    (13, "token service over the Unix socket", over_the_socket),
    (14, "token service over mutual TLS", over_tls),
    (15, "introspection", introspections),
    (16, "validation in a service", validations),
    (17, "the ASGI middleware", middleware),
    (18, "the egress proxy of a task", proxy),
    (19, "token exchange beside Keycloak", beside_keycloak),
)
