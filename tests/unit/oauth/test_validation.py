"""oauth/validation.py: which tokens are good, sent by whom, for what; and what was done with them counts."""

import asyncio
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.persons import made_for
from fakes.registrations import TRUST_DOMAIN
from fakes.task_feed import signing_key
from fakes.task_room import ISSUER, Room
from fakes.task_types import TICKETS, TRIAGE, WIKI, task_type
from sojourn.errors import InvalidInput, StoreFailed
from sojourn.jose.jws import SigningKey, UnverifiedJws
from sojourn.limits import (
    DPOP_AGE_SECONDS,
    DPOP_SKEW_SECONDS,
    SINGLE_USES_REMEMBERED,
    TOKEN_SKEW_SECONDS,
    TOKEN_TTL_HIGH_CLASS_SECONDS,
    TOKEN_USE_CALLS_MAX,
)
from sojourn.oauth.validation import JWT_SVID, TASK, TokenValidation
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken import dpop, request_digest, sender_constraint, tokens
from sojourn.tasktoken.dpop_replays import Replays
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.request_record import Served
from sojourn.tasktoken.sender_constraint import JKT, Binding, Sender, thumbprint_of
from sojourn.tasktoken.task_claim import TaskClaim

TRIAGE_ID = SpiffeId.parse(TRIAGE)
URL = f"{TICKETS}/tickets/42"
DIGEST = request_digest.of_http("DELETE", "/tickets/42", b"")
TYPES = {
    "limited": task_type("limited", limits='{"ticket:read" = 1}'),
    "triage": task_type(person='{need = "optional"}'),
    "careful": task_type("careful", consequence='"high"', token_ttl='"15s"'),
    "thrifty": task_type("thrifty", max_reported_calls=3),
}


class FakeIdentities:
    """Validates JWT-SVIDs of one authority, as Identities does for callers without federation."""

    def __init__(self, authority, clock):
        self._authority = authority
        self._clock = clock

    def verify_jwt_svid(self, token, audience):
        keys = {TRUST_DOMAIN: self._authority.bundle.jwt_authorities}
        return jwtsvid.verify(token, audience, keys, self._clock.now())


class Court(Room):
    """A room with a judge in it."""

    def __init__(self, clock, folder):
        super().__init__(clock, TYPES)
        self.authority = authority_in(folder, clock)
        replays = Replays(clock.now, clock.boot)
        clock.advance(DPOP_AGE_SECONDS + DPOP_SKEW_SECONDS)  # so that proofs need no nonce
        self.judging = TokenValidation(self.engine, FakeIdentities(self.authority, clock), replays, clock)

    async def token(self, type_name="triage", actions=("ticket:read",), **arguments):
        task = await self.begin(type_name)
        return (await self.engine.token(task, TICKETS, actions, **arguments)).token

    def subject(self, audience):
        return self.authority.issue_jwt(TRIAGE_ID, audience, timedelta(minutes=5)).token

    def proof(self, key, token, *, method="GET", url=URL, **arguments):
        made = dpop.make(key, method=method, url=url, now=self.clock.now(), token=token, **arguments)
        return Sender(dpop_proof=made, method="GET", url=URL)

    def code(self, token, **arguments):
        return self.judging.validate(token, TICKETS, **arguments).code

    async def spent(self, token, **arguments):
        return (await self.judging.let_through(token, TICKETS, **arguments)).code


@pytest.fixture
async def court(tmp_path):
    async with Court(FakeClock(), tmp_path / "keys").running() as room:
        yield room


@pytest.fixture
def key():
    return signing_key()


