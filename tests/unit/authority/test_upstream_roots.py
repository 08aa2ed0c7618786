"""upstream_roots.py: roots that an upstream authority, or an operator, does not trust any more."""

import json
from contextlib import suppress
from datetime import timedelta

import pytest
from fakes.authorities import authority_in
from fakes.roots import Pauses
from fakes.upstreams import DAY, HOUR, FakeUpstream, root_at
from sojourn.authority.x509_profile import key_id
from sojourn.errors import FailedPrecondition, NotFound, Unavailable
from sojourn.spiffe.ids import SpiffeId

WEB = SpiffeId.parse("spiffe://example.org/web")
LEAD = timedelta(minutes=30)


class Below:
    """An authority below one whose roots come and go. `old` signs, and `new` is there for longer than the lead."""

    def __init__(self, folder, clock):
        self.folder, self.clock = folder, clock
        self.old, self.new = root_at(clock, "old"), root_at(clock, "new")
        self.upstream = FakeUpstream(clock, self.old)
        self.upstream.more_roots = (self.new.certificate,)
        self.upstream.tells, self.upstream.revokes = False, True

    async def __aenter__(self):
        self.authority = self.made()
        await self.authority.begin()
        await self.settle()
        self.clock.advance(LEAD.total_seconds() + 1)
        return self

    async def __aexit__(self, *_):
        await self.authority.close()

    def made(self):
        return authority_in(self.folder, self.clock, upstream=self.upstream.setting(LEAD), sleep=Pauses())

    async def settle(self):
        with suppress(Unavailable):
            await self.authority.upstream_root.look()
        self.authority.maintain()
        await self.authority.issuers.wait(1)
        self.authority.maintain()

    async def switch(self):
        """Have the new one sign, and the old one named still."""
        self.upstream.line, self.upstream.more_roots = (self.new,), (self.old.certificate,)
        self.upstream.tells = True
        await self.settle()
        assert self.signs == key_id(self.new.certificate)

    @property
    def signs(self):
        return self.authority.root_of(self.authority.issue_x509(WEB, HOUR))

    @property
    def roots(self):
        return {key_id(each) for each in self.authority.bundle.x509_authorities}

    @property
    def ids(self):
        return key_id(self.old.certificate), key_id(self.new.certificate)


@pytest.fixture
async def below(tmp_path, clock):
    async with Below(tmp_path / "keys", clock) as made:
        yield made


class TestTaintedThere:
    async def test_is_left(self, below):
        """A root that the upstream authority taints signs nothing more as soon as another can, and the bundle says so."""
        old, new = below.ids
        assert old == below.signs
        below.upstream.line, below.upstream.more_roots = (below.new,), (below.old.certificate,)
        below.upstream.tainted = frozenset({old})
        await below.settle()
        assert new == below.signs
        assert {old} == below.authority.bundle.tainted
        assert {old} == below.authority.upstream_roots.replaceable
        assert {old, new} == below.roots

    async def test_nothing_else_is_given(self, below):
        """While the upstream authority gives nothing but what is below the tainted root, what there is goes on, and says
        why.
        """
        old, _ = below.ids
        below.upstream.tainted = frozenset({old})
        await below.settle()
        assert old == below.signs
        assert "which is tainted or revoked" in below.authority.upstream.fault
        assert frozenset() == below.authority.upstream_roots.replaceable

    async def test_it_does_not_say_what_signs(self, below):
        """An upstream authority that does not say by what it signs is asked for no other while its root is good."""
        asked = len(below.upstream.asked)
        below.upstream.line, below.upstream.more_roots = (below.new,), (below.old.certificate,)
        await below.settle()
        assert asked == len(below.upstream.asked)

    async def test_over_a_restart(self, below):
        """A taint outlives the agent, also where nobody tells it anew."""
        old, _ = below.ids
        below.upstream.line, below.upstream.more_roots = (below.new,), (below.old.certificate,)
        below.upstream.tainted = frozenset({old})
        await below.settle()
        assert {old} == below.made().bundle.tainted


