"""What stands in a task's tokens, to what they are bound, and until when they are good."""

import asyncio
import json
from datetime import timedelta

import pytest
from fakes.clock import FakeClock
from fakes.next_run import NextRun
from fakes.task_room import ISSUER, Room
from fakes.task_types import TICKETS, task_type
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import Bug, InvalidInput, InvalidPolicy, InvalidToken, TaskOver
from sojourn.errors.oauth import BindingNeeded, DigestNeeded
from sojourn.jose.jws import private_jwk
from sojourn.limits import BOUND_PARAMS_MAX_BYTES
from sojourn.policy.approval_request import Person
from sojourn.tasktoken import tokens
from sojourn.tasktoken.request_digest import of_tool
from sojourn.tasktoken.sender_constraint import JKT, X5T, Binding, Proven, thumbprint_of

DIGEST = of_tool("close", {"ticket": 42})
CLIENT = Binding(JKT, "c" * 43)
TYPES = {
    "triage": task_type(),
    "short": task_type("short", token_ttl='"7s"'),
    "bound": task_type("bound", bound="true"),
    "high": task_type("high", consequence='"high"'),
    "quick": task_type("quick", consequence='"high"', token_ttl='"5s"'),
    "asked": task_type("asked", approval="{}"),
    "told": task_type("told", bind='{"ticket:read" = ["ticket"], "page:read" = []}'),
    "quiet": task_type("quiet", params='{ticket = "string", note = {type = "string", in_tokens = false}}'),
}


def certificate(clock, seconds=3600.0):
    return Binding.to_certificate(b"a certificate", clock.now() + timedelta(seconds=seconds))


@pytest.fixture
async def room(clock):
    async with Room(clock, TYPES).running() as running:
        yield running


def verified(room, token, **proven):
    return tokens.verify(
        token.token,
        keys=room.engine.keys.published,
        issuer=ISSUER,
        audience=TICKETS,
        now=room.clock.now(),
        proven=Proven(**proven),
    )


class TestBound:
    async def test_to_the_tasks_key(self, room):
        """With agent_key a token is bound to a key of the task, the same for all its tokens and no other task's."""
        task, other = await room.begin(), await room.begin()
        token = await room.engine.token(task, TICKETS, (), agent_key=True)
        again = await room.engine.token(task, TICKETS, (), agent_key=True)
        theirs = await room.engine.token(other, TICKETS, (), agent_key=True)
        assert {"jkt": task.key.public.thumbprint} == token.claims["cnf"] == again.claims["cnf"] != theirs.claims["cnf"]
        assert "DPoP" == token.token_type
        assert verified(room, token, jkt=task.key.public.thumbprint).binding == token.binding

    async def test_the_key_is_gone_with_the_task(self, room):
        """A task has no key before it needs one, and none after its end; it never shows, nor is it journaled."""
        task = await room.begin()
        assert task.key is None
        await room.engine.token(task, TICKETS, (), agent_key=True)
        secret = json.loads(private_jwk(task.key._key))["d"]
        assert secret not in f"{task!r} {task.record()!r} {room.store.events!r}"
        await room.engine.complete(task, failed=False)
        assert task.key is None

    async def test_to_a_clients_key(self, room):
        """A token that is bound to a client's key has its thumbprint."""
        token = await room.engine.token(await room.begin(), TICKETS, (), binding=CLIENT)
        assert ({"jkt": "c" * 43}, "DPoP") == (token.claims["cnf"], token.token_type)

    async def test_to_a_certificate(self, room, clock):
        """A token that is bound to a certificate has its thumbprint, and is sent as a bearer token is."""
        token = await room.engine.token(await room.begin(), TICKETS, (), binding=certificate(clock))
        assert {"x5t#S256": thumbprint_of(b"a certificate")} == token.claims["cnf"]
        assert "Bearer" == token.token_type
        assert verified(room, token, x5t=thumbprint_of(b"a certificate"))
        with pytest.raises(InvalidToken):
            verified(room, token)

    async def test_to_one_thing(self, room, clock):
        """Two bindings at once, and a certificate of unknown end, are faults of the agent's own."""
        task = await room.begin()
        for wrong in ({"binding": CLIENT, "agent_key": True}, {"binding": Binding(X5T, "c" * 43)}):
            with pytest.raises(Bug):
                await room.engine.token(task, TICKETS, (), **wrong)

    @pytest.mark.parametrize("name", ["bound", "high", "quick"])
    async def test_types_that_give_no_bearer_token(self, room, clock, name):
        """A type that says so, and any of high consequence, gives no token that whoever holds it may use."""
        task = await room.begin(name)
        with pytest.raises(BindingNeeded, match=name):
            await room.engine.token(task, TICKETS, (), params_digest=DIGEST)
        assert (0, 0) == (task.tokens_issued, task.spent.tokens)
        for how in ({"agent_key": True}, {"binding": CLIENT}, {"binding": certificate(clock)}):
            assert await room.engine.token(task, TICKETS, (), params_digest=DIGEST, **how)

    async def test_the_audit_says_to_what(self, room):
        """The record of a token has its binding and its digest."""
        await room.engine.token(await room.begin("high"), TICKETS, (), agent_key=True, params_digest=DIGEST)
        (record,) = room.store.fields("token_issued")
        assert (["jkt"], DIGEST) == (list(record["cnf"]), record["params_digest"])


