"""below.py: an authority below an upstream one, over rotations, absences and restarts, and from an own root and back."""

import json
from contextlib import suppress
from datetime import timedelta

import pytest
from fakes.authorities import authority_in
from fakes.registrations import TRUST_DOMAIN
from fakes.roots import Pauses
from fakes.upstreams import DAY, HOUR, FakeUpstream, below, root_at
from sojourn.authority.embedded_ca import JWT
from sojourn.authority.key_steps import X509
from sojourn.authority.x509_profile import key_id
from sojourn.errors import CannotStart, FailedPrecondition, InvalidSvid, Unavailable
from sojourn.files import atomic
from sojourn.limits import SVID_TTL_MAX_SECONDS
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import verify_chain

WEB = SpiffeId.parse("spiffe://example.org/web")
LEAD = timedelta(minutes=30)
WEEK = timedelta(seconds=SVID_TTL_MAX_SECONDS)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "keys"


class Running:
    """An authority as the agent runs one, whose time a test lets go by in steps, with workloads that verify all along.

    Each step an SVID is issued, and it and those before that have not ended verify by the bundle of this moment.
    """

    def __init__(self, folder, clock, upstream=None, *, lead=LEAD, workloads=True):
        self.clock, self.upstream, self.workloads = clock, upstream, workloads
        self.pauses = Pauses()
        setting = None if upstream is None else upstream.setting(lead)
        self.authority = authority_in(folder, clock, upstream=setting, sleep=self.pauses)
        self.svids = []
        self.signed_by = []

    async def __aenter__(self):
        await self.authority.begin()
        await self.settle()
        return self

    async def __aexit__(self, *_):
        await self.authority.close()

    async def settle(self):
        """What is asked for is answered, as long as the upstream authority answers."""
        root = self.authority.upstream_root
        if root is not None:
            with suppress(Unavailable):
                await root.look()
        self.authority.maintain()
        await self.authority.issuers.wait(0.2 if self.upstream is not None and self.upstream.failing else 10)
        self.authority.maintain()

    async def go(self, whole, step=timedelta(minutes=10)):
        for _ in range(int(whole / step)):
            self.clock.advance(step.total_seconds())
            await self.settle()
            self.check()

    def check(self):
        if not self.workloads:
            return
        svid = self.authority.issue_x509(WEB, HOUR)
        self.svids = [each for each in (*self.svids, svid) if each.not_after > self.clock.now()]
        for each in self.svids:
            assert verify_chain(each.chain, self.roots, TRUST_DOMAIN, self.clock.now())
        self.signed_by.append(self.authority.root_of(svid))

    @property
    def roots(self):
        return self.authority.bundle.x509_authorities


def ids(*issued):
    return [key_id(each.certificate) for each in issued]


def ids_of(roots):
    return [key_id(each) for each in roots]


class TestFirst:
    async def test_from_the_first_start_on(self, folder, clock):
        """With an upstream authority from the first start on SVIDs are below it, and the bundle has its root alone."""
        upstream = FakeUpstream(clock)
        async with Running(folder, clock, upstream) as running:
            running.check()
            assert [upstream.line[0].certificate] == list(running.roots)
            assert ids(*upstream.line) == running.signed_by

    async def test_leaf_carries_the_chain(self, folder, clock):
        """A leaf comes with all that is between it and the root, and without the root."""
        root = root_at(clock)
        upstream = FakeUpstream(clock, root, middle := below(clock, root))
        async with Running(folder, clock, upstream) as running:
            svid = running.authority.issue_x509(WEB, HOUR)
            assert (3, middle.certificate) == (len(svid.chain), svid.chain[-1])
            assert root.certificate not in svid.chain

    async def test_away_at_the_first_start(self, folder, clock, monkeypatch):
        """If it is away at the first start there are no X.509-SVIDs, with why; JWT-SVIDs there are; and when it answers,
        all.
        """
        monkeypatch.setattr("sojourn.authority.embedded_ca.ROOT_START_SECONDS", 0.01)
        upstream = FakeUpstream(clock)
        upstream.failing = "nobody is there"
        async with Running(folder, clock, upstream, workloads=False) as running:
            running.pauses.held = True
            with pytest.raises(Unavailable, match="no valid intermediate"):
                running.authority.issue_x509(WEB, HOUR)
            assert running.authority.issue_jwt(WEB, ["a"], HOUR).token
            assert ((), None) == (running.roots, running.authority.root)
            upstream.failing = ""
            running.authority.issuers.hurry()
            await running.settle()
            assert running.authority.issue_x509(WEB, HOUR)

    async def test_is_closed(self, folder, clock):
        """When the agent stops it lets go of the upstream authority, and looks at it no more."""
        upstream = FakeUpstream(clock)
        async with Running(folder, clock, upstream):
            pass
        assert upstream.closed


