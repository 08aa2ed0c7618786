"""Abuse of bindings where tokens are issued: proofs that are forged, used again or kept, and tokens that shed a bond."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.jws import encoded, joined
from harness.agent import AgentProcess
from harness.clocks import SteppedAgent
from harness.exchanges import form, part, post
from harness.looking import until
from harness.strangers import stranger
from harness.taskagent import ISSUER, PLACE_A, THIRD_UID, TICKETS, make_agent, shared_agent, write_type
from harness.taskcalls import refusal, unary
from joserfc import jws
from joserfc.jwk import OctKey
from sojourn import Client, SyncClient
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.errors import InvalidInput, InvalidSvid, NotFound, SojournError
from sojourn.errors.oauth import BindingNeeded, InvalidProof, NonceNeeded
from sojourn.jose.jws import SigningKey
from sojourn.tasktoken import dpop
from sojourn.tasktoken.request_digest import of_tool

KEY = SigningKey.generate("client")
ENDPOINT = f"{ISSUER}/token"
PUBLIC = {name: value for name, value in KEY.public.jwk.items() if name != "kid"}
DIGEST = of_tool("destroy", {})
GET_TOKEN, CREATE_PROOF = "/sojourn.v1.Tasks/GetToken", "/sojourn.v1.Tasks/CreateProof"


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    with shared_agent() as agent:
        time.sleep(1.1)  # proofs of the second in which it began need a nonce
        yield agent


@pytest.fixture(scope="module")
def client(shared: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(shared.socket) as opened:
        yield opened


@pytest.fixture
def task(client: SyncClient) -> Iterator[str]:
    held = client.begin_task("triage-ticket", params={"ticket": "1"})
    yield held.id
    held.complete()


def proof(*, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A proof whose signature is good, with changed claims and headers; None leaves one out."""
    claims = {"jti": os.urandom(9).hex(), "htm": "POST", "htu": ENDPOINT, "iat": int(time.time()), **changes}
    said = {"alg": "ES256", "typ": "dpop+jwt", "jwk": PUBLIC, **(header or {})}
    kept = [{name: value for name, value in each.items() if value is not None} for each in (said, claims)]
    return joined(kept[0], json.dumps(kept[1]).encode(), KEY)


def symmetric(algorithm: str) -> str:
    """A proof whose key is a shared secret that it shows."""
    secret = OctKey.generate_key(256)
    header = {"alg": algorithm, "typ": "dpop+jwt", "jwk": secret.as_dict(private=True)}
    registry = jws.JWSRegistry(algorithms=[algorithm])
    registry.strict_check_header = False
    claims = {"jti": "j", "htm": "POST", "htu": ENDPOINT, "iat": int(time.time())}
    return jws.serialize_compact(header, json.dumps(claims).encode(), secret, registry=registry)


def unsigned() -> str:
    header, claims, _ = proof().split(".")
    del header
    return f"{encoded(json.dumps({'alg': 'none', 'typ': 'dpop+jwt', 'jwk': PUBLIC}).encode())}.{claims}."


