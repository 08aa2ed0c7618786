"""Signed events (facts/token-standards.md F.8, cases 12 and 29): forged, replayed, misdirected and malformed ones.

On a real agent, over its real socket. What is refused must leave no fact behind.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.jws import encoded, joined
from fakes.signed_events import CAEP, IDP, claims, issuer_key, risk, uri
from harness.agent import AgentProcess
from harness.eventsender import (
    CONFIG,
    KEY,
    MEDIA_TYPE,
    OTHER,
    OTHER_KEY,
    event,
    events_agent,
    keys_of,
    post,
    records,
    refused,
    taken,
)
from harness.exchanges import form
from harness.exchanges import post as post_form
from harness.looking import until
from sojourn import SyncClient

pytestmark = pytest.mark.full

ISSUER = "https://sojourn.example.org"
SELF = "spiffe://example.org/self"
HEADER = {"alg": "ES256", "kid": "k1", "typ": "secevent+jwt"}


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with events_agent() as running:
        running.register("/self", f"unix:uid:{os.getuid()}")
        yield running
        assert [] == [line for line in running.log_lines() if line["event"] in {"call_failed", "http_failed"}]


@pytest.fixture(scope="module")
def client(agent: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(agent.socket) as opened:
        yield opened


def facts(agent: AgentProcess) -> list[dict[str, Any]]:
    """All that is known, by the records of what was published."""
    return records(agent, "fact_published")


def check_refused(agent: AgentProcess, token: str | bytes, code: str, status: int = 400) -> None:
    """The event is refused with this code, and no fact came of it."""
    before = len(facts(agent))
    assert (status, code) == refused(post(agent.socket, token))
    assert before == len(facts(agent))


def test_the_good_event_is_good(agent: AgentProcess) -> None:
    """The event that the tests here change is taken: they fail for what they change."""
    before = len(facts(agent))
    taken(post(agent.socket, event()))
    assert before + 1 == len(facts(agent))
    last = facts(agent)[-1]
    assert (IDP, "risk_level", "HIGH") == (last["source"], last["fact"], last["value"])


class TestF8Case29Forged:
    def test_another_key(self, agent: AgentProcess) -> None:
        """A signature by a key that is not the issuer's, under the issuer's kid, is refused."""
        check_refused(agent, event(issuer_key("k1")), "authentication_failed")

    def test_changed_after_signing(self, agent: AgentProcess) -> None:
        """Not a letter of what was signed can be changed."""
        header, _, signature = event().split(".")
        check_refused(agent, f"{header}.{event(events=risk('LOW')).split('.')[1]}.{signature}", "authentication_failed")

    @pytest.mark.parametrize(("issuer", "key"), [(IDP, OTHER_KEY), (OTHER, KEY)])
    def test_issuer_As_key_for_issuer_B(self, agent: AgentProcess, issuer: str, key: Any) -> None:
        """A key that one issuer has says nothing in another's name, though the kid is the same."""
        check_refused(agent, event(key, iss=issuer), "authentication_failed")
        taken(post(agent.socket, event(OTHER_KEY if key is KEY else KEY, iss=issuer)))

    @pytest.mark.parametrize("issuer", ["https://nobody.example.net", IDP[:-1], IDP.upper(), ISSUER, None, 7])
    def test_wrong_issuer(self, agent: AgentProcess, issuer: Any) -> None:
        """Only configured issuers are heard, byte for byte; the agent itself is none."""
        check_refused(agent, event(iss=issuer), "invalid_issuer")

    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
    def test_no_signature(self, agent: AgentProcess, algorithm: str) -> None:
        """An event that says that it is not signed is refused, signed or not."""
        token = joined({**HEADER, "alg": algorithm}, json.dumps(claims(time.time())).encode(), KEY)
        check_refused(agent, token, "invalid_key")
        check_refused(agent, token.rpartition(".")[0] + ".", "invalid_request")

    @pytest.mark.parametrize("secret", ["pem", "der", "jwk"])
    def test_HS256_with_the_public_key_as_secret(self, agent: AgentProcess, secret: str) -> None:
        """The public key, which everybody has, is no shared secret."""
        public = KEY._key.public_key()
        keys = {
            "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "jwk": json.dumps(dict(KEY.public.jwk)).encode(),
        }
        parts = (json.dumps({**HEADER, "alg": "HS256"}).encode(), json.dumps(claims(time.time())).encode())
        text = ".".join(encoded(part) for part in parts)
        mac = HMAC(keys[secret], hashes.SHA256())
        mac.update(text.encode())
        check_refused(agent, f"{text}.{encoded(mac.finalize())}", "invalid_key")

    def test_a_key_that_the_token_brings_along(self, agent: AgentProcess) -> None:
        """A key in the header is nobody's."""
        own = issuer_key("k1")
        header = {**HEADER, "jwk": {name: own.public.jwk[name] for name in ("kty", "crv", "x", "y")}}
        check_refused(agent, joined(header, json.dumps(claims(time.time())).encode(), own), "invalid_request")

    def test_a_key_that_was_taken_away(self, agent: AgentProcess) -> None:
        """With the next event a key that the issuer's set no longer has is none; a set that is torn has none.

        What came meanwhile, and could not be told from a good one, is taken when the set is whole.
        """
        before = len(records(agent, "signal_accepted"))
        try:
            keys_of(agent, "idp", issuer_key("k2"))
            check_refused(agent, event(), "invalid_key")
            (agent.folder / "idp.json").write_text('{"keys": [')
            check_refused(agent, event(), "unavailable", 503)
            (agent.folder / "idp.json").chmod(0o666)
            check_refused(agent, event(), "unavailable", 503)
            shown = {each["issuer"]: each["fault"] for each in agent.json("status")["signals"]}
            assert "can be written by others" in shown[IDP]
            assert "" == shown[OTHER]
        finally:
            keys_of(agent, "idp", KEY)
        taken(post(agent.socket, event()))
        until(lambda: before + 3 == len(records(agent, "signal_accepted")), "the two that came meanwhile are taken")


