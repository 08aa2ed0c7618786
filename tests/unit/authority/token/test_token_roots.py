"""The agent's side of roots in a token: what is asked for, what counts as an answer, and that one key is made."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.roots import Pauses
from fakes.token_keys import FakeKeys
from fakes.upstreams import FakeUpstream
from sojourn.authority.key_seal import KeySeal
from sojourn.authority.key_steps import X509
from sojourn.authority.roots import TokenRoot
from sojourn.authority.token.building import Builder
from sojourn.authority.token.key_process import _done
from sojourn.authority.token.messages import encoded
from sojourn.authority.token.places import Pkcs11Place
from sojourn.authority.token.settings import TokenSettings
from sojourn.authority.token.token_roots import RootMaker, TokenRoots
from sojourn.authority.x509_profile import key_id, self_sign
from sojourn.errors import CannotStart, KeysUnavailable, Unavailable
from sojourn.keyprocess.host import Host
from sojourn.keyprocess.opening import Found, Opened
from sojourn.spiffe.ids import SpiffeId, TrustDomain

DOMAIN = TrustDomain("example.org")
WEB = SpiffeId.parse("spiffe://example.org/web")
HOUR = timedelta(hours=1)
SETTINGS = TokenSettings(
    Pkcs11Place("/lib/module.so", "my token", "/pin"), DOMAIN, "n1", "ec-p256", timedelta(days=3650), timedelta(days=1)
)
FIRST, SECOND = (f"{SETTINGS.prefix}{number}" for number in (1, 2))


class FakeProcess:
    """The key process in this one, with keys in memory. While `away` it fails; `lying` changes what it answers."""

    def __init__(self, clock):
        self.keys, self.away, self.lying = FakeKeys(), "", lambda answer: answer
        self._host, self._asked = Host(), 0
        self._host._opened = Opened(Builder(self.keys, SETTINGS, clock.now, clock.boot), lambda: None)
        self._host._found = Found(None, lambda _: self._host._opened)

    async def ask(self, do, **told):
        if self.away in {do, "all"}:
            raise KeysUnavailable("the token is away")
        self._asked += 1
        answer = self._host.answer({"id": self._asked, "do": do, **told})
        del answer["id"]
        return self.lying(_done(answer))


class Place:
    """An authority whose roots are in a token, once it is begun."""

    def __init__(self, folder):
        self.folder, self.clock, self.told = folder / "keys", FakeClock(datetime.now(UTC)), []
        self.folder.mkdir(mode=0o700)
        self.process = FakeProcess(self.clock)
        self.maker = self.new_maker()
        self.pauses = Pauses()
        self.authority = None

    def new_maker(self):
        return RootMaker(self.process, SETTINGS, self.folder, lambda what, _root: self.told.append(what))

    async def begin(self, upstream=None, **more):
        self.authority = authority_in(
            *(self.folder, self.clock),
            root=lambda own: TokenRoots(own, self.process, lambda what, _root: self.told.append(what), self.clock),
            maker=self.maker,
            sleep=self.pauses,
            upstream=None if upstream is None else upstream.setting(timedelta(0)),
            **more,
        )
        await self.authority.begin()
        return self.authority


@pytest.fixture
async def place(tmp_path):
    made = Place(tmp_path)
    yield made
    if made.authority is not None:
        await made.authority.close()


async def test_one_key_for_all_starts(place):
    """However often a start fails after the key was made, it is made once; the next good one has its root by it."""
    place.process.lying = lambda answer: {} if "certificate" in answer else answer
    for _ in range(1_000):
        place.process._host._opened.builder._all.clear()
        with pytest.raises(KeysUnavailable):
            await place.new_maker().make(())
    assert [FIRST] == list(place.process.keys.kept)
    place.process.lying = lambda answer: answer
    authority = await place.begin()
    assert authority.root.public_key() == place.process.keys.kept[FIRST].public_key()
    assert not (place.folder / "root-number").exists()


async def test_one_key_where_it_cannot_be_named(place):
    """Where a key is made in one step and named in another, starts that may not name it make one and no second; the next
    good one has its root by it.
    """
    keys = place.process.keys
    keys.unnamed, keys.may_name = {}, False
    for _ in range(100):
        with pytest.raises(KeysUnavailable, match="may not be named"):
            await place.new_maker().make(())
    assert (1, {}) == (len(keys.unnamed), keys.kept)
    keys.may_name = True
    authority = await place.begin()
    assert authority.root.public_key() == keys.kept[FIRST].public_key()
    assert 1 == len(keys.unnamed)


class TestAwayAtTheFirstStart:
    """The token is away when an agent is started for the first time."""

    @pytest.fixture(autouse=True)
    def _away(self, place, monkeypatch):
        monkeypatch.setattr("sojourn.authority.embedded_ca.ROOT_START_SECONDS", 0.05)
        place.process.away, place.pauses.held = "all", True

    async def test_starts(self, place):
        """The agent starts: there are JWT-SVIDs, and no root, no X.509-SVIDs, and no key; it says what it waits for."""
        authority = await place.begin()
        assert ([], False) == (list(place.process.keys.kept), (place.folder / "root-number").exists())
        assert (None, (), ()) == (authority.root, authority.bundle.x509_authorities, authority.slots(X509).all)
        with pytest.raises(KeysUnavailable, match="no valid intermediate") as raised:
            authority.issue_x509(WEB, HOUR)
        assert ("the token is away", "the token is away") == (authority.fault, raised.value.detail)
        assert authority.issue_jwt(WEB, ["a"], HOUR).token
        with pytest.raises(KeysUnavailable, match="no root yet"):
            await authority.prepare_waited(X509)
        assert authority.maintain() > timedelta(0)

    async def test_has_it_once_it_is_there(self, place):
        """When the token answers the root is made, published before anything under it is given out, and signs."""
        authority, bundles = await place.begin(), []
        authority.on_change(lambda: bundles.append((len(authority.bundle.x509_authorities), authority.issuer)))
        jwt_keys = set(authority.jwt_keys)
        place.process.away = ""
        authority.hurry()
        await authority._making._asking.wait(10)
        await authority.issuers.wait(10)
        assert authority.issue_x509(WEB, HOUR).chain
        assert (1, None) == bundles[0]
        assert (jwt_keys, "") == (set(authority.jwt_keys), authority.fault)
        assert (FIRST, "active") == (authority.slots(X509).active.key.object, authority.slots(X509).active.status)
        assert ["root", "intermediate"] == place.told

    async def test_started_again(self, place):
        """Further starts meanwhile are as the first, with the same JWT keys; the one that finds the token has a root."""
        before = set((await place.begin()).jwt_keys)
        for _ in range(2):
            await place.authority.close()
            place.maker = place.new_maker()
            assert before == set((await place.begin()).jwt_keys)
        await place.authority.close()
        place.process.away = ""
        authority = await place.begin()
        assert authority.issue_x509(WEB, HOUR).chain
        assert (before, [FIRST]) == (set(authority.jwt_keys), list(place.process.keys.kept))
        assert ["jwt.pem", "root.pem", "sequence"] == sorted(each.name for each in place.folder.iterdir())

    async def test_given_up(self, place):
        """Whoever goes back to files before there was a root has one in a file, and no trace of what was awaited."""
        await (await place.begin()).close()
        authority = authority_in(place.folder, place.clock)
        assert authority.issue_x509(WEB, HOUR).chain
        assert not (place.folder / "root-awaited").exists()


@pytest.mark.parametrize("lost", [False, True])
async def test_lost_root(place, lost):
    """A root.pem that is gone is a loss, whatever of a next root was under way: no other is made in its place."""
    authority = await place.begin()
    if lost:  # a crash while the second root was made
        (place.folder / "root-number").write_text("2")
    await authority.close()
    (place.folder / "root.pem").unlink()
    with pytest.raises(CannotStart, match="no root: restore"):
        await place.begin()
    assert [FIRST] == list(place.process.keys.kept)


async def test_number_that_was_left(place):
    """A number that a crash has left of a root that is on disk is forgotten, so that its key is never used twice."""
    await (await place.begin()).close()
    (place.folder / "root-number").write_text("1")
    await place.begin()
    assert not (place.folder / "root-number").exists()


async def test_kept_apart(place):
    """root.pem has the certificate and the key's URI, and is read again with them."""
    authority = await place.begin()
    await authority.close()
    text = (place.folder / "root.pem").read_text()
    assert f"pkcs11:token=my%20token;object={FIRST.replace('/', '%2F')};type=private\n" in text
    assert "PRIVATE" not in text
    again = await place.begin()
    root = again.slots(X509).active.key
    assert TokenRoot(authority.root, FIRST, "my token") == root
    assert again.issue_x509(WEB, HOUR).chain


