"""What a service asks the agent: is this token good, and which tasks live?"""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.exchanges import part, unsigned, with_claims, with_header
from harness.looking import until
from harness.strangers import stranger
from harness.taskagent import ISSUER, PLACE_A, PLACE_B, STRANGER_UID, TICKETS, TRIAGE, make_agent
from harness.taskcalls import Feed, refusal, unary
from joserfc import jws
from joserfc.jwk import ECKey
from sojourn import Client, SyncClient, TaskVerifier
from sojourn._pb import workload_pb2
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import InvalidToken

VALIDATE = "/sojourn.v1.Validation/ValidateToken"
WATCH = "/sojourn.v1.Validation/WatchTasks"


@pytest.fixture(scope="module")
def client(shared: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(shared.socket) as opened:
        yield opened


@pytest.fixture
def token(client: SyncClient) -> Iterator[str]:
    """A token of a task that lives until the test is over."""
    with client.task("triage-ticket") as task:
        yield task.token().token


@pytest.fixture(scope="module")
def svid(client: SyncClient) -> str:
    return client.fetch_jwt_svid(TICKETS).token


def validate(shared: AgentProcess, token: str, audience: str = TICKETS, **more: Any) -> pb.ValidateTokenResponse:
    request = pb.ValidateTokenRequest(token=token, audience=audience, **more)
    return unary(shared.socket, VALIDATE, request, pb.ValidateTokenResponse)


# --- one token ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["TOKEN_KIND_UNSPECIFIED", "TOKEN_KIND_TASK"])
def test_a_task_token_is_good(shared: AgentProcess, token: str, kind: str) -> None:
    """A task token is good for its audience and its action, as what it is, and its claims are told."""
    answer = validate(shared, token, kind=pb.TokenKind.Value(kind), action="ticket:read")
    assert (True, "", pb.TOKEN_KIND_TASK, TRIAGE) == (answer.valid, answer.code, answer.kind, answer.spiffe_id)
    assert part(token, 1)["jti"] == answer.claims["jti"]


@pytest.mark.parametrize("kind", ["TOKEN_KIND_UNSPECIFIED", "TOKEN_KIND_JWT_SVID"])
def test_a_jwt_svid_is_good(shared: AgentProcess, svid: str, kind: str) -> None:
    """A JWT-SVID is good for its audience, as what it is."""
    answer = validate(shared, svid, kind=pb.TokenKind.Value(kind))
    assert (True, "", pb.TOKEN_KIND_JWT_SVID, TRIAGE) == (answer.valid, answer.code, answer.kind, answer.spiffe_id)


def check_not_good(answer: pb.ValidateTokenResponse, code: str) -> None:
    """A verdict that says no, why, and nothing else."""
    assert (False, code) == (answer.valid, answer.code)
    assert answer.reason
    assert ("", {}) == (answer.spiffe_id, dict(answer.claims))


def test_a_jwt_svid_is_no_task_token(shared: AgentProcess, svid: str) -> None:
    """A JWT-SVID is not good where a task token is asked for, and grants no action."""
    check_not_good(validate(shared, svid, kind=pb.TOKEN_KIND_TASK), "wrong_type")
    check_not_good(validate(shared, svid, action="ticket:read"), "wrong_type")


def test_a_task_token_is_no_jwt_svid(shared: AgentProcess, token: str) -> None:
    """A task token is not good where a JWT-SVID is asked for, neither here nor at the Workload API."""
    check_not_good(validate(shared, token, kind=pb.TOKEN_KIND_JWT_SVID), "wrong_type")
    request = workload_pb2.ValidateJWTSVIDRequest(audience=TICKETS, svid=token)
    status, _ = refusal(
        shared.socket, "/SpiffeWorkloadAPI/ValidateJWTSVID", request, workload_pb2.ValidateJWTSVIDResponse
    )
    assert "INVALID_ARGUMENT" == status


def test_a_type_in_the_header_makes_no_kind(shared: AgentProcess, token: str, svid: str) -> None:
    """Renaming a token's type does not make it the other kind."""
    assert not validate(shared, with_header(token, typ="JWT")).valid
    assert not validate(shared, with_header(svid, typ="at+jwt")).valid


@pytest.mark.parametrize("audience", [PLACE_A, f"{TICKETS}/", TICKETS.upper(), TICKETS[:-1], "*", ISSUER])
def test_another_audience(shared: AgentProcess, token: str, svid: str, audience: str) -> None:
    """A token is good for exactly the audience that it names, byte for byte."""
    for each in (token, svid):
        check_not_good(validate(shared, each, audience), "wrong_audience")


@pytest.mark.parametrize("action", ["ticket:close", "ticket:*", "TICKET:READ", "ticket:rea", "ticket:read "])
def test_an_action_that_is_not_granted(shared: AgentProcess, token: str, action: str) -> None:
    """A token grants exactly the actions that it names."""
    check_not_good(validate(shared, token, action=action), "action_not_granted")


def own_key(token: str) -> str:
    key = ECKey.generate_key("P-256", private=True)
    return jws.serialize_compact(part(token, 0), json.dumps(part(token, 1)).encode(), key, algorithms=["ES256"])


@pytest.mark.parametrize(
    "made",
    [
        unsigned,
        own_key,
        lambda token: with_header(token, alg="HS256"),
        lambda token: with_header(token, kid="x" * 1000),
        lambda token: with_header(token, jwk={"kty": "EC"}),
        lambda token: with_claims(token, exp=2**33),
        lambda token: with_claims(token, task={"id": "tsk_x", "type": "triage-ticket", "ver": 2**62}),
        lambda token: token + "A",
        lambda token: "." + token,
        lambda _: "garbage",
        lambda _: "..",
        lambda _: "a" * 20_000,
    ],
    ids=["alg none", "own key", "HS256", "kid", "jwk", "exp", "task", "longer", "dot", "garbage", "dots", "long"],
)  # fmt: skip
def test_forged_tokens(shared: AgentProcess, token: str, svid: str, made: Any) -> None:
    """A token that this agent did not sign is a verdict of no, with a code and a sentence, and never an error."""
    for each in (token, svid):
        answer = validate(shared, made(each))
        assert not answer.valid
        assert answer.code
        assert "\n" not in answer.reason


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (pb.ValidateTokenRequest(audience="a"), "token must be specified"),
        (pb.ValidateTokenRequest(token="a"), "audience must be specified"),
        (pb.ValidateTokenRequest(token="a", audience="a", kind=7), "kind is unknown"),
    ],
    ids=["no token", "no audience", "kind"],
)
def test_malformed_questions(shared: AgentProcess, request_: Any, sentence: str) -> None:
    """A question that lacks something is refused with the sentence that says what."""
    answer = refusal(shared.socket, VALIDATE, request_, pb.ValidateTokenResponse)
    assert ("INVALID_ARGUMENT", sentence) == answer


