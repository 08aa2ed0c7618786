"""OAuth clients that know nothing of Sojourn get tokens from it, unchanged, each by its documented options."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from harness.agent import AgentProcess
from harness.exchanges import part
from harness.oauthclients import CREDENTIALS, EXCHANGE, JWT_BEARER, Ask, Endpoint, Refused, Wanted, pem, stock
from harness.taskagent import ISSUER, TICKETS, TRIAGE, inner_failures, make_agent
from joserfc import jwt
from joserfc.jwk import KeySet
from sojourn import SyncClient
from sojourn.tasktoken.sender_constraint import thumbprint_of

pytestmark = pytest.mark.timeout(240)

SPIFFE_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
BY_PARAMETER = ("authlib_httpx", "authlib_requests", "requests_oauthlib", "curl", "go_clientcredentials")
WITH_CLIENT = (*BY_PARAMETER, "spring")  # externalaccount has no client of its own, and knows one grant


@dataclass(frozen=True)
class Ground:
    """An agent whose HTTPS listener has a web server's certificate, on which this user is TRIAGE.

    `roots` and `pair` are PEM files: of the listener's certificate, and of the workload's with its key.
    """

    agent: AgentProcess
    client: SyncClient
    roots: str
    pair: str

    @property
    def socket(self) -> Endpoint:
        return Endpoint("http://localhost/token", socket=self.agent.socket)

    @property
    def https(self) -> Endpoint:
        """The listener, to a client that shows no certificate."""
        return Endpoint(f"https://localhost:{self.agent.https.rpartition(':')[2]}/token", roots=self.roots)

    @property
    def mutual(self) -> Endpoint:
        return replace(self.https, pair=self.pair)

    def svid(self) -> str:
        """A JWT-SVID for the token endpoint, one of its own for each call."""
        return self.client.fetch_jwt_svid(ISSUER).token


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("web")
    certificate, key = folder / "web.pem", folder / "web.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-days", "2", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True, timeout=30)
    listen = f'\n[listen]\nhttps = "127.0.0.1:0"\nhttps_certificate = "{certificate}"\nhttps_key = "{key}"\n'
    with make_agent(extra=listen) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        agent.run("svid", "x509", "--write", str(folder))
        pair = pem(folder, "pair.pem", *((folder / name).read_bytes() for name in ("svid.0.pem", "svid.0.key")))
        with SyncClient(agent.socket) as client:
            yield Ground(agent, client, str(certificate), pair)
        assert [] == inner_failures(agent)


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What oauthlib wants to be told before it sends anything to a URL that is not https: it is a Unix socket."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


def wanted(grant_type: str, subject: str = "", **more: str) -> Wanted:
    return Wanted(grant_type, TRIAGE, TICKETS, "ticket:read", subject, more)


def check_good(ground: Ground, answer: dict[str, Any], *, certified: bool = False) -> None:
    """The token of an answer is good, by the published keys and by the agent's word."""
    token = answer["access_token"]
    with httpx.Client(transport=httpx.HTTPTransport(uds=ground.agent.socket)) as client:
        keys = KeySet.import_key_set(client.get("http://localhost/keys").json())
    claims: dict[str, Any] = jwt.decode(token, keys, algorithms=["ES256"]).claims
    assert ("at+jwt", "bearer") == (part(token, 0)["typ"], answer["token_type"].lower())
    assert (ISSUER, TRIAGE, TRIAGE, TICKETS) == (claims["iss"], claims["sub"], claims["client_id"], claims["aud"])
    assert [["ticket:read"]] == [each["actions"] for each in claims["authorization_details"]]
    verdict = ground.client.validate_token(token, TICKETS)
    if certified:  # it is good for whoever has the certificate, and so not for us who show none
        shown = x509.load_pem_x509_certificate(Path(ground.pair).read_bytes())
        assert {"x5t#S256": thumbprint_of(shown.public_bytes(Encoding.DER))} == claims["cnf"]
        assert (False, "unproved_binding") == (verdict.valid, verdict.code)
    else:
        assert (True, "") == (verdict.valid, verdict.reason)