class TestF8Case29Claims:
    @pytest.mark.parametrize("audience", [None, "https://other.example.org", [ISSUER, "https://other.example.org"], []])
    def test_wrong_audience(self, agent: AgentProcess, audience: Any) -> None:
        """An event for somebody else, or for others too, is refused."""
        check_refused(agent, event(aud=audience), "invalid_audience")

    @pytest.mark.parametrize("name", ["sub", "exp"])
    def test_sub_and_exp(self, agent: AgentProcess, name: str) -> None:
        """A token with `sub` or `exp` is no event, so that none can pass for an access token."""
        value = SELF if name == "sub" else int(time.time()) + 60
        check_refused(agent, event(**{name: value}), "invalid_request")

    @pytest.mark.parametrize("ago", [660, 7_200, -120, -86_400])
    def test_old_and_future(self, agent: AgentProcess, ago: int) -> None:
        """An event that is older than the issuer's age, or from the future, is refused."""
        check_refused(agent, event(ago=ago), "invalid_request")

    def test_each_issuer_has_its_age(self, agent: AgentProcess) -> None:
        """What is too old for one issuer is not for another that was given more time."""
        taken(post(agent.socket, event(OTHER_KEY, iss=OTHER, ago=3_000)))
        check_refused(agent, event(ago=3_000), "invalid_request")

    def test_a_future_event_timestamp(self, agent: AgentProcess) -> None:
        """An event that claims to happen next year does not outlive those that follow."""
        check_refused(agent, event(events=risk(event_timestamp=time.time() + 31_536_000)), "invalid_request")

    @pytest.mark.parametrize("jti", [None, "", "x" * 1_000, 7])
    def test_without_a_jti(self, agent: AgentProcess, jti: Any) -> None:
        """What could be replayed unseen is refused."""
        check_refused(agent, event(jti=jti), "invalid_request")