class TestRestart:
    async def test_while_it_is_away(self, folder, clock):
        """A restart asks for nothing while the intermediate lives: it signs on though the upstream authority is away."""
        upstream = FakeUpstream(clock)
        async with Running(folder, clock, upstream) as running:
            before = running.authority.issuer
        upstream.failing, asked = "nobody is there", len(upstream.asked)
        async with Running(folder, clock, upstream) as running:
            running.check()
            assert (before, asked) == (running.authority.issuer, len(upstream.asked))
            assert [upstream.line[0].certificate] == list(running.roots)

    async def test_after_its_end(self, folder, clock, monkeypatch):
        """An intermediate that has ended meanwhile signs nothing; with the upstream authority back there is another."""
        monkeypatch.setattr("sojourn.authority.embedded_ca.ROOT_START_SECONDS", 0.01)
        upstream = FakeUpstream(clock)
        async with Running(folder, clock, upstream) as running:
            before = running.authority.issuer
        clock.advance(DAY.total_seconds())
        async with Running(folder, clock, upstream) as running:
            running.check()
            assert before != running.authority.issuer

    @pytest.mark.parametrize("name", ["upstream.json", "intermediates.pem"])
    @pytest.mark.parametrize("damage", [b"{", b"# intermediate\nnothing", b'{"roots": [{}]}'])
    async def test_damaged(self, folder, clock, name, damage):
        """What is damaged on disk is told, with what to do, and the file is left as it is."""
        async with Running(folder, clock, FakeUpstream(clock)):
            pass
        if name == "intermediates.pem" and not damage.startswith(b"# "):
            damage = b"# intermediate\n" + damage
        atomic.write(folder / name, damage)
        with pytest.raises(CannotStart, match="cannot be parsed: "):
            Running(folder, clock, FakeUpstream(clock))
        assert damage == (folder / name).read_bytes()

    async def test_a_key_of_another(self, folder, clock, tmp_path):
        """An intermediate with another's key is refused."""
        for each in (folder, tmp_path / "other"):
            async with Running(each, clock, FakeUpstream(clock)):
                pass
        mark = b"-----BEGIN CERTIFICATE"
        mine, theirs = ((each / "intermediates.pem").read_bytes() for each in (folder, tmp_path / "other"))
        atomic.write(folder / "intermediates.pem", theirs[: theirs.index(mark)] + mine[mine.index(mark) :])
        with pytest.raises(CannotStart, match="remove it"):
            Running(folder, clock, FakeUpstream(clock))

    async def test_lists_survive(self, folder, clock):
        """The lists of revoked SVIDs are signed by the intermediate itself after a restart too: OpenSSL reads those."""
        from sojourn.authority.crl import RevokedLeaf
        from sojourn.authority.x509_profile import signer_id

        upstream = FakeUpstream(clock)
        async with Running(folder, clock, upstream) as running:
            svid = running.authority.issue_x509(WEB, HOUR)
        revoked = RevokedLeaf(svid.leaf.serial_number, signer_id(svid.leaf), signer_id(svid.chain[-1]), clock.now())
        async with Running(folder, clock, upstream) as running:
            assert 1 == len(running.authority.sign_crls([revoked]))