async def test_not_by_a_file(place):
    """An agent that is not told of the token says where the key is, and does not start."""
    await (await place.begin()).close()
    with pytest.raises(CannotStart, match="pkcs11:token=my%20token"):
        authority_in(place.folder, place.clock)


async def test_follows_by_itself(place):
    """At half of a root's life the next one is made in the token; if that is away then, as soon as it is back."""
    authority = await place.begin()
    place.process.away = "next"
    place.clock.advance(timedelta(days=1830).total_seconds())
    authority.maintain()
    assert None is authority.slots(X509).prepared
    place.process.away = ""
    await authority._making._asking.wait(10)
    prepared = authority.slots(X509).prepared
    assert (SECOND, 2) == (prepared.key.object, len(authority.bundle.x509_authorities))
    assert not (place.folder / "root-number").exists()


async def test_prepared_by_hand(place):
    """An operator's `prepare` and `activate` wait for the token, and change nothing if it is away."""
    authority = await place.begin()
    before = (place.folder / "root.pem").read_bytes()
    place.process.away = "make"
    with pytest.raises(Unavailable):
        await authority.prepare_waited(X509)
    assert before == (place.folder / "root.pem").read_bytes()
    place.process.away = ""
    made = await authority.prepare_waited(X509)
    assert SECOND == made.key.object
    place.process.away = "sign"
    with pytest.raises(Unavailable):
        await authority.activate(X509, made.id)
    assert made.id != authority.slots(X509).active.id
    place.process.away = ""
    await authority.activate(X509, made.id)
    assert (made.id, [FIRST, SECOND]) == (authority.slots(X509).active.id, sorted(place.process.keys.kept))
    assert authority.root_of(authority.issue_x509(WEB, HOUR)) == made.id


