"""signatures.py: one signature at a time for each key, given to nobody once what it is for has changed."""

import asyncio

import pytest
from fakes.registrations import entry
from harness.looking import idle
from sojourn.errors import LimitExceeded, Unavailable
from sojourn.identity import signatures as module
from sojourn.identity.signatures import Overtaken, Signatures, places

WEB, DB = entry("/web"), entry("/db")


class Desk:
    """Signatures of texts. `landed` and `failed`: what is told of them. Each waits until it is let go."""

    def __init__(self, **options):
        self.landed, self.failed, self.begun = [], [], []
        self.gate = asyncio.Event()
        self.signatures = Signatures(places(), self.land, self.fail, **options)

    def land(self, signature, made):
        self.landed.append((signature.key, made))

    def fail(self, signature, error):
        self.failed.append((signature.key, str(error)))

    def begin(self, each=WEB, raising=None, key=None):
        async def sign():
            number = len(self.begun)
            self.begun.append(each.id)
            await self.gate.wait()
            if raising is not None:
                raise raising
            return f"{each.id} {number}"

        return self.signatures.begin(key or each.key, each, sign)

    def ask(self, *arguments, **options):
        async def asks():
            return await self.signatures.wait(self.begin(*arguments, **options))

        return asyncio.ensure_future(asks())


@pytest.fixture
async def desk():
    return Desk()


async def test_all_who_ask_wait_for_one(desk):
    """Whoever asks for what is being signed gets the same, and it lands once."""
    asking = [desk.ask() for _ in range(5)]
    await idle()
    desk.gate.set()
    assert {f"{WEB.id} 0"} == set(await asyncio.gather(*asking))
    assert ([(WEB.key, f"{WEB.id} 0")], 0) == (desk.landed, len(desk.signatures))


async def test_one_who_goes_cancels_it_for_nobody(desk):
    """A waiter that is cancelled takes nothing from the others."""
    gone, stays = desk.ask(), desk.ask()
    await idle()
    gone.cancel()
    await idle()
    desk.gate.set()
    assert f"{WEB.id} 0" == await stays
    assert gone.cancelled()


async def test_nobody_is_left(desk):
    """What is signed when all have gone is not put into use: nobody got it."""
    gone = desk.ask()
    await idle()
    gone.cancel()
    await idle()
    desk.gate.set()
    await idle()
    assert ([], [], 0) == (desk.landed, desk.failed, len(desk.signatures))


async def test_that_is_wanted_though_nobody_waits():
    """What somebody watches is put into use."""
    desk = Desk(wanted=lambda _: True)
    desk.begin()
    desk.gate.set()
    await idle()
    assert [(WEB.key, f"{WEB.id} 0")] == desk.landed


async def test_failure(desk):
    """What signing fails with is told to each who waits; the next who asks begins anew."""
    asking = [desk.ask(raising=Unavailable("no")) for _ in range(3)]
    desk.gate.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert ["no"] * 3 == [str(each) for each in found]
    assert [(WEB.key, "no")] == desk.failed
    assert f"{WEB.id} 1" == await desk.ask()


async def test_what_does_not_land(desk):
    """What is signed and not good fails for whoever waits."""
    desk.land = None
    refusing = Signatures(places(), lambda *_: 1 / 0, desk.fail)

    async def sign():
        return "x"

    with pytest.raises(ZeroDivisionError):
        await refusing.wait(refusing.begin(WEB.key, WEB, sign))
    assert 1 == len(desk.failed)


