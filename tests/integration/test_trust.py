"""What outside parties trust the agent by: the listener, to clients that know nothing of it. Real sockets and TLS."""

import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from harness.agent import AgentProcess, clean_environment
from harness.clients import built
from harness.looking import OF_CALLERS, until
from harness.program import Program
from harness.taskagent import inner_failures
from harness.tlsplace import TlsPlace
from harness.trusting import (
    BUNDLE,
    DISCOVERY,
    ISSUER,
    KEYS,
    WEB,
    first_bundle,
    kids,
    node_id,
    read,
    signed,
    trust_agent,
    visitor,
)
from sojourn.authority.jwt_keys import JwtKeys, RsaKeys

RS256 = "[authority]\nrs256 = true\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TlsPlace:
    return TlsPlace(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def web(place: TlsPlace) -> Iterator[AgentProcess]:
    """An agent with RSA keys whose listener has a web server's certificate."""
    with trust_agent(place, more=RS256) as agent:
        yield agent
        assert [] == inner_failures(agent)


@pytest.fixture
def own() -> Iterator[AgentProcess]:
    """One whose listener shows the agent's own X.509-SVID, for one test."""
    with trust_agent(more=RS256) as agent:
        yield agent
        assert [] == inner_failures(agent)


def curl(agent: AgentProcess, place: TlsPlace, path: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    port = agent.trust.rpartition(":")[2]
    return subprocess.run(
        ["curl", "-sS", "--cacert", str(place.ca), *arguments, f"https://localhost:{port}{path}"],
        capture_output=True, text=True, check=True, timeout=30, env=clean_environment(),
    )  # fmt: skip


def told(client: Path, *arguments: str) -> list[dict[str, Any]]:
    """What the Go client says."""
    with Program([str(client), *arguments], clean_environment()) as program:
        return program.finish()[1]


def active(agent: AgentProcess, kind: str) -> str:
    keys = agent.json("authority", "show")["keys"]
    (found,) = [each["authority_id"] for each in keys if each["kind"] == kind and each["status"] == "active"]
    return str(found)


class TestWeb:
    """By https_web."""

    @pytest.mark.curl
    def test_curl(self, web: AgentProcess, place: TlsPlace) -> None:
        """curl, which verifies the name and the chain, reads each document; HEAD tells the same without it."""
        for path in (DISCOVERY, KEYS, BUNDLE):
            assert json.loads(curl(web, place, path).stdout)
            head = curl(web, place, path, "--head").stdout.casefold()
            assert head.startswith("http/1.1 200")
            assert ("content-type: application/json" in head, "max-age=" in head) == (True, True)

    @pytest.mark.curl
    def test_curl_has_it_already(self, web: AgentProcess, place: TlsPlace, tmp_path: Path) -> None:
        """curl, which keeps a document's tag, is told when it has the document."""
        tags = ("--etag-save", str(tmp_path / "tag"), "--etag-compare", str(tmp_path / "tag"))
        say = ("--write-out", "%{http_code}", "--output", os.devnull)
        assert ["200", "304"] == [curl(web, place, KEYS, *tags, *say).stdout for _ in range(2)]

    def test_verifier_of_another_make(self, web: AgentProcess, place: TlsPlace) -> None:
        """PyJWT finds the keys by discovery, and verifies what is signed by RS256 and by ES256."""
        trusted = ssl.create_default_context(cafile=str(place.ca))
        port = web.trust.rpartition(":")[2]
        with httpx.Client(verify=trusted, trust_env=False) as client:
            found = client.get(f"https://localhost:{port}{DISCOVERY}").json()
        assert (ISSUER, ["ES256", "RS256"]) == (found["issuer"], found["id_token_signing_alg_values_supported"])
        assert f"{ISSUER}/keys" == found["jwks_uri"]
        keys = jwt.PyJWKClient(f"https://localhost:{port}/keys", ssl_context=trusted)
        for kind, algorithm in ((RsaKeys, "RS256"), (JwtKeys, "ES256")):
            token = signed(web, "sts.example.com", kind)
            assert algorithm == jwt.get_unverified_header(token)["alg"]
            claims = jwt.decode(
                token, keys.get_signing_key_from_jwt(token), algorithms=found["id_token_signing_alg_values_supported"],
                audience="sts.example.com", issuer=found["issuer"],
            )  # fmt: skip
            assert (WEB, "sts.example.com") == (claims["sub"], claims["aud"])

    @pytest.mark.go
    def test_go_spiffe(self, web: AgentProcess, place: TlsPlace) -> None:
        """go-spiffe fetches the bundle as a partner's server does, and validates a JWT-SVID of an RSA key by it."""
        url = f"https://localhost:{web.trust.rpartition(':')[2]}{BUNDLE}"
        bundle, validated = told(
            built("go"), "federation", "-url", url, "-roots", str(place.ca), "-token", signed(web, "there"),
            "-audience", "there",
        )  # fmt: skip
        assert (WEB, kids(web)) == (validated["spiffe_id"], set(bundle["jwt"]))
        assert (1, 300, True) == (len(bundle["x509"]), bundle["refresh_hint"], bundle["sequence"] > 0)

    def test_where_it_is_told(self, web: AgentProcess) -> None:
        """The ready line and `status` tell where it is."""
        assert f", TRUST {web.trust}" in web.ready_line
        (listener,) = web.json("status")["listeners"]
        assert ("trust", web.trust) == (listener["name"], listener["address"])

    @pytest.mark.forked
    def test_new_certificate(self, tmp_path: Path) -> None:
        """A certificate that was renewed in its files is shown within seconds."""
        place = TlsPlace(tmp_path / "one")
        with trust_agent(place) as agent:
            port = agent.trust.rpartition(":")[2]

            def is_shown_by(known: TlsPlace) -> bool:
                trusted = ssl.create_default_context(cafile=str(known.ca))
                try:
                    return httpx.get(f"https://localhost:{port}{KEYS}", verify=trusted, trust_env=False).is_success
                except httpx.ConnectError:
                    return False

            assert is_shown_by(place)
            fresh = TlsPlace(tmp_path / "two")
            for here, there in ((place.chain, fresh.chain), (place.key, fresh.key)):
                here.write_bytes(there.read_bytes())
            until(lambda: is_shown_by(fresh), "the new certificate is shown")


class TestSpiffe:
    """By https_spiffe."""

    @pytest.mark.go
    def test_go_spiffe(self, own: AgentProcess, tmp_path: Path) -> None:
        """go-spiffe verifies the agent by the bundle that it began with, and reads what is new since."""
        first, url = first_bundle(own, tmp_path), f"https://{own.trust}{BUNDLE}"
        made = own.json("authority", "prepare", "jwt")["authority_id"]
        arguments = ("federation", "-url", url, "-first", str(first), "-endpoint-id")
        bundle, validated = told(
            built("go"), *arguments, node_id(own), "-token", signed(own, "there", JwtKeys), "-audience", "there"
        )
        assert made in bundle["jwt"]
        assert ({made, active(own, "jwt"), active(own, "jwt-rs256")}, WEB) == (
            set(bundle["jwt"]),
            validated["spiffe_id"],
        )
        (refused,) = told(built("go"), *arguments, "spiffe://example.org/somebody")
        assert "error" == refused["event"]

    @pytest.mark.go
    def test_after_a_new_root(self, own: AgentProcess, tmp_path: Path) -> None:
        """A partner that fetched the bundle while old and new root overlapped trusts the listener on."""
        url, name = f"https://{own.trust}{BUNDLE}", node_id(own)
        old = first_bundle(own, tmp_path)
        both = own.json("authority", "prepare", "x509") and first_bundle(own, tmp_path)
        made = own.json("authority", "show")["keys"][1]["authority_id"]
        own.run("authority", "activate", made)
        own.run("svid", "rotate", "--all")
        for first, event in ((both, "federation"), (old, "error")):
            (line,) = told(built("go"), "federation", "-url", url, "-first", str(first), "-endpoint-id", name)
            assert event == line["event"], line


class TestKeys:
    def test_published_before_it_signs(self, own: AgentProcess) -> None:
        """A key that was prepared is in all documents at once, and signs nothing until it is activated."""
        before = active(own, "jwt-rs256")
        made = own.json("authority", "prepare", "jwt-rs256")["authority_id"]
        assert made in kids(own)
        assert made in {each.get("kid") for each in read(own, BUNDLE)["keys"]}
        assert before == active(own, "jwt-rs256")
        own.run("authority", "activate", made)
        assert {before, made} < kids(own)

    @pytest.mark.forked
    def test_a_taint_is_one_command(self, own: AgentProcess) -> None:
        """The key that signs is tainted by one command: the next signs at once; revoked, it is in no document."""
        for kind in ("jwt", "jwt-rs256"):
            before = active(own, kind)
            own.run("authority", "taint", before)
            after = active(own, kind)
            assert after != before
            assert {before, after} <= kids(own)
            own.run("authority", "revoke", before)
            assert before not in kids(own)
            assert after in kids(own)
        done = own.run("authority", "taint", active(own, "x509"), check=False)
        assert (1, True) == (done.returncode, "current local authority" in done.stderr)
        events = [each["event"] for each in own.json("audit", "tail", "--lines", "20")["records"]]
        assert (2, 2, 2) == tuple(events.count(f"authority_{what}") for what in ("activated", "tainted", "revoked"))

    def test_over_a_restart(self, own: AgentProcess) -> None:
        """After a restart the keys are the same ones, and what they signed is good."""
        before, token = kids(own), signed(own, "there")
        own.stop()
        own.start()
        assert before == kids(own)
        key = jwt.PyJWKSet.from_dict(read(own, KEYS))[jwt.get_unverified_header(token)["kid"]]
        assert WEB == jwt.decode(token, key, algorithms=["RS256"], audience="there")["sub"]

    def test_task_token_keys_are_not_among_them(self, own: AgentProcess) -> None:
        """The keys of task tokens are on the socket, for services, and not here: nobody outside takes a task token."""
        transport = httpx.HTTPTransport(uds=own.socket)
        with httpx.Client(transport=transport, base_url="http://agent") as client:
            keys = {each["kid"]: each["alg"] for each in client.get(KEYS).json()["keys"]}
        outside = kids(own)
        assert outside < keys.keys()
        assert {"ES256", "RS256"} == {keys[kid] for kid in outside}

    def test_workloads_have_them_too(self, own: AgentProcess) -> None:
        """A workload validates a JWT-SVID by RS256 as any other."""
        own.register("/web", f"unix:uid:{os.getuid()}")
        done = own.json("validate", signed(own, "there"), "--audience", "there")
        assert (True, WEB) == (done["valid"], done["spiffe_id"])


class TestIssuer:
    @pytest.mark.parametrize(("setting", "issuer"), [("", None), ("jwt_svid_issuer = true", ISSUER)])
    def test_of_workloads_own(self, setting: str, issuer: str | None) -> None:
        """A JWT-SVID that a workload fetches has `iss` if it is to have one."""
        with trust_agent(more=f"[identity]\n{setting}") as agent:
            agent.register("/web", f"unix:uid:{os.getuid()}")
            token = agent.run("svid", "jwt", "--audience", "there").stdout.strip()
            assert issuer == jwt.decode(token, options={"verify_signature": False}).get("iss")
            assert agent.json("validate", token, "--audience", "there")["valid"]

    def test_no_rsa_keys(self) -> None:
        """Without RSA keys there are none in the documents."""
        with trust_agent() as agent:
            assert {"ES256"} == {each["alg"] for each in read(agent, KEYS)["keys"]}
            done = agent.run("authority", "prepare", "jwt-rs256", check=False)
            assert (1, True) == (done.returncode, "authority.rs256" in done.stderr)


def test_bad_certificate(tmp_path: Path) -> None:
    """A key that others can read keeps the agent from starting, and the reason names the setting."""
    place = TlsPlace(tmp_path)
    agent = trust_agent(place)
    os.chmod(place.key, 0o644)
    try:
        with pytest.raises(RuntimeError, match=r"listen\.trust_key"):
            agent.start()
    finally:
        agent.process = None
        agent.__exit__()


def test_visitors_leave_nothing_behind(own: AgentProcess) -> None:
    """What a hundred requests have opened is closed when they are done."""
    before = own.open_files()
    for _ in range(20):
        with visitor(own) as client:
            for _ in range(5):
                assert 200 == client.get(KEYS).status_code
    before.await_closed(*OF_CALLERS)