class TestAway:
    @pytest.mark.full
    async def test_until_the_end(self, folder, clock):
        """While it is away nothing is seen by workloads, and it is told at once; after half a life or more X.509 stops."""
        upstream = FakeUpstream(clock)
        async with Running(folder, clock, upstream) as running:
            running.pauses.held = True
            await running.go(11 * HOUR, HOUR)
            upstream.failing = "nobody is there"
            await running.settle()
            health = running.authority.upstream
            assert ("nobody is there", "upstream_unavailable", clock.now()) == (
                *(health.fault, health.code),
                health.failing_since,
            )
            await running.go(12 * HOUR, HOUR)
            clock.advance(HOUR.total_seconds())
            with pytest.raises(Unavailable, match="no valid intermediate"):
                running.authority.issue_x509(WEB, HOUR)
            assert running.authority.issue_jwt(WEB, ["a"], HOUR).token
            upstream.failing = ""
            running.authority.issuers.hurry()
            await running.settle()
            running.check()
            assert ("", None) == (health.fault, health.failing_since)

    async def test_asked_at_half(self, folder, clock):
        """The next intermediate is asked for at half of the life of the one that signs, once."""
        upstream = FakeUpstream(clock)
        async with Running(folder, clock, upstream) as running:
            await running.go(11.9 * HOUR, HOUR / 10)
            assert 1 == len(upstream.asked)
            await running.go(0.2 * HOUR, HOUR / 10)
            assert 2 == len(upstream.asked)

    async def test_a_wrong_answer(self, folder, clock):
        """What is not good is not used: what there is signs on, the reason is told, and it is asked again."""
        upstream = FakeUpstream(clock)
        async with Running(folder, clock, upstream) as running:
            before = running.authority.issuer
            running.pauses.held = True
            upstream.wrong = {"constraints": None}
            clock.advance(13 * 3600)
            running.authority.maintain()
            await running.authority.issuers.wait(0.1)
            assert before == running.authority.issuer
            assert "no CA" in running.authority.issuers.fault
            await running.authority.upstream_root.look()  # that it is there does not mean that it signs
            assert "no CA" in running.authority.upstream.fault
            assert 1 == running.authority.upstream.results["sign", "refused"]
            upstream.wrong = {}
            running.authority.issuers.hurry()
            await running.settle()
            assert before != running.authority.issuer

    async def test_a_caution(self, folder, clock):
        """That it goes on as before, since what it is to be cannot be used, is told as a fault, and changes nothing."""
        upstream = FakeUpstream(clock)
        async with Running(folder, clock, upstream) as running:
            upstream.caution = "the files do not belong together"
            await running.authority.upstream_root.look()
            assert upstream.caution == running.authority.upstream.fault
            running.check()

    async def test_is_back(self, folder, clock, monkeypatch):
        """When it is seen to be back it is asked at once, and not only when a pause of minutes is over."""
        monkeypatch.setattr("sojourn.authority.embedded_ca.ROOT_START_SECONDS", 0.01)
        upstream = FakeUpstream(clock)
        upstream.failing = "nobody is there"
        async with Running(folder, clock, upstream, workloads=False) as running:
            running.pauses.held = True  # no pause ends by itself
            upstream.failing = ""
            await running.authority.issuers.wait(20)
            assert running.authority.issue_x509(WEB, HOUR)


