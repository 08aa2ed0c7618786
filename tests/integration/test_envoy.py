"""Real Envoys on the samples of deploy/envoy, with their secrets from the real agent."""

import http.client
import itertools
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fakes.ca import FakeCa
from harness.agent import AgentProcess, clean_environment
from harness.envoy import AGENT_SOCKET, SAMPLES, Envoy, find_envoy, placed, sample
from harness.looking import until
from harness.ports import free_port
from harness.raw import Admin, Wire, module_agent
from harness.sds import fetch, roots, secrets_of

pytestmark = [pytest.mark.full, pytest.mark.timeout(240)]

DOMAIN = "spiffe://example.org"
SERVER, CLIENT, OTHER = f"{DOMAIN}/envoy/server", f"{DOMAIN}/envoy/client", f"{DOMAIN}/other"
TTL_SECONDS = 10
UIDS = itertools.count(5901)
FOLDERS = itertools.count()


@dataclass
class Ground:
    """An agent, and two Envoys' programs, each registered by its path."""

    agent: AgentProcess
    admin: Admin
    server: Path
    client: Path

    def folder(self) -> Path:
        return self.agent.folder / f"envoy-{next(FOLDERS)}"

    def server_config(self, port: int, *changes: tuple[str, str]) -> str:
        return sample(
            "server.yaml", (AGENT_SOCKET, self.agent.socket), ("port_value: 8443", f"port_value: {port}"), *changes
        )

    def client_config(self, port: int, server_port: int, *changes: tuple[str, str]) -> str:
        return sample(
            "client.yaml",
            (AGENT_SOCKET, self.agent.socket),
            ("port_value: 8443", f"port_value: {server_port}"),
            ("port_value: 8080", f"port_value: {port}"),
            *changes,
        )


@pytest.fixture(scope="module")
def program() -> Path:
    return find_envoy()


@pytest.fixture(scope="module")
def ground(program: Path) -> Iterator[Ground]:
    """Envoys have certificates of ten seconds; whoever runs these tests is /envoy/client and /other."""
    with module_agent() as agent, Admin(agent.admin_socket) as admin:
        made = Ground(agent, admin, *(placed(program, agent.folder / name) for name in ("server", "client")))
        uid = f"unix:uid:{os.getuid()}"
        admin.register("/envoy/server", uid, f"unix:path:{made.server}", x509_svid_ttl=TTL_SECONDS)
        admin.register("/envoy/client", uid, f"unix:path:{made.client}", x509_svid_ttl=TTL_SECONDS)
        admin.register("/envoy/client", uid)
        admin.register("/other", uid)
        yield made
        until(lambda: not admin.streams())


@dataclass
class Answer:
    """What a client of the server-side Envoy saw."""

    status: int
    caller: str | None
    server_ids: list[str] = field(default_factory=list)


def call(port: int, context: ssl.SSLContext) -> Answer:
    """One request to a mutual TLS port. Raise OSError when that is refused."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        connection.connect()
        der = connection.sock.getpeercert(binary_form=True)  # type: ignore[attr-defined]  # it is an SSLSocket
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        return Answer(response.status, response.getheader("x-caller"), uris)
    finally:
        connection.close()


def context(agent: AgentProcess, folder: Path, spiffe_id: str | None) -> ssl.SSLContext:
    """A client's TLS context with the agent's roots, and the certificate of one of this process's IDs, or none."""
    with Wire(agent.socket) as wire:
        found = secrets_of(fetch(wire, "ROOTCA", *([spiffe_id] if spiffe_id else [])))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(cadata=roots(found["ROOTCA"])["example.org"][0].public_bytes(Encoding.PEM).decode())
    if spiffe_id:
        own = found[spiffe_id].tls_certificate
        pair = folder / "pair.pem"
        pair.write_bytes(own.private_key.inline_bytes + own.certificate_chain.inline_bytes)
        made.load_cert_chain(pair)
    return made