class TestSignaturesRemembered:
    async def test_nothing_but_the_signature(self, court):
        """A token whose signature is known is judged as any other: its audience, its time, its task."""
        token = await court.token()
        assert "" == court.code(token)
        assert "wrong_audience" == court.judging.validate(token, WIKI).code
        head, _, signature = token.rpartition(".")
        forged = ("A" if signature[0] != "A" else "B") + signature[1:]
        assert "bad_signature" == court.code(f"{head}.{forged}")
        court.clock.advance(3600)
        assert "expired" == court.code(token)

    async def test_a_clock_that_is_set_back(self, court):
        """A step back of the wall clock revives no token that has lived for its time, and hurts none that has not."""
        token = await court.token()
        court.clock.advance(62)
        court.clock.step_wall(-62)
        assert "expired" == court.code(token)
        young = await court.token()
        court.clock.step_wall(-1)
        assert "" == court.code(young)

    async def test_of_a_key_that_is_withdrawn(self, court):
        """Once its key is not published any more, a token is refused though its signature was good."""
        token = await court.token()
        assert "" == court.code(token)
        court.engine.keys.published = {}
        assert "unknown_key" == court.code(token)

    async def test_of_a_task_that_ended(self, court):
        """The end of a task is heard at once."""
        token = await court.token()
        assert "" == court.code(token)
        (task,) = court.engine.tasks.all()
        await court.engine.revoke(task, "by hand")
        assert "task_over" == court.code(token)


class TestValidate:
    async def test_a_task_token(self, court):
        """A token of a live task is good for its audience and its actions."""
        verdict = court.judging.validate(await court.token(), TICKETS, action="ticket:read")
        assert (True, TASK, TRIAGE) == (verdict.valid, verdict.kind, verdict.spiffe_id)
        assert "triage" == verdict.claims["task"]["type"]
        assert ("", "", "", ()) == (verdict.code, verdict.reason, verdict.nonce, verdict.actors)

    async def test_says_why(self, court):
        """A token that is refused is refused with a code and a sentence."""
        found = court.judging.validate(await court.token(), TICKETS, action="ticket:write")
        assert ("action_not_granted", True) == (found.code, "ticket:write" in found.reason)
        found = court.judging.validate("nonsense", TICKETS)
        assert (False, True, True) == (found.valid, bool(found.code), bool(found.reason))

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            ({"audience": WIKI}, "wrong_audience"),
            ({"audience": TICKETS, "action": "ticket:write"}, "action_not_granted"),
            ({"audience": TICKETS, "kind": JWT_SVID}, "wrong_type"),
        ],
    )
    async def test_not_for_anything_else(self, court, arguments, code):
        """A token is not good for another audience, action or kind."""
        verdict = court.judging.validate(await court.token(), **arguments)
        assert (False, code, None, "") == (verdict.valid, verdict.code, verdict.claims, verdict.spiffe_id)

    async def test_a_person(self, court):
        """The subject of a token for a person is that person: no workload is, and all workloads act for them."""
        alice = PersonClaims("https://login.example.org", "alice", 1795800000, "urn:example:mfa", ("pwd",))
        token = await court.engine.token(made_for(await court.begin(), alice), TICKETS, ["ticket:read"])
        verdict = court.judging.validate(token.token, TICKETS)
        assert (True, alice, "", (TRIAGE,)) == (verdict.valid, verdict.person, verdict.spiffe_id, verdict.actors)
        plain = court.judging.validate(await court.token(), TICKETS)
        assert (None, TRIAGE, ()) == (plain.person, plain.spiffe_id, plain.actors)

    async def test_dies_with_its_task(self, court):
        """A token is refused as soon as its task has ended."""
        token = await court.token()
        (task,) = court.engine.tasks.all()
        court.engine.end(task, "revoked", "because")
        verdict = court.judging.validate(token, TICKETS)
        assert ("task_over", True) == (verdict.code, "because" in verdict.reason)

    async def test_expires(self, court):
        """A task token has no leeway: at its end it is over."""
        token = await court.token()
        court.clock.advance(60)
        assert "expired" == court.code(token)

    async def test_of_another_agent(self, court):
        """A task token that another agent signed is refused."""
        task = await court.begin()
        other = SigningKey.from_private("k2", ec.generate_private_key(ec.SECP256R1()))
        now = court.clock.now()
        token = tokens.issue(
            other,
            issuer=ISSUER,
            spiffe_id=TRIAGE_ID,
            grant=Grant.parse(TICKETS, ["ticket:read"]),
            task=TaskClaim(task.id, "triage", task.version, "normal"),
            issued_at=now,
            expires_at=now + timedelta(seconds=60),
        )
        assert "unknown_key" == court.code(token.token)

    async def test_a_jwt_svid(self, court):
        """A JWT-SVID is good for its audience, grants no action, is for no request and bound to nothing."""
        token = court.subject(["a", "b"])
        verdict = court.judging.validate(token, "a")
        assert (True, JWT_SVID, TRIAGE) == (verdict.valid, verdict.kind, verdict.spiffe_id)
        assert ["a", "b"] == verdict.claims["aud"]
        assert "wrong_audience" == court.judging.validate(token, "c").code
        for arguments in ({"action": "x"}, {"kind": TASK}, {"params_digest": DIGEST}):
            assert "wrong_type" == court.judging.validate(token, "a", **arguments).code
        assert "wrong_binding" == court.judging.validate(token, "a", sender=Sender(jkt=DIGEST)).code

    @pytest.mark.parametrize("token", ["", "a", "a.b.c", ".", "..", "é", "x" * 20_000, "\x00", "eyJ9.eyJ9.eyJ9"])
    @pytest.mark.parametrize("kind", ["", JWT_SVID, TASK])
    async def test_nonsense(self, court, token, kind):
        """Nonsense is not valid, and no error."""
        verdict = court.judging.validate(token, TICKETS, kind=kind)
        assert not verdict.valid
        assert verdict.reason