@pytest.mark.parametrize("lie", ["another key", "junk", "another domain", "nothing", "more", "itself"])
async def test_lies(place, lie):
    """What comes back and is not the intermediate that was asked for is not used."""
    authority = await place.begin()
    key, now = ec.generate_private_key(ec.SECP256R1()), place.clock.now()
    other = self_sign(TrustDomain("other.example"), key, now, now + HOUR).public_bytes(Encoding.DER)
    mine = self_sign(DOMAIN, key, now, now + HOUR).public_bytes(Encoding.DER)
    good = authority.whole_chain[0].public_bytes(Encoding.DER)
    lies = {
        "another key": {"certificate": encoded(good)},
        "junk": {"certificate": encoded(b"junk")},
        "another domain": {"certificate": encoded(other)},
        "nothing": {},
        "more": {"certificate": encoded(good), "more": 1},
        "itself": {"certificate": encoded(mine)},
    }
    place.process.lying = lambda _answer: lies[lie]
    before = authority.issuer
    with pytest.raises(KeysUnavailable):
        await authority.issuers.under(authority.slots(X509).active.id)
    assert before == authority.issuer


async def test_told(place):
    """Each signature is told, for the journal."""
    await place.begin()
    assert ["root", "intermediate"] == place.told


class TestBelowAnUpstreamAuthority:
    """An agent whose root is in a token comes to stand below an upstream authority, and goes back."""

    async def test_over_and_back(self, place):
        """Until the upstream authority has answered the root in the token signs on; then it does not; and once there is
        no upstream authority any more, it signs again.
        """
        own = key_id((await place.begin()).root)
        await place.authority.close()
        upstream = FakeUpstream(place.clock)
        upstream.failing, place.pauses.held = "nobody is there", True
        authority = await place.begin(upstream)
        assert own == authority.root_of(authority.issue_x509(WEB, HOUR))
        await authority.close()
        upstream.failing = ""
        authority = await place.begin(upstream)
        await authority.upstream_root.look()
        authority.issuers.renew()
        await authority.issuers.wait(10)
        assert key_id(upstream.line[0].certificate) == authority.root_of(authority.issue_x509(WEB, HOUR))
        await authority.close()
        authority = await place.begin()
        place.clock.advance(timedelta(days=2).total_seconds())
        authority.maintain()
        await authority.issuers.wait(10)
        assert own == authority.root_of(authority.issue_x509(WEB, HOUR))
        assert [FIRST] == list(place.process.keys.kept)

    async def test_token_away_meanwhile(self, place, monkeypatch):
        """With the token away below an upstream authority, that signs from the first start on."""
        monkeypatch.setattr("sojourn.authority.embedded_ca.ROOT_START_SECONDS", 0.05)
        place.process.away, place.pauses.held = "all", True
        upstream = FakeUpstream(place.clock)
        authority = await place.begin(upstream)
        assert key_id(upstream.line[0].certificate) == authority.root_of(authority.issue_x509(WEB, HOUR))