class TestSocket:
    """Over the Unix socket the kernel says who calls: no credential of the client is needed."""

    @pytest.mark.parametrize("ask", stock())
    def test_token_exchange(self, ground: Ground, ask: Ask) -> None:
        """Token exchange (RFC 8693): a JWT-SVID for an access token, in one call."""
        check_good(ground, ask(ground.agent, ground.socket, wanted(EXCHANGE, ground.svid())))

    @pytest.mark.parametrize("ask", stock(*WITH_CLIENT))
    def test_client_credentials(self, ground: Ground, ask: Ask) -> None:
        """Client credentials (RFC 6749, 4.4), and not even a JWT-SVID is asked for."""
        check_good(ground, ask(ground.agent, ground.socket, wanted(CREDENTIALS)))

    @pytest.mark.parametrize("ask", stock(*BY_PARAMETER))
    def test_jwt_bearer(self, ground: Ground, ask: Ask) -> None:
        """A JWT-SVID as authorization grant (RFC 7523, 2.1)."""
        check_good(ground, ask(ground.agent, ground.socket, wanted(JWT_BEARER, assertion=ground.svid())))

    @pytest.mark.forked
    @pytest.mark.parametrize("ask", stock())
    def test_refusals(self, ground: Ground, ask: Ask) -> None:
        """A refusal reaches the client's user as the client reports such: with the code of the RFC."""
        unknown = replace(wanted(EXCHANGE, ground.svid()), resource="https://nowhere.example.org")
        with pytest.raises(Refused, match="invalid_target"):
            ask(ground.agent, ground.socket, unknown)
        beyond = replace(wanted(EXCHANGE, ground.svid()), scope="ticket:shred")
        with pytest.raises(Refused, match="invalid_scope"):
            ask(ground.agent, ground.socket, beyond)


class TestHttps:
    """Over HTTPS a client shows an SVID: a JWT-SVID in the request, or an X.509-SVID in TLS."""

    @pytest.mark.forked
    @pytest.mark.parametrize("ask", stock(*WITH_CLIENT))
    def test_client_credentials_with_an_assertion(self, ground: Ground, ask: Ask) -> None:
        """A JWT-SVID as client assertion; a second call with the same one is refused."""
        asked = wanted(CREDENTIALS, client_assertion_type=SPIFFE_ASSERTION, client_assertion=ground.svid())
        check_good(ground, ask(ground.agent, ground.https, asked))
        with pytest.raises(Refused, match="invalid_client"):
            ask(ground.agent, ground.https, asked)

    @pytest.mark.forked
    @pytest.mark.parametrize("ask", stock(*WITH_CLIENT))
    def test_client_credentials_with_a_certificate(self, ground: Ground, ask: Ask) -> None:
        """Mutual TLS with the X.509-SVID, the SPIFFE ID as client_id; the token is bound to it (RFC 8705)."""
        check_good(ground, ask(ground.agent, ground.mutual, wanted(CREDENTIALS)), certified=True)

    @pytest.mark.parametrize("ask", stock(*WITH_CLIENT))
    def test_token_exchange_with_a_certificate(self, ground: Ground, ask: Ask) -> None:
        """Token exchange of a JWT-SVID over mutual TLS."""
        check_good(ground, ask(ground.agent, ground.mutual, wanted(EXCHANGE, ground.svid())), certified=True)

    @pytest.mark.forked
    @pytest.mark.parametrize("ask", stock(*WITH_CLIENT))
    def test_without_credentials(self, ground: Ground, ask: Ask) -> None:
        """Who shows neither is no client, whatever it calls itself."""
        with pytest.raises(Refused, match="invalid_client"):
            ask(ground.agent, ground.https, wanted(CREDENTIALS))
        with pytest.raises(Refused, match="invalid_client"):
            ask(ground.agent, ground.https, wanted(EXCHANGE, ground.svid()))