@pytest.mark.parametrize("name", ["server.yaml", "client.yaml"])
def test_sample_is_valid(program: Path, name: str) -> None:
    """Envoy finds nothing wrong, and nothing deprecated, with a sample as it is shipped."""
    arguments = ["--mode", "validate", "-c", str(SAMPLES / name), "--disable-hot-restart", "-l", "warning"]
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False, env=clean_environment()
    )
    assert (0, f"configuration '{SAMPLES / name}' OK\n", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(("api", "bundle"), [("GRPC", "ROOTCA"), ("DELTA_GRPC", "ROOTCA"), ("GRPC", "ALL")])
def test_mutual_tls(ground: Ground, tmp_path: Path, api: str, bundle: str) -> None:
    """An Envoy on SDS shows its SPIFFE ID, lets in whom it is told to, and knows who that is; by both kinds of stream."""
    port = free_port()
    changes = ("api_type: GRPC", f"api_type: {api}"), ("name: ROOTCA", f"name: {bundle}")
    config = ground.server_config(port, *changes)
    with Envoy(ground.server, config, ground.folder()):
        answer = call(port, context(ground.agent, tmp_path, CLIENT))
        assert Answer(200, CLIENT, [SERVER]) == answer
        for stranger in (None, OTHER):
            with pytest.raises(OSError):
                call(port, context(ground.agent, tmp_path, stranger))
        with pytest.raises(OSError):
            call(port, forged(ground.agent, tmp_path))


def forged(agent: AgentProcess, folder: Path) -> ssl.SSLContext:
    """A client's context with a certificate for the right SPIFFE ID by somebody else's CA."""
    svid = FakeCa.make().svid("/envoy/client")
    made = context(agent, folder, None)
    key = svid.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pair = folder / "forged.pem"
    pair.write_bytes(key + b"".join(each.public_bytes(Encoding.PEM) for each in svid.chain))
    made.load_cert_chain(pair)
    return made


class Traffic:
    """Requests one after the other to a plain port. Use as a context manager."""

    def __init__(self, port: int) -> None:
        self.serials: list[str] = []
        self.answered = 0
        self.failed: list[str] = []
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                told = (response.status, response.getheader("x-caller"))
                serial = response.getheader("x-caller-serial")
                if told != (200, CLIENT) or serial is None:
                    self.failed.append(f"{told} {response.read()!r}")
                    continue
                response.read()
                self.answered += 1
                if serial not in self.serials:
                    self.serials.append(serial)
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
            finally:
                connection.close()

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_two_envoys_over_rotations(ground: Ground) -> None:
    """Mutual TLS between two Envoys, a new connection for each request, loses none over rotations at both ends."""
    plain, mutual = free_port(), free_port()
    one_each = ("max_requests_per_connection: 1000", "max_requests_per_connection: 1")
    with (
        Envoy(ground.server, ground.server_config(mutual), ground.folder()) as server,
        Envoy(ground.client, ground.client_config(plain, mutual, one_each), ground.folder()) as client,
    ):
        at_first = server.serials()
        with Traffic(plain) as traffic:
            until(lambda: len(traffic.serials) >= 3 and not at_first & server.serials(), seconds=60)
        assert [] == traffic.failed
        faults = {**client.stats("cluster.service.ssl.fail"), **server.stats(".ssl.fail")}
        assert (True, set()) == (len(faults) > 4, {name for name, count in faults.items() if count})
        assert client.stats("cluster.service.ssl.handshake")["cluster.service.ssl.handshake"] >= traffic.answered
        rejected = {**client.stats("update_rejected"), **server.stats("update_rejected")}
        assert set() == {name for name, count in rejected.items() if count}


@pytest.fixture
def pair(ground: Ground) -> Iterator[tuple[Ground, Envoy, int]]:
    """An agent of their own for two Envoys: ground, the server-side Envoy, and the plain port of the other."""
    with AgentProcess() as own, Admin(own.admin_socket) as admin:
        programs = [placed(ground.server, own.folder / name) for name in ("server", "client")]
        for path, program in zip(("/envoy/server", "/envoy/client"), programs, strict=True):
            admin.register(path, f"unix:path:{program}")
        ours = Ground(own, admin, *programs)
        plain, mutual = free_port(), free_port()
        one_each = ("max_requests_per_connection: 1000", "max_requests_per_connection: 1")
        with (
            Envoy(ours.server, ours.server_config(mutual), ours.folder()) as server,
            Envoy(ours.client, ours.client_config(plain, mutual, one_each), ours.folder()),
        ):
            yield ours, server, plain


def test_the_agent_is_away_for_a_while(pair: tuple[Ground, Envoy, int]) -> None:
    """While the agent is away Envoys serve on with what they have; when it is back they get new certificates."""
    ours, server, plain = pair
    at_first = server.serials()
    with Traffic(plain) as traffic:
        until(lambda: traffic.answered > 10)
        ours.agent.stop()
        answered = traffic.answered
        until(lambda: traffic.answered > answered + 10)
        ours.agent.start()
        until(lambda: len(traffic.serials) >= 2 and not at_first & server.serials(), seconds=60)
    assert [] == traffic.failed


def test_two_envoys_over_a_new_root(pair: tuple[Ground, Envoy, int]) -> None:
    """While the root is followed by another, tainted and revoked, mutual TLS between two Envoys loses no request."""
    ours, server, plain = pair
    [first] = [key["authority_id"] for key in ours.agent.json("authority", "show")["keys"] if key["kind"] == "x509"]
    at_first = server.serials()
    with Traffic(plain) as traffic:
        until(lambda: traffic.answered > 10)
        ours.agent.run("authority", "rotate", "x509", "--overlap", "1s")
        ours.agent.run("authority", "taint", first)
        until(lambda: len(traffic.serials) >= 2 and not at_first & server.serials(), seconds=30)
        ours.agent.run("authority", "revoke", first)
        answered = traffic.answered
        until(lambda: traffic.answered > answered + 100)
    assert [] == traffic.failed


def test_a_server_that_is_somebody_else(ground: Ground) -> None:
    """The client-side Envoy does not talk to a server with another identity than it was told."""
    plain, mutual = free_port(), free_port()
    other = (f"exact: {SERVER}", f"exact: {OTHER}")
    with (
        Envoy(ground.server, ground.server_config(mutual), ground.folder()),
        Envoy(ground.client, ground.client_config(plain, mutual, other), ground.folder()) as client,
    ):
        connection = http.client.HTTPConnection("127.0.0.1", plain, timeout=10)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert (503, None) == (response.status, response.getheader("x-caller"))
        connection.close()
        assert client.stats("cluster.service.ssl.fail_verify_san")["cluster.service.ssl.fail_verify_san"] > 0


@pytest.mark.root
def test_registered_late_and_by_user(ground: Ground, tmp_path: Path) -> None:
    """An Envoy of another user, registered by that user after it has started, gets its secrets within seconds."""
    uid, port = next(UIDS), free_port()
    before = refused(ground.agent)
    with Envoy(ground.server, ground.server_config(port), ground.folder(), uid=uid, live=False) as envoy:
        until(lambda: refused(ground.agent) > before)
        assert not envoy.live()
        ground.admin.register("/envoy/server", f"unix:uid:{uid}")
        until(envoy.live, seconds=14)  # before Envoy gives up waiting and listens without a secret
        assert Answer(200, CLIENT, [SERVER]) == call(port, context(ground.agent, tmp_path, CLIENT))


def refused(agent: AgentProcess) -> int:
    """How many streams of secrets the agent has refused."""
    lines = [line for line in agent.log_lines() if line["event"] == "call_refused"]
    return len([line for line in lines if line["method"].endswith("/StreamSecrets")])


def test_a_rejected_update(ground: Ground) -> None:
    """What Envoy rejects is in the agent's log, with the process and Envoy's own reason; the stream goes on."""
    config = ground.server_config(free_port(), ("name: default", "name: ROOTCA"))
    with Envoy(ground.server, config, ground.folder(), live=False) as envoy:
        event = "sds_update_rejected"
        lines = until(lambda: [line for line in ground.agent.log_lines() if line["event"] == event])
        assert {(envoy.pid, os.getuid())} == {(line["pid"], line["uid"]) for line in lines}
        assert "private key" in lines[0]["reason"]
        assert ["StreamSecrets", "StreamSecrets"] == ground.admin.streams_of(envoy.pid)
