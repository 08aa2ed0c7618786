"""The HTTPS listener: the token service for clients on other machines. Real sockets, TLS and certificates."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fakes.certificates import Issued, authority, san, usage
from harness import forging
from harness.agent import AgentProcess
from harness.exchanges import DETAILS
from harness.looking import until
from harness.taskagent import STRANGER_UID, TICKETS, TRIAGE, inner_failures, make_agent
from harness.webclients import SERVICE, context, svid, web
from sojourn.http2.limits import FIRST_BYTES_SECONDS
from sojourn.limits import HTTP_REQUEST_SECONDS

LISTEN = '\n[listen]\nhttps = "127.0.0.1:0"\n'
ASKED = {"grant_type": "client_credentials", "resource": TICKETS, "authorization_details": DETAILS}


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    """An agent with the listener, on which this user is /agent/triage."""
    with make_agent(extra=LISTEN) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        agent.register("/service", f"unix:uid:{STRANGER_UID}")
        yield agent
        assert [] == failures(agent)


@pytest.fixture
def own() -> Iterator[AgentProcess]:
    """The same for one test."""
    with make_agent(extra=LISTEN) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield agent
        assert [] == failures(agent)


def failures(agent: AgentProcess) -> list[object]:
    names = {"remote_handshake_failed", "alarm_failed"}
    return [*inner_failures(agent), *(line for line in agent.log_lines() if line["event"] in names)]


def refused(agent: AgentProcess, shown: Issued | None, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a connection with this certificate comes to nothing."""
    host, port = agent.https.rsplit(":", 1)
    try:
        with (
            socket.create_connection((host, int(port)), timeout=15) as plain,
            (tls or context(shown)).wrap_socket(plain) as wrapped,
        ):
            wrapped.sendall(b"GET /keys HTTP/1.1\r\nhost: x\r\n\r\n")
            return wrapped.recv(100) == b""
    except (ssl.SSLError, ConnectionError):
        return True


def fetched(agent: AgentProcess, folder: Path) -> tuple[Path, Path, Path]:
    """This process's own X.509-SVID, its key, and the bundle, as files."""
    agent.run("svid", "x509", "--write", str(folder))
    return folder / "svid.0.pem", folder / "svid.0.key", folder / "bundle.0.pem"