FORGED: dict[str, Callable[[], str]] = {
    "private key in jwk": lambda: proof(header={"jwk": {**PUBLIC, "d": PUBLIC["x"]}}),
    "secret in jwk": lambda: proof(header={"jwk": {**PUBLIC, "k": PUBLIC["x"]}}),
    "HS256 by its own secret": lambda: symmetric("HS256"),
    "HS256 in the header": lambda: proof(header={"alg": "HS256"}),
    "none": unsigned,
    "another's key": lambda: proof(
        header={"jwk": {name: value for name, value in SigningKey.generate("x").public.jwk.items() if name != "kid"}}
    ),
    "no jwk": lambda: proof(header={"jwk": None}),
    "kid and no jwk": lambda: proof(header={"jwk": None, "kid": "client"}),
    "crit": lambda: proof(header={"crit": ["jwk"]}),
    "x5c": lambda: proof(header={"x5c": ["AAAA"]}),
    "typ": lambda: proof(header={"typ": "at+jwt"}),
    "htm": lambda: proof(htm="GET"),
    "htm in lower case": lambda: proof(htm="post"),
    "htu of a service": lambda: proof(htu=TICKETS),
    "htu with a slash": lambda: proof(htu=f"{ENDPOINT}/"),
    "htu in capitals": lambda: proof(htu=ENDPOINT.upper()),
    "htu with a port": lambda: proof(htu=ENDPOINT.replace("/token", ":443/token")),
    "htu escaped": lambda: proof(htu=ENDPOINT.replace("token", "%74oken")),
    "old": lambda: proof(iat=int(time.time()) - 61),
    "of the future": lambda: proof(iat=int(time.time()) + 60),
    "iat as text": lambda: proof(iat=str(int(time.time()))),
    "no iat": lambda: proof(iat=None),
    "no jti": lambda: proof(jti=None),
    "empty jti": lambda: proof(jti=""),
    "long jti": lambda: proof(jti="j" * 257),
    "nothing": lambda: "..",
    "two": lambda: f"{proof()},{proof()}",
}


@pytest.mark.forked
@pytest.mark.parametrize("name", FORGED)
def test_F8_16_a_proof_that_is_not_good(client: SyncClient, task: str, name: str) -> None:
    """No proof that is forged, for something else, or not of now gets a token, and no token is counted for it."""
    with pytest.raises(InvalidProof) as caught:
        client.get_token(task, TICKETS, dpop_proof=FORGED[name]())
    assert not isinstance(caught.value, NonceNeeded)
    assert "invalid_dpop_proof" == caught.value.remote_code


def test_F8_16_the_same_proof_fifty_times_at_once(shared: AgentProcess) -> None:
    """Of fifty calls at once with the same proof one gets a token, on connections of their own or on one."""

    async def race() -> list[str]:
        async with Client(shared.socket) as one, Client(shared.socket) as two:
            held = await one.begin_task("triage-ticket", params={"ticket": "1"})
            nonce = None
            try:
                await one.get_token(held.id, TICKETS, dpop_proof=proof())
            except NonceNeeded as needed:  # the agent has just begun
                nonce = needed.nonce
            text, got, refusals = proof(nonce=nonce), [], []

            async def call(client: Client) -> None:
                try:
                    got.append((await client.get_token(held.id, TICKETS, dpop_proof=text)).token)
                except InvalidProof as error:
                    refusals.append("used before" in error.public)

            await asyncio.gather(*(call((one, two)[number % 2]) for number in range(50)))
            assert [True] * 49 == refusals
            await held.complete()
            return got

    assert 1 == len(asyncio.run(race()))


def test_F8_16_a_proof_over_a_restart() -> None:
    """A proof that was used, or made, before the agent was killed is good for nothing after it; nor is its old nonce."""
    with make_agent() as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with SyncClient(agent.socket) as client:
            held = client.begin_task("triage-ticket", params={"ticket": "1"})
            with pytest.raises(NonceNeeded) as first:
                client.get_token(held.id, TICKETS, dpop_proof=proof(iat=int(time.time()) - 30))
            nonce = first.value.nonce
            used, kept = proof(nonce=nonce), proof()
            assert client.get_token(held.id, TICKETS, dpop_proof=used)
            agent.kill()
            agent.start()
            until(lambda: held.token(TICKETS), "the task is back")
            for text in (used, kept, proof(nonce=nonce), proof(iat=int(time.time()) - 30)):
                with pytest.raises(NonceNeeded) as caught:
                    client.get_token(held.id, TICKETS, dpop_proof=text)
                assert caught.value.nonce not in {"", nonce}
            assert client.get_token(held.id, TICKETS, dpop_proof=proof(nonce=caught.value.nonce))