class TestRotation:
    async def test_of_the_root(self, folder, clock):
        """A new root is in the bundle for the lead before anything under it signs, the old one as long as anything under it
        lives, and all that is issued verifies at each moment.
        """
        old, new = root_at(clock, "old"), root_at(clock, "new")
        upstream = FakeUpstream(clock, old)
        async with Running(folder, clock, upstream) as running:
            await running.go(HOUR)
            upstream.line = (new,)
            await running.settle()
            assert {old.certificate, new.certificate} == set(running.roots)
            await running.go(LEAD - timedelta(minutes=1), timedelta(minutes=1))
            assert ids(old) == list(set(running.signed_by))
            await running.go(timedelta(minutes=2), timedelta(minutes=1))
            assert ids(new) == running.signed_by[-1:]
            await running.go(20 * HOUR, HOUR)
            assert {old.certificate, new.certificate} == set(running.roots)
            await running.go(4 * HOUR, HOUR)
            assert [new.certificate] == list(running.roots)

    async def test_over_restarts(self, folder, clock):
        """The same with a restart at each moment of it: neither the lead nor what is needed is forgotten."""
        old, new = root_at(clock, "old"), root_at(clock, "new")
        upstream, svids = FakeUpstream(clock, old), []
        seen = []
        for hour in range(32):
            async with Running(folder, clock, upstream) as running:
                running.svids = svids
                running.check()
                await running.go(HOUR, 2 * LEAD / 3)
                svids = running.svids
                seen.append((running.signed_by[-1] == key_id(new.certificate), old.certificate in running.roots))
            if hour == 3:
                upstream.line = (new,)
        assert (False, True) == seen[4 - 1]
        assert (True, True) == seen[6]
        assert (True, False) == seen[-1]

    async def test_of_the_issuing_authority(self, folder, clock):
        """Another issuing authority below the same root signs the next intermediate at once: its root is known."""
        root = root_at(clock)
        first, second = below(clock, root, "one"), below(clock, root, "two")
        upstream = FakeUpstream(clock, root, first)
        async with Running(folder, clock, upstream) as running:
            running.check()
            upstream.line = (root, second)
            await running.settle()
            assert second.certificate == running.authority.issue_x509(WEB, HOUR).chain[-1]

    async def test_back_and_forth(self, folder, clock):
        """A root that comes and goes within the lead is taken back: what signed signs on."""
        old, new = root_at(clock, "old"), root_at(clock, "new")
        upstream = FakeUpstream(clock, old)
        async with Running(folder, clock, upstream) as running:
            await running.go(HOUR)
            upstream.line = (new,)
            await running.settle()
            upstream.line = (old,)
            await running.go(2 * HOUR)
            assert ids(old) == list(set(running.signed_by))
            assert [old.certificate] == list(running.roots)

    @pytest.mark.full
    async def test_not_so_long_that_nothing_signs(self, folder, clock):
        """If what signs is about to end, the next one signs whatever its root was published for."""
        old, new = root_at(clock, "old"), root_at(clock, "new")
        upstream = FakeUpstream(clock, old)
        async with Running(folder, clock, upstream, lead=6 * HOUR) as running:
            running.pauses.held = True
            upstream.failing = "nobody is there"
            await running.go(20 * HOUR, HOUR)
            upstream.failing, upstream.line = "", (new,)
            running.authority.issuers.hurry()
            await running.go(3 * HOUR, HOUR / 4)
            assert ids(new) == running.signed_by[-1:]

    async def test_published_while_the_clock_was_ahead(self, folder, clock):
        """A root that came while the wall clock stood ahead is not waited for until the clock is there again."""
        old, new = root_at(clock, "old"), root_at(clock, "new")
        upstream = FakeUpstream(clock, old)
        async with Running(folder, clock, upstream) as running:
            running.check()
            clock.step_wall(DAY.total_seconds() / 4)
            upstream.line = (new,)
            await running.settle()
            clock.step_wall(-DAY.total_seconds() / 4)
            await running.go(2 * LEAD)
            assert ids(new) == running.signed_by[-1:]

    @pytest.mark.parametrize("step", [DAY, -DAY, 30 * DAY], ids=["a day", "a day back", "thirty days"])
    async def test_a_clock_that_is_set(self, folder, clock, step):
        """A step of the wall clock neither shortens the lead nor takes a root out while what it signed may live by the
        other clock.
        """
        old, new = (
            root_at(clock, "old", begins=clock.now() - 3 * DAY),
            root_at(clock, "new", begins=clock.now() - 3 * DAY),
        )
        upstream = FakeUpstream(clock, old)
        async with Running(folder, clock, upstream) as running:
            running.check()
            upstream.line = (new,)
            await running.settle()
            clock.step_wall(step.total_seconds())
            await running.settle()
            assert {old.certificate, new.certificate} <= set(running.roots)
            clock.step_wall(-step.total_seconds())
            await running.go(2 * HOUR)
            assert ids(new) == running.signed_by[-1:]


