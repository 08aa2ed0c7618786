"""credentials/dry_run.py: what a check tells of a provider, in which order, and how one ends that goes wrong."""

import asyncio
import json

import pytest
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from fakes.task_types import TICKETS, TRIAGE, WIKI, task_type
from sojourn.audit.journal import Audit
from sojourn.credentials.dry_run import CheckRequest, DryRun
from sojourn.credentials.provider_routes import ProviderRoutes
from sojourn.errors import InvalidInput, LimitExceeded, Unavailable
from sojourn.limits import PROVIDER_CHECK_STEPS, PROVIDER_CHECKS_PER_MINUTE
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.provider import Step
from sojourn.spiffe.ids import SpiffeId

ME = SpiffeId.parse(TRIAGE)
ASSERTION = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"
CORP = {
    "ceiling": f'[{{resource = "{TICKETS}", actions = ["ticket:read", "ticket:write"], provider = "corp"}},'
    f' {{resource = "{WIKI}", actions = ["page:read"]}}]'
}
FIRST = ["configured", "own_clock", "task_types", "identity"]


async def _mint(*_, **__):
    return ASSERTION


class Provider:
    """Tells these steps. `wanted` is what it was asked for."""

    kind = "scripted"
    recall = "revoke"
    offline = True

    def __init__(self, *steps):
        self.steps = steps
        self.wanted = []
        self.ended = asyncio.Event()
        self.refuses = ""

    def read_ask(self, ask, actions):
        if self.refuses:
            raise InvalidInput(self.refuses)
        return dict(ask)

    async def check(self, wanted, mint):
        self.wanted.append(wanted)
        try:
            for step in self.steps:
                yield await step(mint) if callable(step) else step
        finally:
            self.ended.set()


def ok(name="token", told="a token was given"):
    return Step(name, "ok", told)


class Room:
    def __init__(self, provider, *, types=None, seconds=20.0, registered=(ME,)):
        self.clock = FakeClock()
        self.store = FakeAuditStore()
        self.audit = Audit(self.store, self.clock)
        self.provider = provider
        self.registered = set(registered)
        self.types = {each.name: each for each in types or [task_type(**CORP)]}
        self.outlets = ProviderRoutes({"corp": provider}, self.clock, {"corp": seconds})
        self.checking = DryRun(
            self.outlets,
            lambda: self.types,
            lambda spiffe_id: spiffe_id in self.registered,
            lambda _: _mint,
            self.audit,
            self.clock,
        )

    async def check(self, **request):
        asked = CheckRequest(**{"provider": "corp", "spiffe_id": ME, **request})
        return [timed.step async for timed in self.checking.check(asked, by_uid=5)]

    async def audited(self):
        await self.audit.flush()
        return [(each.event, json.loads(each.fields)) for each in self.store.events]


def named(steps):
    return [step.name for step in steps]