class TestWhoMayCome:
    def test_with_an_svid(self, shared: AgentProcess) -> None:
        """A workload with an X.509-SVID gets a token by showing it, with and without its name as client_id."""
        for named in ({}, {"client_id": TRIAGE}):
            with web(shared, TRIAGE) as client:
                answer = client.post("/token", data={**ASKED, **named})
            assert 200 == answer.status_code, answer.text
            assert [TICKETS] == answer.json()["authorization_details"][0]["locations"]

    def test_without_a_certificate(self, shared: AgentProcess) -> None:
        """Whoever shows none reads the keys, and is no client."""
        with web(shared) as client:
            assert 200 == client.get("/keys").status_code
            answer = client.post("/token", data=ASKED)
        assert (401, "invalid_client") == (answer.status_code, answer.json()["error"])
        assert "SPIFFE" in answer.headers["www-authenticate"]

    @pytest.mark.curl
    def test_curl_with_the_workloads_own_files(self, shared: AgentProcess, tmp_path: Path) -> None:
        """curl with the files that `svid x509 --write` makes gets a token."""
        certificate, key, _ = fetched(shared, tmp_path)
        command = ["curl", "-sS", "-k", "--cert", str(certificate), "--key", str(key)]
        command += [each for name, value in ASKED.items() for each in ("--data-urlencode", f"{name}={value}")]
        done = subprocess.run(
            [*command, f"https://{shared.https}/token"], capture_output=True, text=True, check=True, timeout=30
        )
        assert "access_token" in json.loads(done.stdout)

    def test_openssl_sees_the_agent_s_svid(self, shared: AgentProcess, tmp_path: Path) -> None:
        """Without a certificate of its own the listener shows the agent's X.509-SVID, which the bundle vouches for."""
        *_, bundle = fetched(shared, tmp_path)
        done = subprocess.run(
            ["openssl", "s_client", "-connect", shared.https, "-CAfile", str(bundle), "-verify_return_error"],
            input="", capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert "Verify return code: 0 (ok)" in done.stdout, done.stdout + done.stderr
        shown = x509.load_pem_x509_certificate(
            done.stdout[done.stdout.index("-----BEGIN") : done.stdout.index("-----END CERTIFICATE-----") + 26].encode()
        )
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [shared.json("status")["node_id"]] == names.get_values_for_type(x509.UniformResourceIdentifier)

    @pytest.mark.parametrize(
        "fault",
        ["foreign root", "own root but foreign domain", "two names", "no name", "a signing one", "expired", "not yet"],
    )
    def test_bad_certificates(self, shared: AgentProcess, fault: str) -> None:
        """A certificate that is no good X.509-SVID of ours ends the handshake: not shown at all would be better."""
        root = forging.root_of(shared)
        hour = timedelta(hours=1)
        now = forging.datetime.now(forging.UTC)
        shown = {
            "foreign root": lambda: forging.leaf(
                authority(begins=now - hour, ends=now + hour), san=(san(TRIAGE), False)
            ),
            "own root but foreign domain": lambda: svid(shared, "spiffe://other.example/x"),
            "two names": lambda: forging.leaf(root, san=(san(TRIAGE, SERVICE), False)),
            "no name": lambda: forging.leaf(root, san=None),
            "a signing one": lambda: forging.leaf(root, san=(san(TRIAGE), False), usage=(usage("key_cert_sign"), True)),
            "expired": lambda: svid(shared, TRIAGE, begins=now - 2 * hour, ends=now - hour),
            "not yet": lambda: svid(shared, TRIAGE, begins=now + hour, ends=now + 2 * hour),
        }[fault]()
        assert refused(shared, shown)
        assert not refused(shared, svid(shared, TRIAGE))

    def test_unregistered(self, shared: AgentProcess) -> None:
        """A good X.509-SVID whose workload is not registered (any more) is no client."""
        with web(shared, "spiffe://example.org/gone") as client:
            answer = client.post("/token", data=ASKED)
        assert (401, "invalid_client") == (answer.status_code, answer.json()["error"])

    def test_another_client_id(self, shared: AgentProcess) -> None:
        """A client_id that is not the certificate's is refused."""
        with web(shared, TRIAGE) as client:
            answer = client.post("/token", data={**ASKED, "client_id": SERVICE})
        assert (401, "invalid_client") == (answer.status_code, answer.json()["error"])

    @pytest.mark.parametrize(
        "header",
        [
            "X-Forwarded-Client-Cert",
            "X-SSL-Client-Cert",
            "Client-Cert",
            "X-Client-Cert",
            "Ssl-Client-Cert",
            "X-Spiffe-Id",
        ],
    )
    def test_header_forwarded_certificates_are_ignored(self, shared: AgentProcess, header: str) -> None:
        """Who a client is comes from its TLS connection, and never from a header (F.8, 18)."""
        certificate = svid(shared, TRIAGE).certificate
        pem = certificate.public_bytes(Encoding.PEM).decode().replace("\n", "%0A")
        for value in (f"By=spiffe://example.org/x;URI={TRIAGE};Cert={pem}", pem, TRIAGE):
            with web(shared) as client:
                answer = client.post("/token", data=ASKED, headers={header: value})
            assert (401, "invalid_client") == (answer.status_code, answer.json()["error"])

    @pytest.mark.forked
    @pytest.mark.forked
    def test_allowed(self) -> None:
        """Where `https_allowed` names who may come, another's certificate ends the handshake."""
        with make_agent(extra=LISTEN + f'https_allowed = ["{SERVICE}"]\n') as agent:
            assert refused(agent, svid(agent, TRIAGE))
            assert not refused(agent, svid(agent, SERVICE))
            assert not refused(agent, None)


class TestWhatIsServed:
    def test_paths(self, shared: AgentProcess) -> None:
        """The token service and what describes it, and nothing else: signed events are for this machine."""
        with web(shared) as client:
            for path in ("/keys", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"):
                assert 200 == client.get(path).status_code
            for path in ("/token", "/introspect", "/revoke"):
                assert 405 == client.get(path).status_code
            for path in ("/events", "/", "/metrics", "/sojourn.v1.Tasks/BeginTask"):
                assert 404 == client.post(path).status_code

    def test_no_http2(self, shared: AgentProcess) -> None:
        """Only HTTP/1.1 is offered, and the preface of HTTP/2 is answered with the end of the connection."""
        host, port = shared.https.rsplit(":", 1)
        tls = context(None)
        tls.set_alpn_protocols(["h2", "http/1.1"])
        with socket.create_connection((host, int(port)), timeout=15) as plain, tls.wrap_socket(plain) as wrapped:
            assert "http/1.1" == wrapped.selected_alpn_protocol()
            wrapped.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert_closed(wrapped)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_versions(self, shared: AgentProcess, version: ssl.TLSVersion) -> None:
        """TLS 1.2 and 1.3 are spoken, with and without a certificate."""
        for shown in (None, svid(shared, TRIAGE)):
            tls = context(shown)
            tls.minimum_version = tls.maximum_version = version
            assert not refused(shared, shown, tls)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_old_versions(self, shared: AgentProcess) -> None:
        """TLS 1.1 is refused by the HTTPS listener."""
        tls = context(None)
        tls.set_ciphers("ALL:@SECLEVEL=0")
        tls.minimum_version = ssl.TLSVersion.TLSv1
        tls.maximum_version = ssl.TLSVersion.TLSv1_1
        assert refused(shared, None, tls)

    def test_ready_line(self, shared: AgentProcess) -> None:
        """The line with `ready` tells the address."""
        assert f", HTTPS {shared.https}" in shared.ready_line


class TestEnds:
    def test_revocation_ends_connections(self, own: AgentProcess, tmp_path: Path) -> None:
        """A revoked X.509-SVID opens no connection, and those that are open end."""
        certificate, key, _ = fetched(own, tmp_path)
        tls = context(None)
        tls.load_cert_chain(certificate, key)
        with httpx.Client(verify=tls, base_url=f"https://{own.https}", timeout=15, trust_env=False) as client:
            assert 200 == client.post("/token", data=ASKED).status_code
        host, port = own.https.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=15) as plain, tls.wrap_socket(plain) as wrapped:
            wrapped.sendall(b"GET /keys HTTP/1.1\r\nhost: x\r\n\r\n")
            assert wrapped.recv(16).startswith(b"HTTP/1.1 200")
            serial = f"{x509.load_pem_x509_certificates(certificate.read_bytes())[0].serial_number:x}"
            own.run("svid", "revoke", "--serial", serial)
            assert_closed(wrapped)
        assert refused(own, None, tls)

    @pytest.mark.forked
    def test_expiry_ends_connections(self, shared: AgentProcess) -> None:
        """A connection ends with the certificate that was shown on it."""
        shown = svid(shared, TRIAGE, seconds=3)
        host, port = shared.https.rsplit(":", 1)
        with (
            socket.create_connection((host, int(port)), timeout=15) as plain,
            context(shown).wrap_socket(plain) as open_,
        ):
            begun = time.monotonic()
            open_.sendall(b"GET /keys HTTP/1.1\r\nhost: x\r\nx: ")  # and keeps it busy
            assert_closed(open_)
            assert time.monotonic() - begun < FIRST_BYTES_SECONDS

    @pytest.mark.forked
    def test_silent_and_slow_clients(self, shared: AgentProcess) -> None:
        """Who says nothing after the handshake, or sends a request a byte at a time, is cut off; others are served."""
        host, port = shared.https.rsplit(":", 1)
        with (
            socket.create_connection((host, int(port)), timeout=30) as plain,
            context(None).wrap_socket(plain) as silent,
        ):
            begun = time.monotonic()
            assert_closed(silent)
            assert time.monotonic() - begun < 2 * FIRST_BYTES_SECONDS + 5
        with socket.create_connection((host, int(port)), timeout=1) as plain, context(None).wrap_socket(plain) as slow:
            begun = time.monotonic()
            slow.settimeout(0.5)
            ended = False
            slow.sendall(b"POST /token HTTP/1.1\r\nhost: x\r\nx: ")
            while not ended and time.monotonic() - begun < 3 * HTTP_REQUEST_SECONDS:
                try:
                    slow.sendall(b"a")
                    ended = slow.recv(1) == b""
                except TimeoutError:
                    with web(shared) as other:
                        assert 200 == other.get("/keys").status_code
                except OSError:
                    ended = True
            assert ended

    def test_an_endless_head(self, shared: AgentProcess) -> None:
        """A request whose head has no end is cut off."""
        host, port = shared.https.rsplit(":", 1)
        with (
            socket.create_connection((host, int(port)), timeout=15) as plain,
            context(None).wrap_socket(plain) as flood,
        ):
            line = b"x-header: " + b"y" * 1000 + b"\r\n"
            with pytest.raises(OSError):  # a reset, or a broken pipe
                flood.sendall(b"GET /keys HTTP/1.1\r\n" + line * 100_000)

    def test_stop(self) -> None:
        """Connections that stay open do not hold up an agent that is told to stop."""
        agent = make_agent(extra=LISTEN).start()
        try:
            host, port = agent.https.rsplit(":", 1)
            with (
                socket.create_connection((host, int(port)), timeout=15) as plain,
                context(None).wrap_socket(plain) as open_,
            ):
                open_.sendall(b"GET /keys HTTP/1.1\r\nhost: x\r\n\r\n")
                assert open_.recv(16).startswith(b"HTTP/1.1 200")
                assert 0 == agent.stop()
        finally:
            agent.__exit__()
            shutil.rmtree(agent.folder, ignore_errors=True)


def assert_closed(wrapped: ssl.SSLSocket) -> None:
    """The other end closes the connection, sooner or later within its time."""
    try:
        while wrapped.recv(4096):
            pass
    except ConnectionError:
        pass


class TestCertificateOfFiles:
    def make(self, folder: Path, name: str, root: Issued | None = None) -> Issued:
        """Write a certificate for `name` with its key."""
        now = forging.datetime.now(forging.UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        made = forging.leaf(root, san=(san(dns=[name]), False), subject=name, key=key, begins=now - timedelta(hours=1))
        (folder / "c.pem").write_bytes(made.certificate.public_bytes(Encoding.PEM))
        (folder / "k.pem").touch(mode=0o600)
        (folder / "k.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return made

    def agent(self) -> AgentProcess:
        files = 'https_certificate = "c.pem"\nhttps_key = "k.pem"\n'
        return make_agent(extra=LISTEN + files)

    def test_web_pki(self, tmp_path: Path) -> None:
        """With a certificate of an operator's, clients verify the agent by name, and show their SVIDs all the same."""
        agent = self.agent()
        root = authority(
            begins=(now := forging.datetime.now(forging.UTC)) - timedelta(hours=1), ends=now + timedelta(1)
        )
        self.make(agent.folder, "sojourn.example.org", root)
        (tmp_path / "ca.pem").write_bytes(root.certificate.public_bytes(Encoding.PEM))
        with agent:
            agent.register("/agent/triage", f"unix:uid:{STRANGER_UID}")
            shown = svid(agent, TRIAGE)
            (tmp_path / "svid.pem").write_bytes(
                shown.certificate.public_bytes(Encoding.PEM)
                + shown.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
            trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
            trusted.load_cert_chain(tmp_path / "svid.pem")

            def asked(name: str) -> httpx.Response:
                with httpx.Client(verify=trusted, trust_env=False, timeout=30) as client:
                    named = {"sni_hostname": name}
                    return client.post(f"https://{agent.https}/token", data=ASKED, extensions=named)

            assert "access_token" in asked("sojourn.example.org").json()
            with pytest.raises(httpx.ConnectError, match=r"other\.example\.org"):
                asked("other.example.org")

    @pytest.mark.forked
    def test_renewed(self) -> None:
        """A certificate that is renewed is shown without a restart; one that is bad leaves the old one in place."""
        agent = self.agent()
        self.make(agent.folder, "first.example")
        with agent:
            assert "first.example" == self.shown(agent)
            (agent.folder / "c.pem").write_text("nothing")
            until(lambda: [line for line in agent.log_lines() if line["event"] == "https_certificate_refused"] or
                  not self.shown(agent), 30)  # fmt: skip
            assert "first.example" == self.shown(agent)
            self.make(agent.folder, "second.example")
            until(lambda: self.shown(agent) == "second.example", 30)

    def shown(self, agent: AgentProcess) -> str:
        der = ssl.get_server_certificate(tuple(agent.https.rsplit(":", 1)))  # type: ignore[arg-type]  # a text does
        return str(x509.load_pem_x509_certificate(der.encode()).subject.rfc4514_string()).removeprefix("CN=")

    @pytest.mark.parametrize("fault", ["none", "other key", "open key", "writable", "not pem"])
    def test_bad_files(self, fault: str) -> None:
        """Files that cannot be used, or that others could have written or read, are told when the agent starts."""
        agent = self.agent()
        try:
            if fault != "none":
                self.make(agent.folder, "a.example")
            if fault == "other key":
                kept = (agent.folder / "c.pem").read_bytes()
                self.make(agent.folder, "a.example")
                (agent.folder / "c.pem").write_bytes(kept)
            if fault == "open key":
                (agent.folder / "k.pem").chmod(0o644)
            if fault == "writable":
                (agent.folder / "c.pem").chmod(0o666)
            if fault == "not pem":
                (agent.folder / "c.pem").write_text("x")
            with pytest.raises(RuntimeError, match=r"https_certificate|https_key"):
                agent.start()
            assert "Traceback" not in agent.log.read_text()
        finally:
            shutil.rmtree(agent.folder, ignore_errors=True)


def test_status(shared: AgentProcess) -> None:
    """`status` tells of the listener and who is connected, and `config show` of its keys."""
    with web(shared, TRIAGE) as client:
        client.get("/keys")
        (listener,) = shared.json("status")["listeners"]
        assert ("https", shared.https) == (listener["name"], listener["address"])
        assert listener["connections"] >= 1
    assert shared.https in shared.run("status").stdout
    assert "listen.https" in shared.run("config", "show", "--config", str(shared.config)).stdout
