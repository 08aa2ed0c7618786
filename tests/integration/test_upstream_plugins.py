"""Upstream authorities over HTTP at a real agent: the plugins that come with Sojourn, by answers as they are documented, and
outsides that are hostile.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fakes.upstream_outsides import AUTHORITY, CertManager, Pca
from harness.agent import AgentProcess
from harness.looking import until
from harness.mesh import mesh
from harness.raw import Admin, Wire
from sojourn.testing import Sent, SigningAuthority
from sojourn.testing.signing_authority import pem

pytestmark = pytest.mark.full
ME = f"unix:uid:{os.getuid()}"
SHORT = '[authority]\nissuer_ttl = "5m"\n[identity]\nx509_svid_ttl = "15s"\n[authority.upstream]\n'


class Handler(BaseHTTPRequestHandler):
    """Hands requests to an outside of a test, or does something hostile."""

    protocol_version = "HTTP/1.1"
    outside: Any
    hostile = ""
    hits: int

    def do_GET(self) -> None:
        type(self).hits += 1
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.hostile:
            with suppress(OSError):  # the agent has hung up
                getattr(self, self.hostile)()
            self.close_connection = True
            return
        host = self.headers["host"]
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.outside.answer(Sent(self.command, f"http://{host}{self.path}", "", headers, content=content))
        self.give(answer.status, answer.body)

    do_POST = do_DELETE = do_GET  # as the server calls them

    def give(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def redirects(self) -> None:
        self.give(307, b"", location=self.outside)

    def endless(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        for _ in range(10_000):
            self.wfile.write(b" " * 65_536)

    def drips(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        for _ in range(600):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.1)

    def huge_chain(self) -> None:
        root = SigningAuthority().pem
        self.give(200, json.dumps({"data": {"certificate": root, "ca_chain": [root] * 300}}).encode())

    def garbage(self) -> None:
        self.give(200, b'{"data": {"certificate": "' + b"x" * 10_000 + b'", "ca_chain": [1, [], {}]}}')

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(outside: object, hostile: str = "") -> Iterator[tuple[str, type[Handler]]]:
    kind = type("Served", (Handler,), {"outside": outside, "hostile": hostile, "hits": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", kind
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def held(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


def upstream(agent: AgentProcess) -> dict:
    return agent.json("authority", "show")["upstream"]


@contextmanager
def signing(config: str) -> Iterator[AgentProcess]:
    """An agent below what `config` names, that has had its intermediate signed, and whose workloads verify each other."""
    with AgentProcess(config=SHORT + config) as agent, Admin(agent.admin_socket) as admin:
        admin.register("/me", ME)
        until(lambda: agent.run("svid", "x509", check=False).returncode == 0, "it signs", seconds=60)
        with mesh(agent.socket, 2) as workloads:
            until(
                lambda: workloads.ready and workloads.fetched > 3 and workloads.checked > 20,
                "workloads verify each other",
            )
        yield agent


def test_aws_pca(tmp_path: Path) -> None:
    """AWS Private CA, by its documented answers: SVIDs chain to its root, and no secret is in the log or the status. It was not
    run against AWS.
    """
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    keys = held(tmp_path / "credentials", f"[default]\naws_access_key_id = A\naws_secret_access_key = {secret}\n")
    authority = SigningAuthority("issuing", SigningAuthority("root"))
    with serving(Pca(authority, pending=2)) as (address, _):
        config = (
            f'kind = "aws-pca"\nauthority = "{AUTHORITY}"\nendpoint = "{address}"\nplain_http = true\n'
            f'credentials_file = "{keys}"\nlook_every = "1s"\nlead = "0s"\n'
        )
        with signing(config) as agent:
            value = agent.json("authority", "show")
            assert ["intermediate", "upstream", "root"] == [each["role"] for each in value["chain"]]
            assert ("aws-pca", "") == (value["upstream"]["kind"], value["upstream"]["fault"])
            assert secret not in agent.log.read_text() + json.dumps(value)


def test_cert_manager(tmp_path: Path) -> None:
    """cert-manager, by its documented objects; and when the issuer is not ready it is told, and workloads go on."""
    token = held(tmp_path / "token", "a-token\n")
    authority = SigningAuthority("issuing", SigningAuthority("root"))
    ca = held(tmp_path / "ca.pem", pem(authority.root))
    outside = CertManager(authority, pending=2)
    with serving(outside) as (address, _):
        config = (
            f'kind = "cert-manager"\nissuer_name = "company"\nnamespace = "sojourn"\naddress = "{address}"\n'
            f'plain_http = true\ntoken_file = "{token}"\nca = "{ca}"\nlook_every = "1s"\nlead = "0s"\n'
        )
        with signing(config) as agent:
            assert {} == outside.kept
            assert "" == upstream(agent)["fault"]
            outside.ready = False
            until(lambda: "the issuer company is not ready" in upstream(agent)["fault"], "it is told", seconds=30)
            assert agent.run("svid", "x509", check=False).returncode == 0


@pytest.mark.parametrize("hostile", ["redirects", "endless", "drips", "huge_chain", "garbage"])
def test_hostile(hostile: str, tmp_path: Path) -> None:
    """Whatever is at the address: it is told why nothing is signed, nothing is followed elsewhere, and the agent answers its
    workloads meanwhile as always.
    """
    token = held(tmp_path / "token", "s.a-token\n")
    with serving(None) as (elsewhere, counted), serving(elsewhere + "/", hostile) as (address, _):
        config = (
            f'kind = "openbao"\naddress = "{address}"\nplain_http = true\ntimeout = "2s"\nlook_every = "1s"\n'
            f'lead = "0s"\ntoken_file = "{token}"\n'
        )
        with AgentProcess(config=SHORT + config) as agent, Admin(agent.admin_socket) as admin:
            admin.register("/me", ME)
            until(lambda: upstream(agent)["fault"], "it is told", seconds=60)
            longest = 0.0
            with Wire(agent.socket) as wire:
                for _ in range(50):
                    begun = time.monotonic()
                    assert wire.jwt("a").svids[0].svid
                    longest = max(longest, time.monotonic() - begun)
                    time.sleep(0.05)
            assert longest < 2.0  # on a machine that does much else; a loop that waits for a body takes longer
            assert (1, []) == (
                agent.run("svid", "x509", check=False).returncode,
                agent.json("authority", "show")["roots"],
            )
        assert 0 == counted.hits


def test_no_such_plugin() -> None:
    """A kind that nobody has does not start, and says which there are."""
    with pytest.raises(RuntimeError) as caught, AgentProcess(config=SHORT + 'kind = "desk"\nlead = "0s"\nsize = 3\n'):
        pass
    assert "authority.upstream.kind: is none that is installed; there are: aws-pca, cert-manager," in str(caught.value)