class TestForOneRequest:
    async def test_digest(self, room):
        """A token for one request has its digest, and the verifier finds it."""
        token = await room.engine.token(await room.begin(), TICKETS, (), params_digest=DIGEST)
        assert DIGEST == verified(room, token).params_digest == token.params_digest

    @pytest.mark.parametrize("name", ["high", "quick"])
    async def test_high_needs_one(self, room, name):
        """A token of high consequence is for one request, or there is none."""
        task = await room.begin(name)
        with pytest.raises(DigestNeeded, match="one request"):
            await room.engine.token(task, TICKETS, (), agent_key=True)

    @pytest.mark.parametrize("text", ["x", DIGEST[:-1], DIGEST + "A", DIGEST[:-1] + "=", DIGEST[:-1] + "\n", "é" * 43])
    async def test_what_is_no_digest(self, room, text):
        """What is no SHA-256 in base64url is refused."""
        with pytest.raises(InvalidInput, match="params_digest"):
            await room.engine.token(await room.begin(), TICKETS, (), params_digest=text)


class TestEnds:
    @examples(60)
    @given(
        name=st.sampled_from(["triage", "short", "high", "quick"]),
        life=st.integers(2, 100),
        subject=st.none() | st.floats(1, 100),
        svid=st.none() | st.floats(1, 100),
        waited=st.floats(0, 3),
    )
    def test_with_the_first_to_end(self, name, life, subject, svid, waited):
        """Whatever its type, task, SVID and subject token: a token ends with the first of them, or there is none."""

        async def issued():
            clock = FakeClock()
            async with Room(clock, TYPES).running() as room:
                task = await room.begin(name, max_seconds=life)
                binding = certificate(clock, svid) if svid is not None else CLIENT
                not_after = None if subject is None else clock.now() + timedelta(seconds=subject)
                clock.advance(waited)
                ends = [task.expires_at, *([not_after] if not_after else []), *([binding.not_after] if svid else [])]
                now = clock.now()
                try:
                    token = await room.engine.token(
                        task, TICKETS, (), not_after=not_after, binding=binding, params_digest=DIGEST
                    )
                except TaskOver:
                    assert min(ends) < now + timedelta(seconds=1)
                    return
                most = min(*ends, now + TYPES[name].token_ttl)
                assert int(most.timestamp()) == token.claims["exp"] > now.timestamp()
                if TYPES[name].consequence == "high":
                    assert token.claims["exp"] - now.timestamp() <= 15

        asyncio.run(issued())

    async def test_a_step_of_the_wall_clock(self, room, clock):
        """A task's time runs on the boot clock: after a step back of the wall its tokens end no later than it does."""
        task = await room.begin(max_seconds=30)
        clock.advance(20)
        clock.step_wall(-3600)
        token = await room.engine.token(task, TICKETS, ())
        assert 10 == token.claims["exp"] - clock.now().timestamp()