class TestSender:
    async def test_a_key(self, court, key):
        """A token that is bound to a key is good with a proof of that key alone, once a proof."""
        token = await court.token(binding=Binding(JKT, key.public.thumbprint))
        sender = court.proof(key, token)
        found = [court.code(token), court.code(token, sender=sender), court.code(token, sender=sender)]
        assert ["unproved_binding", "", "replayed"] == found
        assert "wrong_binding" == court.code(token, sender=court.proof(signing_key(), token))

    async def test_a_certificate(self, court):
        """A token that is bound to a certificate is good over that certificate's connections alone."""
        ends = court.clock.now() + timedelta(hours=1)
        token = await court.token(binding=Binding.to_certificate(b"leaf", ends))
        found = [court.code(token, sender=Sender(client_certificate=each)) for each in (b"leaf", b"another", b"")]
        assert ["", "wrong_binding", "unproved_binding"] == found

    async def test_what_others_have_checked(self, court, key):
        """A validator that has checked a proof or a certificate itself names its thumbprint, and no proof is used."""
        by_key = await court.token(binding=Binding(JKT, key.public.thumbprint))
        assert ["", ""] == [court.code(by_key, sender=Sender(jkt=key.public.thumbprint)) for _ in range(2)]
        ends = court.clock.now() + timedelta(hours=1)
        by_certificate = await court.token(binding=Binding.to_certificate(b"leaf", ends))
        assert "" == court.code(by_certificate, sender=Sender(x5t=thumbprint_of(b"leaf")))

    async def test_an_unbound_token(self, court, key):
        """A token that is bound to nothing is refused with a proof; a certificate of the connection does no harm."""
        token = await court.token()
        assert "wrong_binding" == court.code(token, sender=court.proof(key, token))
        assert "" == court.code(token, sender=Sender(client_certificate=b"leaf"))

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            ({"method": "POST"}, "wrong_method"),
            ({"url": f"{TICKETS}/tickets/43"}, "wrong_url"),
        ],
    )
    async def test_a_proof_of_another_request(self, court, key, arguments, code):
        """A proof is for its request."""
        token = await court.token(binding=Binding(JKT, key.public.thumbprint))
        assert code == court.code(token, sender=court.proof(key, token, **arguments))

    async def test_a_nonce(self, court, key):
        """A judge who may have forgotten asks for a nonce, says which, and takes a proof with it."""
        token = await court.token(binding=Binding(JKT, key.public.thumbprint))
        court.clock.step_wall(-3)
        court.judging.replays = Replays(court.clock.now, court.clock.boot)
        verdict = court.judging.validate(token, TICKETS, sender=court.proof(key, token))
        assert ("nonce_needed", True, True) == (verdict.code, bool(verdict.nonce), "nonce" in verdict.reason)
        assert "" == court.code(token, sender=court.proof(key, token, nonce=verdict.nonce))

    async def test_a_bad_token_uses_no_proof(self, court, key):
        """Whoever has no good token cannot fill the memory of proofs."""
        token = await court.token(binding=Binding(JKT, key.public.thumbprint))
        (task,) = court.engine.tasks.all()
        court.engine.end(task, "revoked", "because")
        assert "task_over" == court.code(token, sender=court.proof(key, token))
        assert 0 == len(court.judging.replays)

    @pytest.mark.parametrize(
        "sender",
        [
            Sender(dpop_proof="a", jkt=DIGEST),
            Sender(client_certificate=b"a", x5t=DIGEST),
            Sender(jkt="short"),
            Sender(x5t=DIGEST + "="),
        ],
    )
    def test_two_tales(self, sender):
        """Nobody says two things of one sender, or names a thumbprint that is none."""
        with pytest.raises(InvalidInput):
            sender.check()