class TestRevokedThere:
    async def test_leaves_the_bundle(self, below):
        """A root that is revoked there is left at once, whatever the lead, and leaves the bundle as nothing is below it."""
        fresh = root_at(below.clock, "fresh")
        below.upstream.line, below.upstream.more_roots = (fresh,), ()
        await below.settle()
        assert key_id(fresh.certificate) == below.signs
        await below.settle()
        assert {key_id(fresh.certificate)} == below.roots

    async def test_one_that_has_ended(self, below):
        """One that is not named any more since it has ended is not revoked by that."""
        below.upstream.line = (root_at(below.clock, "short", ends=below.clock.now() + 2 * DAY),)
        await below.settle()
        below.clock.advance(3 * DAY.total_seconds())
        below.upstream.line, below.upstream.more_roots = (below.new,), ()
        with suppress(Unavailable):
            await below.authority.upstream_root.look()
        assert frozenset() == below.authority.bundle.tainted & {key_id(below.upstream.line[0].certificate)}

    async def test_is_named_again(self, below):
        """One that is named again, as by another server that knew better, is good again."""
        old, new = below.ids
        below.upstream.more_roots = ()
        await below.settle()
        assert {old} == below.roots  # nothing was below it
        below.upstream.more_roots = (below.new.certificate,)
        await below.settle()
        assert {old, new} == below.roots
        assert frozenset() == below.authority.bundle.tainted

    async def test_where_a_root_leaves_by_itself(self, below):
        """Where an authority's roots come and go by themselves, one that it names no more stays for what is below it."""
        old, new = below.ids
        below.upstream.revokes = False
        await below.switch()
        below.upstream.more_roots = ()
        await below.settle()
        assert {old, new} == below.roots
        assert frozenset() == below.authority.bundle.tainted


class TestByHand:
    async def test_taint_and_revoke(self, below):
        """An operator taints a root that does not sign any more, and revokes it: then it does not come back, though the
        upstream authority names it, over restarts too.
        """
        old, new = below.ids
        await below.switch()
        roots = below.authority.upstream_roots
        with pytest.raises(FailedPrecondition, match="not tainted"):
            roots.revoke(old)
        roots.taint(old)
        assert ({old}, {old, new}) == (below.authority.bundle.tainted, below.roots)
        with pytest.raises(FailedPrecondition, match="tainted already"):
            roots.taint(old)
        roots.revoke(old)
        await below.settle()
        assert {new} == below.roots
        again = below.made()
        await again.upstream_root.look()
        assert [new] == [key_id(each) for each in again.bundle.x509_authorities]

    async def test_the_one_that_signs(self, below):
        """The root that signs cannot be tainted: nothing could be signed in the place of what it has signed."""
        old, _ = below.ids
        with pytest.raises(FailedPrecondition, match="signs still"):
            below.authority.upstream_roots.taint(old)
        assert frozenset() == below.authority.bundle.tainted

    async def test_signs_again(self, below):
        """What is below a revoked root is not taken from the upstream authority either."""
        old, new = below.ids
        await below.switch()
        below.authority.upstream_roots.taint(old)
        below.authority.upstream_roots.revoke(old)
        below.upstream.line, below.upstream.more_roots = (below.old,), (below.new.certificate,)
        await below.settle()
        assert new == below.signs
        assert "tainted or revoked" in below.authority.upstream.fault

    async def test_none(self, below):
        """What is no root of the upstream authority, such as the agent's own, is told to be none."""
        own = below.authority.slots("x509").active.id
        for each in ("ab" * 20, own):
            with pytest.raises(NotFound):
                below.authority.upstream_roots.taint(each)

    async def test_without_an_upstream_authority(self, tmp_path, clock):
        """Without an upstream authority there are none, and it is said."""
        with pytest.raises(FailedPrecondition, match="not configured"):
            authority_in(tmp_path / "other", clock).upstream_roots.taint("ab" * 20)


async def test_a_file_of_before(below):
    """What an earlier release has written, without taints, is read."""
    path = below.folder / "upstream.json"
    told = json.loads(path.read_text())
    del told["revoked"]
    for each in told["roots"]:
        del each["tainted"], each["lost"]
    path.write_text(json.dumps(told))
    assert set(below.ids) == {key_id(each) for each in below.made().bundle.x509_authorities}