class TestFromOurOwn:
    async def test_and_back(self, folder, clock):
        """From a root of our own to an upstream authority and back, over restarts of the agent alone: SVIDs that were issued
        before verify all the way, the other root is published before it signs, and each leaves when nothing needs it.
        """
        async with Running(folder, clock) as running:
            running.check()
            own, svids = running.authority.root, running.svids
        upstream = FakeUpstream(clock)
        company = upstream.line[0].certificate
        async with Running(folder, clock, upstream) as running:
            running.svids = svids
            running.check()
            assert key_id(own) == running.signed_by[-1]
            assert {own, company} == set(running.roots)
            await running.go(LEAD - timedelta(minutes=10))
            assert {key_id(own)} == set(running.signed_by)
            await running.go(timedelta(minutes=20))
            assert key_id(company) == running.signed_by[-1]
            await running.go(WEEK - HOUR, 2 * HOUR)
            assert {own, company} == set(running.roots)
            await running.go(4 * HOUR, 2 * HOUR)
            assert [company] == list(running.roots)
            svids = running.svids
        async with Running(folder, clock) as running:
            running.svids = svids
            running.check()
            assert key_id(company) == running.signed_by[-1]
            assert {own, company} == set(running.roots)
            await running.go(LEAD + timedelta(minutes=10))
            assert key_id(own) == running.signed_by[-1]
            await running.go(25 * HOUR, HOUR)
            assert [own] == list(running.roots)
            assert running.authority.below is None
        assert not (folder / "upstream.json").exists()
        assert not (folder / "intermediates.pem").exists()

    async def test_it_never_answers(self, folder, clock):
        """Until it has answered for the first time our own root signs on."""
        async with Running(folder, clock) as running:
            own = running.authority.root
        upstream = FakeUpstream(clock)
        upstream.failing = "nobody is there"
        async with Running(folder, clock, upstream) as running:
            await running.go(10 * HOUR, HOUR)
            assert {key_id(own)} == set(running.signed_by)

    async def test_once_it_has_signed(self, folder, clock, monkeypatch):
        """Once it has signed our own root does not any more, also if the upstream authority is lost with all that it gave."""
        monkeypatch.setattr("sojourn.authority.embedded_ca.ROOT_START_SECONDS", 0.01)
        async with Running(folder, clock):
            pass
        upstream = FakeUpstream(clock)
        async with Running(folder, clock, upstream, lead=timedelta(0)) as running:
            running.check()
        (folder / "intermediates.pem").unlink()
        upstream.failing = "nobody is there"
        async with Running(folder, clock, upstream, workloads=False) as running:
            with pytest.raises(Unavailable):
                running.authority.issue_x509(WEB, HOUR)

    async def test_killed_between(self, folder, clock):
        """An agent that was killed before the upstream authority signed begins as before: with our own root."""
        async with Running(folder, clock) as running:
            own = running.authority.root
        for _ in range(3):
            upstream = FakeUpstream(clock)
            async with Running(folder, clock, upstream) as running:
                running.check()
                assert key_id(own) == running.signed_by[-1]

    async def test_revoked_after_the_way_back(self, folder, clock):
        """A root of our own that is revoked while the upstream authority's is in the bundle still leaves it at once."""
        async with Running(folder, clock, FakeUpstream(clock)):
            pass
        async with Running(folder, clock, lead=timedelta(0)) as running:
            await running.go(2 * LEAD)
            first = running.authority.slots(X509).active.id
            await running.authority.activate(X509, running.authority.prepare(X509).id)
            running.authority.taint(X509, first)
            running.authority.revoke(X509, first)
            assert first not in {key_id(each) for each in running.roots}
            running.authority.maintain()
            assert first not in {key_id(each) for each in running.roots}