class TestF8Case29Shape:
    def test_oversized(self, agent: AgentProcess) -> None:
        """An event that is larger than any good one is refused, announced or not."""
        check_refused(agent, event(reason="x" * 20_000), "too_large", 413)

        def chunks() -> Iterator[bytes]:
            for _ in range(40):
                yield b"x" * 1_000

        with httpx.Client(transport=httpx.HTTPTransport(uds=agent.socket), base_url="http://localhost") as caller:
            answer = caller.post("/events", content=chunks(), headers={"Content-Type": MEDIA_TYPE})
        assert (413, "too_large") == refused(answer)

    @pytest.mark.parametrize("levels", [40, 1_900])
    def test_deep_nesting(self, agent: AgentProcess, levels: int) -> None:
        """Claims in claims in claims are refused, signed or not, and the agent lives on."""
        text = json.dumps(claims(time.time()))[:-1] + ',"deep":' + '{"a":' * levels + "1" + "}" * (levels + 1)
        check_refused(agent, joined(HEADER, text.encode(), KEY), "invalid_request")

    @pytest.mark.parametrize("where", ["claims", "event", "header"])
    def test_duplicate_members(self, agent: AgentProcess, where: str) -> None:
        """What one reader might read otherwise than another is refused."""
        header, payload = json.dumps(HEADER), json.dumps(claims(time.time()))
        if where == "claims":
            payload = payload[:-1] + f',"aud":"{ISSUER}"}}'
        elif where == "event":
            payload = payload.replace('"principal"', '"current_level":"LOW","principal"')
        else:
            header = header[:-1] + ',"alg":"ES256"}'
        unsigned = f"{encoded(header.encode())}.{encoded(payload.encode())}"
        token = joined(HEADER, payload.encode(), KEY)
        check_refused(agent, f"{unsigned}.{token.rpartition('.')[2]}", "invalid_request")

    @pytest.mark.parametrize("body", [b"", b"{}", b"\xff\xfe", b"a.b.c", b"a.b", b"\x00" * 100, b"event\n"])
    def test_what_is_no_token(self, agent: AgentProcess, body: bytes) -> None:
        """Whatever else is sent is refused in good order."""
        check_refused(agent, body, "invalid_request")

    @pytest.mark.parametrize(
        "media_type", [None, "application/jwt", "application/json", "application/x-www-form-urlencoded", "text/plain"]
    )
    def test_other_media_types(self, agent: AgentProcess, media_type: str | None) -> None:
        """Only what says that it is an event is one: no form, no web page's request."""
        answer = post(agent.socket, event(), media_type)
        assert (415, "unsupported_media_type") == refused(answer)

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
    def test_other_methods(self, agent: AgentProcess, method: str) -> None:
        """Events are taken by POST alone."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=agent.socket), base_url="http://localhost") as caller:
            assert 405 == caller.request(method, "/events").status_code

    def test_injection_through_subjects(self, agent: AgentProcess) -> None:
        """Subjects with quotes, newlines and `::` are none of ours."""
        before = len(facts(agent))
        for text in (
            f'{SELF}"',
            f"{SELF}\n",
            'Sojourn::Workload::"x"',
            f"{SELF}/../other",
            "spiffe://example.org/%73elf",
        ):
            taken(post(agent.socket, event(sub_id=uri(text))))
        assert before == len(facts(agent))


class TestF8Case12TypeConfusion:
    def test_tokens_as_events(self, agent: AgentProcess, client: SyncClient) -> None:
        """A JWT-SVID is no event; nor is what the issuer signed as another kind of token."""
        svid = client.fetch_jwt_svid(ISSUER).token
        check_refused(agent, svid, "invalid_request")
        for typ in ("JWT", "at+jwt", "logout+jwt", "secevent+JWT", "application/secevent+jwt"):
            check_refused(agent, event(typ=typ), "invalid_request")

    def test_events_as_tokens(self, agent: AgentProcess, client: SyncClient) -> None:
        """An event is no access token, no JWT-SVID, no subject token and no client assertion."""
        token = event(sub=SELF, exp=int(time.time()) + 60)
        for sent in (token, event()):
            assert not client.validate_token(sent, ISSUER).valid
            assert 400 == post_form(agent.socket, form(sent)).status_code
            assertion = {"client_assertion": sent, "client_assertion_type": "jwt-spiffe"}
            good = client.fetch_jwt_svid(ISSUER).token
            assert post_form(agent.socket, form(good, **assertion)).status_code in {400, 401}

    def test_the_agents_own_keys_sign_no_events(self, agent: AgentProcess, client: SyncClient) -> None:
        """With a header of an event on it, a token of the agent's own is of an issuer that is not heard."""
        _, payload, signature = client.fetch_jwt_svid(ISSUER).token.split(".")
        check_refused(agent, f"{encoded(json.dumps(HEADER).encode())}.{payload}.{signature}", "invalid_issuer")