class TestOneRequest:
    async def test_digest(self, court):
        """A token for one request is good for that one."""
        token = await court.token(params_digest=DIGEST)
        others = (DIGEST, "", request_digest.of_http("DELETE", "/tickets/43", b""), "é")
        assert ["", *["wrong_params"] * 3] == [court.code(token, params_digest=each) for each in others]

    async def test_a_token_for_more(self, court):
        """A token that is for more than one request is good for any."""
        assert "" == court.code(await court.token(), params_digest=DIGEST)


class TestUse:
    async def once(self, court, key):
        binding = Binding(JKT, key.public.thumbprint)
        return await court.token("careful", params_digest=DIGEST, binding=binding)

    async def test_once(self, court, key):
        """A token of class high is used once; looking at it is no use."""
        token = await self.once(court, key)
        arguments = {"params_digest": DIGEST, "sender": Sender(jkt=key.public.thumbprint)}
        found = [
            court.code(token, **arguments),
            await court.spent(token, **arguments),
            court.code(token, **arguments),
            await court.spent(token, **arguments),
        ]
        assert ["", "", "", "used"] == found

    async def test_race(self, court, key):
        """Of fifty who use it at once one may."""
        token = await self.once(court, key)

        async def use():
            await asyncio.sleep(0)
            return await court.spent(token, params_digest=DIGEST, sender=Sender(jkt=key.public.thumbprint))

        found = await asyncio.gather(*(use() for _ in range(50)))
        assert [""] + ["used"] * 49 == sorted(found)

    async def test_looking_at_it_is_no_use(self, court, key):
        """Whoever only looks whether it is good leaves it so."""
        token = await self.once(court, key)
        arguments = {"params_digest": DIGEST, "sender": Sender(jkt=key.public.thumbprint)}
        assert ["", "", "", "used"] == [
            *(court.code(token, **arguments) for _ in range(2)),
            await court.spent(token, **arguments),
            await court.spent(token, **arguments),
        ]

    async def test_wall_clock_set_back(self, court, key):
        """A wall clock that is set back lets nobody use it again."""
        token = await self.once(court, key)
        arguments = {"params_digest": DIGEST, "sender": Sender(jkt=key.public.thumbprint)}
        assert "" == await court.spent(token, **arguments)
        court.clock.advance(200)
        assert "expired" == await court.spent(token, **arguments)
        court.clock.step_wall(-199)
        assert "expired" == await court.spent(token, **arguments)
        assert 1 == len(court.judging._uses)

    async def test_other_tokens_are_used_often(self, court):
        """A token of class normal is used as often as its bearer likes."""
        token = await court.token()
        assert ["", ""] == [await court.spent(token) for _ in range(2)]

    async def test_what_is_remembered_is_bounded(self, court, key, monkeypatch):
        """When no more can be remembered tokens are refused, until those that are remembered have expired."""
        monkeypatch.setattr("sojourn.tasks.single_use.SINGLE_USES_REMEMBERED", 2)
        assert SINGLE_USES_REMEMBERED > 2
        arguments = {"params_digest": DIGEST, "sender": Sender(jkt=key.public.thumbprint)}
        found = [await court.spent(await self.once(court, key), **arguments) for _ in range(3)]
        assert ["", "", "limit_exceeded"] == found
        court.clock.advance(TOKEN_TTL_HIGH_CLASS_SECONDS + 2 * TOKEN_SKEW_SECONDS)
        assert "" == await court.spent(await self.once(court, key), **arguments)
        assert 2 == len(court.judging._uses)