class TestClaims:
    async def test_scope_and_status(self, room):
        """A token has its actions as scope, and names its place in a status list."""
        token = await room.engine.token(await room.begin(), TICKETS, ())
        assert "ticket:read ticket:write" == token.claims["scope"]
        assert f"{ISSUER}/status/7/0" == token.claims["status"]["status_list"]["uri"]
        assert "acr" not in token.claims
        assert "cnf" not in token.claims

    async def test_params(self, room):
        """A token carries the task's parameters, each with its type, and the verifier gives them back."""
        task = await room.begin(params={"ticket": "42", "level": "3", "urgent": "true"})
        token = await room.engine.token(task, TICKETS, ())
        expected = {"ticket": "42", "level": 3, "urgent": True}
        assert expected == token.claims["authorization_details"][0]["params"] == verified(room, token).params

    async def test_params_that_stay_here(self, room):
        """A parameter with in_tokens = false is in no token."""
        task = await room.begin("quiet", params={"ticket": "42", "note": "between us"})
        token = await room.engine.token(task, TICKETS, ())
        assert {"ticket": "42"} == verified(room, token).params

    async def test_which_of_them_concern_an_action(self, room):
        """A token says of its own actions alone which parameters concern them, as the type does."""
        task = await room.begin("told")
        token = await room.engine.token(task, TICKETS, ())
        assert {"ticket:read": ["ticket"]} == token.claims["task"]["bind"]

    async def test_too_much_of_them(self, room):
        """Parameters that are too long for tokens together are refused when the task begins, and those that stay not."""
        half = "x" * (BOUND_PARAMS_MAX_BYTES - 20)
        with pytest.raises(InvalidInput, match="in_tokens"):
            await room.begin(params={"ticket": half, "level": "1234567890"})
        assert await room.begin("quiet", params={"ticket": half, "note": half})
        with pytest.raises(InvalidInput, match="in_tokens"):  # they count as bytes
            await room.begin(params={"ticket": "é" * (BOUND_PARAMS_MAX_BYTES // 2)})

    def test_a_parameter_that_its_type_does_not_have(self):
        """A parameter of which the type says nothing stays in tokens: with less of them a token would allow more."""
        params = {"ticket": "42", "level": 3}
        assert params == task_type(params="{}").params_in_tokens(params)

    async def test_approved(self, room):
        """Tokens of a task that someone agreed to say so by acr, also after a restart of the agent."""
        task = await room.begin("asked")
        request = task.approval.request
        await room.approving.approve(
            request.id, request.digest, Person(501, 501, 1, frozenset()), operator=True, reason=""
        )
        token = await room.engine.token(task, TICKETS, ())
        assert "urn:sojourn:acr:approved" == token.claims["acr"]
        assert task.record().document["approved"] is True


class TestTypeFile:
    def test_high_is_bound(self):
        """A type of high consequence is bound, whether it says so or not, and cannot say that it is not."""
        assert [False, True, True] == [TYPES[name].bound for name in ("triage", "bound", "high")]
        assert not task_type(bound="false").bound
        with pytest.raises(InvalidPolicy, match="always bound"):
            task_type(consequence='"high"', bound="false")

    @pytest.mark.parametrize("value", ['"yes"', "1", '"true"'])
    def test_true_or_false(self, value):
        """`bound` and `in_tokens` are true or false, and nothing that could be read so."""
        with pytest.raises(InvalidPolicy, match="bound"):
            task_type(bound=value)
        with pytest.raises(InvalidPolicy, match="in_tokens"):
            task_type(params=f'{{ticket = {{type = "string", in_tokens = {value}}}}}')


async def test_approved_over_a_restart(room):
    """An approved task that comes back after a restart of the agent is an approved one."""
    from contextlib import AsyncExitStack

    task = await room.begin("asked")
    request = task.approval.request
    await room.approving.approve(request.id, request.digest, Person(501, 501, 1, frozenset()), operator=True, reason="")
    plain = await room.begin()
    async with AsyncExitStack() as stack:
        later = await NextRun.after(room, stack)
        assert (True, False) == (later.find(task).approved, later.find(plain).approved)