@pytest.mark.forked
def test_F8_16_a_proof_after_a_step_of_the_clock() -> None:
    """After the wall clock was set back, a proof that was used is not good again, and a new one needs a nonce."""
    with SteppedAgent() as agent, SyncClient(agent.socket) as client:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        held = until(lambda: _begun(client), "the task has begun")
        agent.step(timedelta(hours=1))

        def asked(**changes: Any) -> Any:
            return client.get_token(held.id, TICKETS, dpop_proof=proof(iat=int(agent.now().timestamp()), **changes))

        nonce = until(lambda: _nonce_needed(asked), "a proof of the new time needs a nonce and nothing else")
        stamp = int(agent.now().timestamp())
        used = proof(iat=stamp, nonce=nonce)
        assert client.get_token(held.id, TICKETS, dpop_proof=used)
        agent.step(-timedelta(minutes=30))
        for text in (used, proof(iat=int(agent.now().timestamp()))):
            with pytest.raises(InvalidProof):
                client.get_token(held.id, TICKETS, dpop_proof=text)
        with pytest.raises(NonceNeeded) as caught:
            asked()
        assert asked(nonce=caught.value.nonce)
        agent.step(timedelta(minutes=30))
        with pytest.raises(InvalidProof, match="used before"):
            client.get_token(held.id, TICKETS, dpop_proof=used)


def _begun(client: SyncClient) -> Any:
    try:
        return client.begin_task("triage-ticket", params={"ticket": "1"})
    except SojournError:
        return None


def _nonce_needed(call: Callable[[], Any]) -> str:
    try:
        call()
    except NonceNeeded as needed:
        return needed.nonce
    except InvalidProof:  # the agent has not yet read the clock
        pass
    return ""


def test_F8_17_a_certificate_that_is_not_the_tasks(shared: AgentProcess, client: SyncClient, task: str) -> None:
    """A token is bound to an SVID of the task's workload alone: not to another's, nor to a revoked one."""
    theirs = shared.register("/elsewhere", f"unix:uid:{os.getuid()}")
    try:
        svids = until(
            lambda: len(client.fetch_x509_svids().svids) > 1 and client.fetch_x509_svids(), "both SVIDs"
        ).svids
        other = next(svid for svid in svids if svid.spiffe_id.path == "/elsewhere")
        mine = next(svid for svid in svids if svid.spiffe_id.path == "/agent/triage")
        with pytest.raises(InvalidSvid, match="another workload"):
            client.get_token(task, TICKETS, certificate=other.leaf.public_bytes(Encoding.DER))
        assert client.get_token(task, TICKETS, certificate=mine.leaf.public_bytes(Encoding.DER))
    finally:
        shared.run("entry", "delete", theirs["id"])


def test_F8_17_a_revoked_certificate() -> None:
    """Once an SVID is revoked no token is bound to it."""
    with make_agent() as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with SyncClient(agent.socket) as client:
            svid = client.fetch_x509_svids().default
            held = client.begin_task("triage-ticket", params={"ticket": "1"})
            leaf = svid.leaf.public_bytes(Encoding.DER)
            assert client.get_token(held.id, TICKETS, certificate=leaf)
            agent.run("svid", "revoke", "--serial", svid.serial)
            with pytest.raises(InvalidSvid, match="revoked"):
                client.get_token(held.id, TICKETS, certificate=leaf)


@pytest.mark.root
def test_F8_14_a_proof_for_another_process(shared: AgentProcess, client: SyncClient, task: str) -> None:
    """Another user's process gets no proof by a task's key: task and token might as well not exist."""
    token = client.get_token(task, TICKETS, bound="agent").token
    with stranger(shared.socket, THIRD_UID) as other:
        answers = {
            json.dumps(other.ask("proof", task=name, method="GET", url=TICKETS, token=token))
            for name in (task, "tsk_AAAAAAAAAAAAAAAAAAAAAA")
        }
    assert 1 == len(answers)
    assert "there is no such task" in answers.pop()