async def test_a_waiter_s_time(desk, monkeypatch):
    """Who has waited for long enough is told so; what is being signed goes on."""
    monkeypatch.setattr(module, "SIGNATURE_WAIT_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="not signed within"):
        await desk.ask()
    monkeypatch.setattr(module, "SIGNATURE_WAIT_SECONDS", 10.0)
    again = desk.ask()
    desk.gate.set()
    assert (f"{WEB.id} 0", 1) == (await again, len(desk.begun))


async def test_a_signature_s_time(desk, monkeypatch):
    """A signer that never answers is given up, and its place is another's."""
    monkeypatch.setattr(module, "SIGNATURE_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="not signed within"):
        await desk.ask()
    assert 0 == len(desk.signatures)
    desk.gate.set()
    assert f"{WEB.id} 1" == await desk.ask()


class TestGivenUp:
    @pytest.mark.parametrize("how", ["which", "entry", "identity"])
    async def test_while_it_is_signed(self, desk, how):
        """Who waits for what changes meanwhile is told at once; it is not signed on, and others' is."""
        web, db = desk.ask(), desk.ask(DB)
        await idle()
        {
            "which": lambda: desk.signatures.give_up(lambda each: each.id == WEB.id),
            "entry": lambda: desk.signatures.give_up_entry(WEB.id),
            "identity": lambda: desk.signatures.give_up_identity(WEB.key),
        }[how]()
        with pytest.raises(Overtaken):
            await web
        desk.gate.set()
        assert f"{DB.id} 1" == await db
        assert ([(DB.key, f"{DB.id} 1")], []) == (desk.landed, desk.failed)

    async def test_between_landing_and_taking(self, desk):
        """What was revoked after it was signed, and before whoever waited went on, is not given."""
        asking = desk.ask()
        await idle()
        landed, desk.land = desk.land, None
        desk.signatures._land = lambda signature, made: (
            landed(signature, made),
            asyncio.get_running_loop().call_soon(desk.signatures.give_up_entry, WEB.id),
        )
        desk.gate.set()
        with pytest.raises(Overtaken):
            await asking
        assert 1 == len(desk.landed)

    async def test_an_entry_that_is_another(self, desk):
        """Who asks with the changed entry is not given what was asked for before it changed."""
        old = desk.ask()
        await idle()
        changed = entry("/web", id=WEB.id, revision=1)
        new = desk.ask(changed)
        with pytest.raises(Overtaken):
            await old
        desk.gate.set()
        assert f"{WEB.id} 1" == await new

    async def test_while_it_waits_for_a_place(self, desk, monkeypatch):
        """What waits for its turn is given up as well, and its place in the line is free."""
        monkeypatch.setattr(module, "SIGNATURES_AT_ONCE", 1)
        desk = Desk()
        first, second, third = desk.ask(), desk.ask(DB), desk.ask(entry("/third"))
        await idle()
        desk.signatures.give_up_entry(DB.id)
        desk.gate.set()
        with pytest.raises(Overtaken):
            await second
        await asyncio.gather(first, third)
        assert 2 == len(desk.begun)


class TestPlaces:
    async def test_no_more_at_once(self, monkeypatch):
        """No more signatures are under way than there is room for, and all are made."""
        monkeypatch.setattr(module, "SIGNATURES_AT_ONCE", 3)
        desk = Desk()
        asking = [desk.ask(entry(f"/{number}")) for number in range(10)]
        await idle()
        assert 3 == len(desk.begun)
        desk.gate.set()
        await asyncio.gather(*asking)
        assert 10 == len(desk.begun)

    async def test_one_entry_leaves_places_to_others(self, monkeypatch):
        """An entry with a hundred signatures that hang holds up no other's."""
        monkeypatch.setattr(module, "SIGNATURES_AT_ONCE_PER_ENTRY", 2)
        desk = Desk()
        many = [desk.ask(key=("a", number)) for number in range(100)]
        other = desk.ask(DB)
        await idle()
        assert [WEB.id, WEB.id, DB.id] == desk.begun
        desk.gate.set()
        await asyncio.gather(other, *many)

    async def test_a_limit_of_what_waits(self):
        """Who asks for ever more of one entry is refused, and others are not."""
        desk = Desk(per_entry=2)
        asking = [desk.ask(key=("a", number)) for number in range(2)]
        await idle()
        with pytest.raises(LimitExceeded):
            desk.begin(key=("a", 2))
        asking.append(desk.ask(DB))
        desk.gate.set()
        await asyncio.gather(*asking)
        assert desk.begin(key=("a", 2))

    async def test_that_nobody_waits_for_any_more(self, monkeypatch):
        """What nobody waits for any more when its turn comes is not signed at all."""
        monkeypatch.setattr(module, "SIGNATURES_AT_ONCE", 1)
        desk = Desk()
        first, gone = desk.ask(), desk.ask(DB)
        await idle()
        gone.cancel()
        await idle()
        desk.gate.set()
        await first
        await idle()
        assert [WEB.id] == desk.begun


async def test_nothing_is_left_behind(desk):
    """When all is over there is no trace of it."""
    asking = [desk.ask(each, raising=error) for each in (WEB, DB) for error in (None,)]
    asking += [desk.ask(entry("/bad"), raising=ValueError())]
    await idle()
    desk.signatures.give_up_entry(DB.id)
    desk.gate.set()
    await asyncio.gather(*asking, return_exceptions=True)
    await idle()
    assert ({}, {}) == (desk.signatures._under_way, desk.signatures._of_entry)