class TestSteps:
    async def test_all_is_well(self):
        """First what the agent has, then the provider's own steps; it is asked for what the type has there."""
        room = Room(Provider(ok(), ok("recall", "it was taken back")))
        steps = await room.check()
        assert [*FIRST, "token", "recall"] == named(steps)
        assert {"ok"} == {step.outcome for step in steps}
        (wanted,) = room.provider.wanted
        assert (ME, TICKETS, ("ticket:read", "ticket:write"), {}) == (
            wanted.spiffe_id,
            wanted.resource,
            wanted.actions,
            wanted.ask,
        )
        assert room.clock.now() < wanted.ends

    async def test_fewer_actions(self):
        """Actions that are named are those that are asked for."""
        room = Room(Provider(ok()))
        await room.check(actions=("ticket:read",))
        assert ("ticket:read",) == room.provider.wanted[0].actions

    async def test_for_nobody(self):
        """Without a SPIFFE ID the provider is tried without an exchange."""
        room = Room(Provider(ok("metadata")))
        steps = await room.check(spiffe_id=None)
        assert ["configured", "own_clock", "task_types", "metadata"] == named(steps)
        assert [None] == room.provider.wanted

    async def test_nothing_is_signed_for_nobody(self):
        """A provider that asks for an assertion of nobody is given none."""
        room = Room(Provider(lambda mint: mint("a")))
        steps = await room.check(spiffe_id=None)
        assert ("check", "failed", "there is nobody to sign for") == (steps[-1].name, steps[-1].outcome, steps[-1].told)

    @pytest.mark.parametrize(
        ("request_", "step", "told", "hint"),
        [
            ({"provider": "corq"}, "configured", "no such provider", "there are: corp"),
            ({"task_type": "sort"}, "task_types", "there is no task type 'sort'", "there are: triage"),
            ({"resource": WIKI}, "task_types", "does not name this provider", f"--type triage --resource {TICKETS}"),
            ({"actions": ("ticket:burn",)}, "task_types", "does not have 'ticket:burn'", "ticket:read, ticket:write"),
            (
                {"spiffe_id": SpiffeId.parse("spiffe://example.org/who")},
                "identity",
                "no entry gives spiffe://example.org/who",
                "sojourn entry create",
            ),
        ],
    )
    async def test_what_is_missing_here(self, request_, step, told, hint):
        """What the agent itself lacks is the last step, with what to set; nobody outside is asked."""
        room = Room(Provider(ok()))
        last = (await room.check(**request_))[-1]
        assert (step, "failed") == (last.name, last.outcome)
        assert told in last.told
        assert hint in last.hint
        assert [] == room.provider.wanted

    async def test_no_type_names_it(self):
        """A provider that no task type names is tried for nobody, and that is said."""
        room = Room(Provider(ok("metadata")), types=[task_type()])
        steps = {step.name: step for step in await room.check()}
        assert "skipped" == steps["task_types"].outcome
        assert 'provider = "corp"' in steps["task_types"].hint
        assert [None] == room.provider.wanted

    async def test_several_types_name_it(self):
        """Which of several is meant must be said, and the choice is shown."""
        room = Room(Provider(ok()), types=[task_type("one", **CORP), task_type("two", **CORP)])
        last = (await room.check())[-1]
        assert ("task_types", "failed") == (last.name, last.outcome)
        assert f"--type one --resource {TICKETS}; --type two --resource {TICKETS}" == last.hint
        assert "token" == (await room.check(task_type="two"))[-1].name

    async def test_an_ask_that_is_wrong(self):
        """What a type asks with, and the provider does not take, is told with the file."""
        provider = Provider(ok())
        provider.refuses = "audience: is missing"
        last = (await Room(provider).check())[-1]
        assert ("task_types", "failed") == (last.name, last.outcome)
        assert "audience: is missing" in last.told
        assert "triage.toml" in last.hint