class TestOnce:
    async def test_proof_of_another_token(self, court, key):
        """A proof is of the one token that it was sent with, and takes the share of that token's workload."""
        binding = Binding(JKT, key.public.thumbprint)
        token, other = [await court.token(binding=binding) for _ in range(2)]
        assert "wrong_token" == court.code(token, sender=court.proof(key, other))
        assert "" == court.code(token, sender=court.proof(key, token))
        assert {TRIAGE: 1} == dict(court.judging.replays._per)

    async def test_was_used(self, court, key):
        """A token that is good once is told from one that was used, and one that is used often was never used up."""
        sender = Sender(jkt=key.public.thumbprint)
        token = await court.token(
            "careful", ("ticket:read",), binding=Binding(JKT, key.public.thumbprint), params_digest=DIGEST
        )
        proven, _ = sender.prove(token, court.clock.now())
        verified = court.judging.examine(token, TICKETS, proven)
        assert not court.judging.was_used(verified)
        await court.judging.use(verified, "ticket:read")
        assert court.judging.was_used(verified)
        often = court.judging.examine(await court.token(), TICKETS, sender_constraint.UNPROVEN)
        await court.judging.use(often, "ticket:read")
        assert not court.judging.was_used(often)

    async def test_no_signature_twice(self, court, monkeypatch):
        """The signature of a token that was issued or found good here is not checked again, whoever looks at it."""
        token = await court.token()
        monkeypatch.setattr(UnverifiedJws, "check_signature", lambda _self, _key: pytest.fail("it was checked"))
        court.judging.examine(token, TICKETS, sender_constraint.UNPROVEN)
        assert court.judging.count_use(token, "ticket:read", 1)

    async def test_audience_of_a_jwt_svid(self, court):
        """A JWT-SVID's audience is told as a list, also where the token has a text."""
        for audience in (["a", TICKETS], TICKETS):
            found = court.judging.validate(court.subject(audience), TICKETS)
            told = [audience] if isinstance(audience, str) else audience
            assert (JWT_SVID, TRIAGE, told) == (found.kind, found.spiffe_id, found.claims["aud"])


class TestLimited:
    async def test_counted_by_its_action(self, court):
        """A request that is let through counts for the action that it is for: not for none, and no further one is."""
        token = await court.token("limited")
        assert "" == await court.spent(token, no_action=True)
        assert ["", "limit_reached"] == [await court.spent(token, action="ticket:read") for _ in range(2)]
        (task,) = court.engine.tasks.all()
        assert {"ticket:read": 1} == dict(task.spent.counted)
        assert "" == await court.spent(token, no_action=True)

    async def test_nobody_says_for_what(self, court):
        """A request of which nobody says for what it is is not let through with a token whose action is counted."""
        assert "" != await court.spent(await court.token("limited"))