class TestF8Case29Replayed:
    def test_the_same_event_again(self, agent: AgentProcess) -> None:
        """A repeated event is answered as the first and has no effect, though the fact was unset meanwhile."""
        token = event()
        taken(post(agent.socket, token))
        before = len(facts(agent))
        for _ in range(3):
            taken(post(agent.socket, token))
        assert before == len(facts(agent))

    def test_the_same_jti_in_another_event(self, agent: AgentProcess) -> None:
        """A jti that was used is not used again for something else."""
        taken(post(agent.socket, event(jti="once")))
        check_refused(agent, event(jti="once", events=risk("LOW")), "invalid_request")

    def test_fifty_racers(self, agent: AgentProcess) -> None:
        """Of fifty at once one has an effect."""
        token, before = event(), len(facts(agent))
        accepted = len(records(agent, "signal_accepted"))

        async def race() -> list[int]:
            transport = httpx.AsyncHTTPTransport(uds=agent.socket, limits=httpx.Limits(max_connections=50))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as caller:
                headers = {"Content-Type": MEDIA_TYPE}
                sent = (caller.post("/events", content=token, headers=headers) for _ in range(50))
                return [answer.status_code for answer in await asyncio.gather(*sent)]

        assert [202] * 50 == asyncio.run(race())
        assert (before + 1, accepted + 1) == (len(facts(agent)), len(records(agent, "signal_accepted")))

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_over_a_restart(self, number: int) -> None:
        """What was answered is remembered when the agent stops or is killed."""
        with events_agent() as agent:
            tokens = [event() for _ in range(5)]
            for token in tokens:
                taken(post(agent.socket, token))
            before = len(facts(agent))
            agent.stop(number)
            agent.start()
            for token in tokens:
                taken(post(agent.socket, token))
            assert before == len(facts(agent))
            assert 5 == len(records(agent, "signal_accepted"))

    def test_killed_at_any_moment(self) -> None:
        """Killed while events come in, the agent loses none: each that is delivered again is in force, once."""
        with events_agent() as agent:
            for round_ in range(5):
                token = event(sub_id=uri(f"spiffe://example.org/round-{round_}"))
                pid = agent.pid
                with socket.socket(socket.AF_UNIX) as caller:
                    caller.connect(agent.socket)
                    killer = threading.Timer(0.001 * round_, os.kill, (pid, signal.SIGKILL))
                    killer.start()
                    head = f"POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: {MEDIA_TYPE}\r\n"
                    with contextlib.suppress(ConnectionError):
                        caller.sendall(f"{head}Content-Length: {len(token)}\r\n\r\n{token}".encode())
                        caller.recv(1)  # the answer begins, or the connection ends
                    killer.join()
                agent.stop(signal.SIGKILL)
                agent.start()
                taken(post(agent.socket, token))
                known = [each for each in facts(agent) if each["subject"].endswith(f"round-{round_}")]
                assert {"HIGH"} == {each["value"] for each in known}
                assert 1 == len({each["happened_at"] for each in known})
                accepted = [
                    each for each in records(agent, "signal_accepted") if known[0]["subject"] in each["subjects"]
                ]
                assert 1 == len(accepted)
            assert agent.json("audit", "verify")["intact"]

    def test_flapping_ends_in_the_newest_state(self, agent: AgentProcess) -> None:
        """Late arrivals of what is over change nothing: the newest event counts, in any order."""
        subject = uri("spiffe://example.org/flapping")
        now = time.time()
        levels = ["LOW", "HIGH", "LOW", "MEDIUM", "HIGH", "LOW"]
        tokens = [
            event(sub_id=subject, events=risk(level, event_timestamp=now - 60 + number))
            for number, level in enumerate(levels)
        ]
        for number in (3, 0, 5, 1, 4, 2):
            taken(post(agent.socket, tokens[number]))
        known = [each["value"] for each in facts(agent) if each["subject"] == subject["uri"]]
        assert ["MEDIUM", "LOW"] == known

    @pytest.mark.parametrize("ahead", [10, 50])
    def test_one_that_is_dated_ahead(self, agent: AgentProcess, ahead: int) -> None:
        """An event of a clock that is ahead keeps nothing out that is of now: what is acknowledged then is in force."""
        subject = uri(f"spiffe://example.org/ahead/{ahead}")
        taken(post(agent.socket, event(ago=-ahead, sub_id=subject, events=risk("LOW"))))
        taken(post(agent.socket, event(sub_id=subject, events=risk("HIGH"))))
        listed = agent.json("fact", "list")["facts"]
        assert ["HIGH"] == [each["value"] for each in listed if each["subject"] == subject["uri"]]