def test_a_token_of_an_earlier_run() -> None:
    """Tokens of an earlier run of the agent are dead after a restart, whether their task comes back or not."""
    with make_agent() as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with Caller(agent.socket) as holder:
            task = holder.ask("begin_process", type="triage-ticket")["id"]
            token = holder.ask("token", task=task)["token"]
            svid = holder.ask("jwt", audience=TICKETS)["token"]
            version = part(token, 1)["task"]["ver"]
            agent.kill()
            agent.start()
            with SyncClient(agent.socket) as client:
                verdict = client.validate_token(token, TICKETS)
                assert (False, True) == (verdict.valid, verdict.code in {"unknown_key", "task_over"})
                assert client.validate_token(svid, TICKETS).valid  # an identity outlives the agent's run
                with client.task("triage-ticket") as fresh:
                    assert version < part(fresh.token().token, 1)["task"]["ver"]
                assert "active" == holder.ask("attach", task=task)["state"]
                assert not client.validate_token(token, TICKETS).valid


# --- the feed -------------------------------------------------------------------------------------------------------


def test_a_feed_begins_with_a_snapshot(shared: AgentProcess, client: SyncClient) -> None:
    """A feed begins with the live tasks at its audiences, the issuer and its public keys."""
    with client.task("triage-ticket") as task, client.task("two-places") as elsewhere:
        with Feed(shared.socket, [TICKETS]) as feed:
            first = feed.hear()
        token = task.token().token
    assert "snapshot" == first.WhichOneof("message")
    live = {state.id: (state.live, state.version) for state in first.snapshot.tasks}
    assert (True, part(token, 1)["task"]["ver"]) == live[task.id]
    assert elsewhere.id not in live
    assert (ISSUER, shared.json("status")["epoch"]) == (first.issuer, first.epoch)
    keys = json.loads(first.keys)["keys"]
    assert [part(token, 0)["kid"]] == [key["kid"] for key in keys]
    assert "d" not in keys[0]
    with Feed(shared.socket, [TICKETS]) as feed:
        assert task.id not in {state.id for state in feed.hear().snapshot.tasks}