class TestGoesWrong:
    async def test_nothing_after_the_step_that_failed(self):
        """A failed step is the last one, whatever the provider goes on to tell."""
        steps = await Room(Provider(Step("token", "failed", "no", "set it"), ok("recall"))).check()
        assert "token" == steps[-1].name

    async def test_a_step_that_hangs(self):
        """A step that does not end within the provider's deadline is a failed one, and is told to end."""

        async def hang(_mint):
            await asyncio.Event().wait()

        room = Room(Provider(ok(), hang), seconds=0.05)
        last = (await room.check())[-1]
        assert ("check", "failed") == (last.name, last.outcome)
        assert "did not end within 0.05 s" in last.told
        assert room.provider.ended.is_set()

    async def test_a_step_that_hangs_for_good(self, monkeypatch):
        """A step that does not end when it is told to is left alone, and the provider is not checked beside it."""
        monkeypatch.setattr("sojourn.credentials.dry_run.PROVIDER_CHECK_ENDING_SECONDS", 0.01)
        release = asyncio.Event()

        async def hang(_mint):
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return ok()

        room = Room(Provider(hang), seconds=0.05)
        assert "failed" == (await room.check())[-1].outcome
        with pytest.raises(LimitExceeded, match="is being checked already"):
            await room.check()
        release.set()
        await room.provider.ended.wait()

    @pytest.mark.parametrize(
        ("error", "told", "hint"),
        [
            (RuntimeError("with a secret"), "it failed: RuntimeError", "plugin"),
            (ProviderUnavailable("nobody is there", hint="start it"), "nobody is there", "start it"),
            (Unavailable("there is no key"), "there is no key", "plugin"),
        ],
    )
    async def test_it_raises(self, error, told, hint):
        """What a plugin raises is a failed step; what it did not foresee is not repeated."""

        async def fail(_mint):
            raise error

        last = (await Room(Provider(fail)).check())[-1]
        assert ("check", "failed", told) == (last.name, last.outcome, last.told)
        assert hint in last.hint

    async def test_it_has_no_end(self):
        """So many steps are read, and no more."""
        steps = await Room(Provider(*[ok(f"step_{each}") for each in range(2 * PROVIDER_CHECK_STEPS)])).check()
        assert PROVIDER_CHECK_STEPS + 1 + len(FIRST) == len(steps)
        assert "failed" == steps[-1].outcome

    async def test_nobody_reads_on(self):
        """A check that is left is ended at the provider too, and is in the audit as interrupted."""

        async def hang(_mint):
            await asyncio.Event().wait()

        room = Room(Provider(ok(), hang))
        steps = room.checking.check(CheckRequest("corp", ME))
        async for timed in steps:
            if timed.step.name == "token":
                break
        await steps.aclose()
        assert room.provider.ended.is_set()
        assert "interrupted" == (await room.audited())[-1][1]["outcome"]

    async def test_what_it_repeats_is_hidden(self):
        """Neither the assertion nor anything that looks like a token is told."""

        async def tell(mint):
            return Step("token", "failed", f"refused {await mint('a')}", f"look at {ASSERTION.replace('h', 'i')}x")

        last = (await Room(Provider(tell)).check())[-1]
        assert ("refused …", "look at …") == (last.told, last.hint)


class TestLimits:
    async def test_one_at_a_time(self):
        """A provider that is being checked is not checked beside that."""
        gate = asyncio.Event()

        async def wait(_mint):
            await gate.wait()
            return ok()

        room = Room(Provider(wait))
        first = asyncio.ensure_future(room.check())
        while not room.provider.wanted:
            await asyncio.sleep(0)
        with pytest.raises(LimitExceeded, match="being checked already"):
            await room.check()
        gate.set()
        assert "token" == (await first)[-1].name

    async def test_so_many_a_minute(self):
        """An outside system is not asked without end; after a minute it may be again."""
        room = Room(Provider(ok()))
        for _ in range(PROVIDER_CHECKS_PER_MINUTE):
            await room.check()
        with pytest.raises(LimitExceeded, match="wait a little"):
            await room.check()
        room.clock.advance(60)
        assert "token" == (await room.check())[-1].name

    async def test_the_circuit_is_open(self):
        """A provider that others are kept from is checked all the same."""
        room = Room(Provider(ok()))
        circuit = room.outlets.find("corp").circuit
        while circuit.state == "closed":
            with pytest.raises(ProviderUnavailable), circuit.call():
                raise ProviderUnavailable("down")
        assert "ok" == (await room.check())[-1].outcome


@pytest.mark.parametrize(
    ("steps", "outcome", "step"),
    [((ok(),), "ok", None), ((Step("token", "failed", "no", "set it"),), "failed", "token")],
)
async def test_audit(steps, outcome, step):
    """A check is in the audit once: who asked, for whom, and how it went."""
    room = Room(Provider(*steps))
    await room.check(task_type="triage", resource=TICKETS)
    ((event, fields),) = await room.audited()
    assert "provider_checked" == event
    expected = {"provider": "corp", "spiffe_id": TRIAGE, "task_type": "triage", "resource": TICKETS, "by_uid": 5}
    assert {**expected, "outcome": outcome, **({"step": step} if step else {})} == fields