class TestIntermediatesOnDisk:
    """Where keys are sealed on disk the intermediate lies there too."""

    SEAL = KeySeal(bytes(32))

    async def test_restart_without_the_token(self, place):
        """A restart signs on by the same intermediate, and asks nothing of the token, which may be away."""
        before = (await place.begin(seal=self.SEAL)).issuer
        await place.authority.close()
        assert b"PRIVATE KEY" not in (place.folder / "intermediates.pem").read_bytes()
        place.process.away = "all"
        authority = await place.begin(seal=self.SEAL)
        assert (before, ["root", "intermediate"]) == (authority.issuer, place.told)
        assert authority.issue_x509(WEB, HOUR).chain[1] == before
        assert str(place.folder / "intermediates.pem") == authority.key_place(before)

    async def test_not_in_clear(self, place):
        """Without a seal it is in memory alone, and none of before is left or taken."""
        await (await place.begin(seal=self.SEAL)).close()
        (place.folder / "jwt.pem").unlink()
        before = place.authority.issuer
        authority = await place.begin()
        assert not (place.folder / "intermediates.pem").exists()
        assert (False, "memory") == (before == authority.issuer, authority.key_place(authority.issuer))

    async def test_of_a_revoked_root(self, place):
        """One whose root has left the bundle does not sign again."""
        authority = await place.begin(seal=self.SEAL)
        kept, first = (place.folder / "intermediates.pem").read_bytes(), authority.slots(X509).active.id
        await authority.activate(X509, (await authority.prepare_waited(X509)).id)
        authority.taint(X509, first)
        authority.revoke(X509, first)
        await authority.close()
        (place.folder / "intermediates.pem").write_bytes(kept)
        authority = await place.begin(seal=self.SEAL)
        assert first != authority.root_of(authority.issue_x509(WEB, HOUR))

    async def test_root_signatures_of_a_day(self, place):
        """A root signs two intermediates a day, however often the agent is restarted."""
        await place.begin(seal=self.SEAL)
        place.told.clear()
        for _ in range(24):
            place.clock.advance(3600)
            place.authority.maintain()
            await place.authority.issuers.wait(10)
            await place.authority.close()
            await place.begin(seal=self.SEAL)
        assert ["intermediate"] * 2 == place.told


class TestTry:
    """`sojourn authority test`."""

    async def test_each_root(self, place):
        """Each root's key signs, wherever it is, and it is told where, and journaled of those in a token."""
        authority_in(place.folder, place.clock)  # has a root in a file
        authority = await place.begin()
        await authority.activate(X509, (await authority.prepare_waited(X509)).id)
        place.told.clear()
        old, active = await authority.try_roots()
        assert ("old", str(place.folder / "root.pem"), "") == (old.status, old.place, old.fault)
        assert ("active", True, "") == (active.status, FIRST.replace("/", "%2F") in active.place, active.fault)
        assert ["test"] == place.told

    @pytest.mark.parametrize(
        ("lie", "said"),
        [
            ({"signature": encoded(b"junk")}, "not by the key"),
            ({"signature": 1}, "no signature"),
            ({"signature": encoded(b""), "more": 1}, "no signature"),
            ({}, "no signature"),
        ],
    )
    async def test_lies(self, place, lie, said):
        """What is no signature of the root's key is a fault."""
        authority = await place.begin()
        place.process.lying = lambda _answer: lie
        [found] = await authority.try_roots()
        assert ("keys_unavailable", True) == (found.code, said in found.fault)

    async def test_away(self, place, monkeypatch):
        """A token that is away, or silent, is told with its code, and in time."""
        monkeypatch.setattr("sojourn.authority.root_tests.ROOT_SECONDS", 0.05)
        authority = await place.begin()
        place.process.away = "test"
        [found] = await authority.try_roots()
        assert ("keys_unavailable", "the token is away") == (found.code, found.fault)
        monkeypatch.setattr(authority._own, "sign_test", lambda *_: asyncio.sleep(60))
        [found] = await authority.try_roots()
        assert "nothing was signed within" in found.fault