class TestWho:
    def test_publishers(self) -> None:
        """Where publishers are named, nobody else hands the issuer's events in, however well signed."""
        forwarder = "spiffe://example.org/forwarder"
        config = CONFIG + f'publishers = ["{forwarder}"]\n'
        with events_agent(config) as agent:
            token = event(OTHER_KEY, iss=OTHER)
            check_refused(agent, token, "authentication_failed")
            agent.register("/somebody", f"unix:uid:{os.getuid()}")
            check_refused(agent, token, "access_denied")
            taken(post(agent.socket, event()))
            agent.register("/forwarder", f"unix:uid:{os.getuid()}")
            taken(post(agent.socket, token))

    def test_no_issuer_no_door(self) -> None:
        """An agent that hears no issuer takes no events."""
        with events_agent('trust_domain = "example.org"\n[tasks]\ntypes_dir = "types"\n') as agent:
            assert 404 == post(agent.socket, event()).status_code
            done = agent.run("fact", "deliver", str(agent.config), check=False)
            assert 1 == done.returncode
            assert "[[signals]]" in done.stderr

    def test_refusals_are_on_record(self) -> None:
        """Who handed in what was refused, in whose name, and why, stands in the journal and the counts."""
        with events_agent() as agent:
            for token in (event(issuer_key("k1")), event(iss="https://nobody"), b"x"):
                post(agent.socket, token)
            found = records(agent, "signal_refused")
            assert [(IDP, "authentication_failed"), (None, "invalid_issuer"), (None, "invalid_request")] == [
                (each.get("issuer"), each["code"]) for each in found
            ]
            assert {(os.getuid(), os.getpid())} == {(each["uid"], each["pid"]) for each in found}
            assert [1, 0] == [each["refused"] for each in agent.json("status")["signals"]]

    def test_nothing_secret_is_told(self, agent: AgentProcess) -> None:
        """Events stand nowhere in the log or the journal, and their jti only as a digest."""
        token = event(jti="canary-7f3a9c", events={f"{CAEP}session-revoked": {}})
        taken(post(agent.socket, token))
        post(agent.socket, token[:-8] + "AAAAAAAA")
        told = agent.log.read_text() + agent.run("audit", "tail", "--lines", "1000").stdout
        assert "canary-7f3a9c" not in told
        assert token.split(".")[1] not in told
        assert token.split(".")[2] not in told