class TestRecorded:
    @pytest.fixture
    async def careful(self, court, key):
        """A token that is good once, and what is asked with it."""
        jkt = key.public.thumbprint
        token = await court.token("careful", binding=Binding(JKT, jkt), params_digest=DIGEST)
        return token, {"sender": Sender(jkt=jkt), "params_digest": DIGEST}

    async def test_what_it_is_used_for(self, court, careful):
        """A use of class high is recorded before the verdict is given; of another class there is no record of each."""
        said = Served.of("ticket:read", "GET", "/tickets/42")
        for (token, asked), records in ((careful, 1), ((await court.token("triage"), {}), 1)):
            assert "" == await court.spent(token, served=said, **asked)
            assert records == len(court.store.fields("token_used"))

    async def test_of_a_task_that_ends_meanwhile(self, court, careful):
        """If the task ends while the record is written, the verdict is no."""
        token, asked = careful
        (task,) = court.engine.tasks.all()
        court.store.gate, court.store.writing = asyncio.Event(), asyncio.Event()
        spending = asyncio.create_task(court.spent(token, **asked))
        await court.store.writing.wait()
        court.engine.end(task, "revoked", "test")
        court.store.gate.set()
        assert "task_over" == await spending

    async def test_of_a_task_that_nobody_knows(self, court, careful):
        """The verdict on a token of a task that the agent has forgotten is no."""
        token, asked = careful
        (task,) = court.engine.tasks.all()
        court.engine.forget(task)
        assert "task_over" == await court.spent(token, **asked)

    async def test_what_cannot_be_recorded(self, court, careful):
        """What cannot be recorded is not let through: the verdict is no, with the store's own code."""
        token, asked = careful
        court.store.failure = StoreFailed("the disk is gone")
        assert StoreFailed.code == await court.spent(token, **asked)


class TestCountUse:
    async def test_budget(self, court):
        """Reported calls spend the task's budget; with the one that goes beyond, the task is over."""
        token = await court.token("thrifty")
        assert court.judging.count_use(token, "ticket:read", 3)
        (task,) = court.engine.tasks.all()
        assert (True, 3) == (task.live, task.spent.calls)
        assert not court.judging.count_use(token, "ticket:read", 1)
        assert ("task_over", False) == (court.code(token), task.live)

    async def test_what_does_not_count(self, court):
        """Neither an action that the token lacks nor a token that is not good counts."""
        token = await court.token("thrifty")
        head, _, tail = token.rpartition(".")
        forged = f"{head}.{'A' if tail[0] != 'A' else 'B'}{tail[1:]}"
        for text, action in ((token, "ticket:write"), (forged, "ticket:read"), ("", ""), (court.subject(["a"]), "")):
            assert not court.judging.count_use(text, action, 1)
        (task,) = court.engine.tasks.all()
        assert 0 == task.spent.calls

    async def test_just_over(self, court, key):
        """A bound token that has expired a moment ago counts all the same; one of long ago does not."""
        token = await court.token("thrifty", binding=Binding(JKT, key.public.thumbprint))
        court.clock.advance(61)
        assert court.judging.count_use(token, "ticket:read", 1)
        court.clock.advance(30)
        assert not court.judging.count_use(token, "ticket:read", 1)

    async def test_whose_resource(self, court):
        """A use counts if whoever tells it may be the service of the token's resource."""
        token, asked = await court.token("thrifty"), []
        assert not court.judging.count_use(token, "ticket:read", 1, lambda resource: bool(asked.append(resource)))
        assert [TICKETS] == asked
        (task,) = court.engine.tasks.all()
        assert 0 == task.spent.calls

    async def test_as_many_as_may_be(self, court):
        """The most calls that a report may have count like any other."""
        token = await court.token()
        assert court.judging.count_use(token, "ticket:read", TOKEN_USE_CALLS_MAX)
        (task,) = court.engine.tasks.all()
        assert TOKEN_USE_CALLS_MAX == task.spent.calls

    @pytest.mark.parametrize("calls", [0, TOKEN_USE_CALLS_MAX + 1])
    async def test_calls(self, court, calls):
        """A use is of one call at least, and of no more than could be."""
        with pytest.raises(InvalidInput):
            court.judging.count_use(await court.token(), "ticket:read", calls)