class TestSteps:
    async def test_by_hand(self, folder, clock):
        """A root that does not sign is not rotated by hand: it is told where to do that. JWT keys are."""
        async with Running(folder, clock, FakeUpstream(clock)) as running:
            authority = running.authority
            name = authority.slots(X509).active.id
            for step in (
                lambda: authority.prepare(X509),
                lambda: authority.revoke(X509, name),
            ):
                with pytest.raises(FailedPrecondition):
                    step()
            with pytest.raises(FailedPrecondition, match="below an upstream authority"):
                await authority.activate(X509, name)
            await authority.activate(JWT, authority.prepare(JWT).id)

    async def test_an_own_root_that_has_leaked(self, folder, clock):
        """Our own root, which the upstream authority has followed, is tainted and revoked as an old one: it leaves the bundle at
        once, and does not sign either when there is no upstream authority any more.
        """
        async with Running(folder, clock) as running:
            running.check()
            [leaked] = ids_of(running.roots)
            svid = running.svids[0]
        async with Running(folder, clock, FakeUpstream(clock)) as running:
            with pytest.raises(FailedPrecondition, match="the root signs still"):
                running.authority.taint(X509, leaked)
            await running.go(2 * LEAD)
            assert leaked in ids_of(running.roots)
            running.authority.taint(X509, leaked)
            assert {leaked} == running.authority.bundle.tainted
            running.authority.revoke(X509, leaked)
            assert leaked not in ids_of(running.roots)
            with pytest.raises(InvalidSvid):
                verify_chain(svid.chain, running.roots, TRUST_DOMAIN, clock.now())
        async with Running(folder, clock) as running:
            await running.go(2 * DAY, HOUR)
            assert leaked not in ids_of(running.roots)
            assert [running.signed_by[-1]] == ids_of(running.roots)


class TestDisk:
    async def test_what_cannot_be_written_signs_nothing(self, folder, clock, monkeypatch):
        """An intermediate that cannot be written does not sign: a restart would not know for how long its root is needed.
        When there is room again it is asked for with the same key.
        """
        upstream = FakeUpstream(clock)
        async with Running(folder, clock, upstream) as running:
            before = running.authority.issuer

            def full(path, *_rest, **_more):
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patched:
                patched.setattr(atomic, "write", full)
                running.pauses.held = True
                clock.advance(13 * 3600)
                running.authority.maintain()
                await running.authority.issuers.wait(0.1)
                assert before == running.authority.issuer
                assert "No space left" in running.authority.issuers.fault
            running.authority.issuers.hurry()
            await running.settle()
            assert before != running.authority.issuer
            keys = {each.public_key().public_numbers() for each in upstream.asked[1:]}
            assert 1 == len(keys)

    async def test_no_key_of_others(self, folder, clock):
        """What is kept of roots has no key in it; the file of intermediates is its owner's alone."""
        async with Running(folder, clock, FakeUpstream(clock)):
            pass
        assert "PRIVATE" not in (folder / "upstream.json").read_text()
        assert 0o600 == (folder / "intermediates.pem").stat().st_mode & 0o777
        assert 1 == len(json.loads((folder / "upstream.json").read_text())["roots"])