def test_a_feed_tells_of_changes(shared: AgentProcess, client: SyncClient) -> None:
    """A feed tells of each task that begins and ends at its audiences, with versions that grow."""
    with Feed(shared.socket, [TICKETS]) as feed:
        epoch = feed.hear("snapshot").epoch
        with client.task("triage-ticket") as task:
            began = feed.delta(task.id, live=True)
        ended = feed.delta(task.id, live=False)
    assert ("active", "completed: success") == (began.reason, ended.reason)
    assert epoch == began.version >> 32 == ended.version >> 32
    assert began.version < ended.version


def test_a_feed_tells_nothing_of_other_places(shared: AgentProcess, client: SyncClient) -> None:
    """A feed tells only of tasks at one of its audiences."""
    with Feed(shared.socket, [PLACE_B]) as feed, Feed(shared.socket, [TICKETS, PLACE_A]) as both:
        feed.hear("snapshot")
        both.hear("snapshot")
        with client.task("triage-ticket") as elsewhere, client.task("two-places") as here:
            both.delta(elsewhere.id, live=True)
            both.delta(here.id, live=True)
            feed.delta(here.id, live=True)
        both.delta(elsewhere.id, live=False)
        feed.delta(here.id, live=False)
        assert [] == feed.heard_of(elsewhere.id)


@pytest.mark.forked
def test_a_feed_has_a_heartbeat(shared: AgentProcess) -> None:
    """A feed at whose audiences nothing happens sends heartbeats with the agent's time."""
    with Feed(shared.socket, ["https://nothing.example"]) as feed:
        one, two = feed.hear("heartbeat"), feed.hear("heartbeat")
    assert one.heartbeat.sent_at_ms < two.heartbeat.sent_at_ms <= time.time() * 1000
    assert one.epoch == two.epoch == shared.json("status")["epoch"]


@pytest.mark.parametrize(
    ("audiences", "sentence"),
    [
        ([], "audiences must be specified"),
        (["a", ""], "audiences must be specified"),
        ([f"a{number}" for number in range(101)], "more than 100 audiences, or 16384 bytes of them"),
        (["a" * 20_000], "more than 100 audiences, or 16384 bytes of them"),
    ],
    ids=["none", "empty", "many", "long"],
)
def test_feeds_that_are_refused(shared: AgentProcess, audiences: list[str], sentence: str) -> None:
    """A feed without audiences, or with too many or too long ones, is refused."""
    with Feed(shared.socket, audiences) as feed:
        assert ("INVALID_ARGUMENT", sentence) == feed.end()


@pytest.mark.forked
def test_a_feed_ends_with_the_identity(agent: AgentProcess) -> None:
    """A feed is refused to a caller without identity, and ends when its caller loses the identity."""
    with Feed(agent.socket, [TICKETS]) as feed:
        assert ("PERMISSION_DENIED", "no identity issued") == feed.end()
    entry = agent.register("/service", f"unix:uid:{os.getuid()}")
    with Feed(agent.socket, [TICKETS]) as feed:
        feed.hear("snapshot")
        agent.run("entry", "delete", entry["id"])
        assert ("PERMISSION_DENIED", "no identity issued") == feed.end()