@pytest.mark.root
@pytest.mark.parametrize("binding", [{}, {"agent_key": False}, {"dpop_proof": ""}, {"certificate": b""}])
def test_C5_59_no_bond_is_shed(shared: AgentProcess, client: SyncClient, binding: dict[str, Any]) -> None:
    """A type of bound tokens gives no bearer token: not for an empty binding, and not in exchange for an identity."""
    held = client.begin_task("careful")
    request = pb.GetTokenRequest(task_id=held.id, resource=PLACE_A, params_digest=DIGEST, **binding)
    assert "INVALID_ARGUMENT" == refusal(shared.socket, GET_TOKEN, request, pb.GetTokenResponse)[0]
    subject = client.fetch_jwt_svid(ISSUER).token
    details = [{"type": "careful", "actions": ["doc:destroy"], "locations": [PLACE_A], "params_digest": DIGEST}]
    for fields in ({}, {"task_id": held.id}):
        response = post(
            shared.socket, form(subject, audience=PLACE_A, authorization_details=json.dumps(details), **fields)
        )
        assert response.status_code in {400, 401, 403}
        assert "access_token" not in response.json()
        subject = client.fetch_jwt_svid(ISSUER).token
    held.complete()


def test_C5_59_a_type_that_becomes_bound() -> None:
    """When a type is changed to give bound tokens only, tasks that began before get no bearer token any more."""
    toml, cedar = (
        '[[ceiling]]\nresource = "https://a.example.org"\nactions = ["doc:read"]\n',
        '@id("all") permit (principal, action, resource);',
    )
    head = 'allowed_workloads = ["spiffe://example.org/agent/triage"]\n'
    with make_agent() as agent:
        write_type(agent.folder / "types", "later", head + toml, cedar)
        agent.run("policy", "reload")
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with SyncClient(agent.socket) as client:
            held = client.begin_task("later")
            assert held.token(PLACE_A)
            write_type(agent.folder / "types", "later", head + "bound = true\n" + toml, cedar)
            agent.run("policy", "reload")
            with pytest.raises(BindingNeeded):
                held.token(PLACE_A)
            assert held.token(PLACE_A, bound="agent")


def test_C5_56_a_bound_token_outlives_nothing() -> None:
    """A token that is bound to an SVID ends with it, and one of a task with the task, whichever is first."""
    with make_agent() as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}", x509_svid_ttl="20s")
        with SyncClient(agent.socket) as client:
            svid = client.fetch_x509_svids().default
            for seconds in (0, 5):
                held = client.begin_task("triage-ticket", params={"ticket": "1"}, max_seconds=seconds)
                token = held.token(TICKETS, certificate=svid.leaf.public_bytes(Encoding.DER))
                ends = min(svid.not_after, held.expires_at) if seconds else svid.not_after
                assert part(token.token, 1)["exp"] <= ends.timestamp()
                held.complete()


def test_the_agents_key_stays(shared: AgentProcess, client: SyncClient) -> None:
    """Nothing that the agent says, logs or journals has the private key of a task, and each task has its own."""
    tokens = []
    for _ in range(3):
        held = client.begin_task("triage-ticket", params={"ticket": "1"})
        token = held.token(TICKETS, bound="agent")
        header = part(held.proof("GET", TICKETS, token), 0)
        assert {"kty", "crv", "x", "y"} == set(header["jwk"])
        tokens.append(token.token)
        held.complete()
    assert 3 == len({part(token, 1)["cnf"]["jkt"] for token in tokens})
    written = shared.log.read_text() + json.dumps(shared.json("audit", "tail"))
    assert not [token for token in tokens if token.rpartition(".")[2] in written]
    assert '"d":' not in written


@pytest.mark.forked
def test_a_proof_is_nothing_else(shared: AgentProcess, client: SyncClient, task: str) -> None:
    """A proof by a task's key gets no other token: it is for another URL, and nobody can ask for one for the agent's."""
    token = client.get_token(task, TICKETS, bound="agent").token
    request = pb.CreateProofRequest(task_id=task, method="POST", url=ENDPOINT, access_token=token)
    made = unary(shared.socket, CREATE_PROOF, request, pb.CreateProofResponse).proof
    with pytest.raises((InvalidInput, NotFound)):
        client.create_proof(task, "POST", ENDPOINT, made)
    assert not client.validate_token(made, TICKETS).valid
    assert dpop.read(made, method="POST", url=ENDPOINT, now=datetime.now(UTC), token=token)