@pytest.mark.root
def test_anybody_may_ask_about_a_token(shared: AgentProcess, token: str) -> None:
    """A process without identity may ask about a token that it holds."""
    with stranger(shared.socket, STRANGER_UID) as service:
        answer = service.ask("validate", token=token, audience=TICKETS, action="ticket:read")
        assert (True, "") == (answer["valid"], answer["reason"])


# --- the SDK's verifier ---------------------------------------------------------------------------------------------


async def test_the_verifier_follows_the_feed(shared: AgentProcess) -> None:
    """The SDK's verifier accepts a token of a live task, and refuses it as soon as the feed says that the task is over."""
    async with Client(shared.socket) as client, TaskVerifier(client, TICKETS) as verifier:
        await verifier.feed.wait_ready(10)
        async with client.task("triage-ticket") as task:
            token = (await task.token()).token
            assert task.id == (await verifier.verify(token, "ticket:read")).task_id
        error = await refusal_of(verifier, token)
        assert ("task_over", "the task is over: completed: success") == (error.reason_code, str(error))


async def refusal_of(verifier: TaskVerifier, token: str) -> InvalidToken:
    """The error once the token is refused; the feed's word arrives in its own time."""
    async with asyncio.timeout(10):
        while True:
            try:
                await verifier.verify(token)
            except InvalidToken as error:
                return error
            await asyncio.sleep(0.01)


def test_a_feed_is_closed_with_its_caller(shared: AgentProcess) -> None:
    """A feed whose caller goes away leaves no stream behind."""
    with Feed(shared.socket, ["https://going.example"]) as feed:
        feed.hear("snapshot")
        assert os.getpid() in {stream["pid"] for stream in shared.json("status")["streams"]}
    until(lambda: not [s for s in shared.json("status")["streams"] if s["pid"] == os.getpid()], "no stream is left")


# --- use ------------------------------------------------------------------------------------------------------------

REPORT = "/sojourn.v1.Validation/ReportUse"


def test_uses_are_counted(shared: AgentProcess, token: str, svid: str) -> None:
    """Uses of good tokens count; of forged ones, of other kinds and of other actions they do not, and are no error."""
    forged = with_claims(token, sub="spiffe://example.org/other")
    uses = [
        pb.TokenUse(token=token, action="ticket:read", calls=2),
        *(pb.TokenUse(token=each, action="ticket:read", calls=1) for each in (forged, svid, "", "a.b.c", token[:-4])),
        pb.TokenUse(token=token, action="ticket:write", calls=1),
    ]
    answer = unary(shared.socket, REPORT, pb.ReportUseRequest(uses=uses), pb.ReportUseResponse)
    assert 1 == answer.counted


@pytest.mark.parametrize(
    "uses",
    [
        [pb.TokenUse(token="a", action="b", calls=1)] * 201,
        [pb.TokenUse(token="a", action="b", calls=0)],
        [pb.TokenUse(token="a", action="b", calls=1_000_001)],
    ],
    ids=["many", "none", "too-many-calls"],
)
def test_reports_that_are_none(shared: AgentProcess, uses: list[pb.TokenUse]) -> None:
    """A report of use that is beyond its limits, or says nothing, is refused."""
    code, _ = refusal(shared.socket, REPORT, pb.ReportUseRequest(uses=uses), pb.ReportUseResponse)
    assert "INVALID_ARGUMENT" == code


def test_a_sender_of_two_tales(shared: AgentProcess, token: str) -> None:
    """Whoever says two things of one sender is told so."""
    for sender in (pb.Sender(dpop_proof="a", jkt="A" * 43), pb.Sender(x5t="short")):
        request = pb.ValidateTokenRequest(token=token, audience=TICKETS, sender=sender)
        code, _ = refusal(shared.socket, VALIDATE, request, pb.ValidateTokenResponse)
        assert "INVALID_ARGUMENT" == code
