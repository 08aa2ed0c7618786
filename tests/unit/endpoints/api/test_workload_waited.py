"""endpoints/api/workload.py with signers that keep callers waiting: what is sent, when, and to whom."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from fakes.identity_room import Room
from fakes.registrations import entry
from fakes.signers import late_signers
from harness.looking import idle
from sojourn._pb import workload_pb2 as pb
from sojourn.attestation.peer import Peer
from sojourn.authority.embedded_ca import JWT
from sojourn.endpoints.api import signed_answers
from sojourn.endpoints.api import workload as workload_module
from sojourn.endpoints.api.workload import WorkloadApi
from sojourn.errors import AttestationFailed, NoIdentity, SvidRevoked, Unavailable
from sojourn.identity import signatures as signatures_module
from sojourn.identity.revocation_list import ENTRY
from sojourn.limits import SIGNATURE_RETRY_MAX_SECONDS

WEB, MORE, FIRST = entry("/web"), entry("/more"), entry("/first")
OTHER_ID = entry("/other").spiffe_id
DEADLINE_SECONDS = 20


@dataclass
class Call:
    peer: Peer
    pushed: list[Any] = field(default_factory=list)

    def send_now(self, answer: bytes) -> bool:
        self.pushed.append(pb.X509SVIDResponse.FromString(answer))
        return True


class Stream:
    """A stream, and all of its answers as they come. `error`: what it has ended with."""

    def __init__(self, api, peer):
        self.call = Call(peer)
        self.answers = self.call.pushed  # both ways into one list
        self.error = None
        self._reading = asyncio.ensure_future(self._read(api))

    async def _read(self, api):
        try:
            async with aclosing(api.fetch_x509_svid(self.call, pb.X509SVIDRequest())) as answers:
                async for answer in answers:
                    self.answers.append(pb.X509SVIDResponse.FromString(answer))
        except Exception as error:
            self.error = error

    async def has(self, count):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(self.answers) < count and self.error is None:
                await asyncio.sleep(0)
        await idle()
        if self.error is not None:
            raise self.error
        assert count == len(self.answers)
        return ids(self.answers[-1])

    async def ended(self):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._reading
        return self.error

    async def close(self):
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


def ids(answer):
    return [each.spiffe_id.removeprefix("spiffe://example.org") for each in answer.svids]


class LateRoom(Room):
    """An identity room whose SVIDs have to be waited for."""

    def __init__(self, folder, entries):
        super().__init__(folder, entries, signers=late_signers)
        self.signers = self.issuing.signers
        self.x509, self.jwt = self.signers.x509, self.signers.jwt
        self.api = WorkloadApi(self.identities, self.auditing, self.clock, wit=False)
        self.happened = []
        self.auditing.on_event(lambda event, _fields: self.happened.append(event))
        self._streams = []

    def stream(self):
        self._streams.append(Stream(self.api, self.peer))
        return self._streams[-1]

    def jwts(self, *audience):
        request = pb.JWTSVIDRequest(audience=audience or ["a"])
        return asyncio.ensure_future(self.api.fetch_jwt_svid(Call(self.peer), request))

    def events(self, name):
        return [each for each in self.happened if each == name]

    async def close_all(self):
        for each in self._streams:
            await each.close()
        self.close()


@pytest.fixture
async def room(tmp_path):
    room = LateRoom(tmp_path / "keys", [WEB])
    yield room
    await room.close_all()


@pytest.fixture
def hasty(monkeypatch):
    """Nobody waits for long."""
    for module in (signed_answers, signatures_module, workload_module):
        monkeypatch.setattr(module, "SIGNATURE_WAIT_SECONDS", 0.05)


class TestStreams:
    async def test_the_first_answer(self, room):
        """A stream waits for its SVID; what is there then costs the next stream no signature and no waiting."""
        stream = room.stream()
        await idle()
        assert [] == stream.answers
        room.x509.let_go()
        assert ["/web"] == await stream.has(1)
        room.x509.hold()
        assert ["/web"] == await room.stream().has(1)
        assert 1 == len(room.x509.asked)

    async def test_the_whole_set(self, room):
        """A first answer has all that the caller is entitled to: it waits for the last of it."""
        await room.registry.create([MORE])
        stream = room.stream()
        await idle()
        assert ([], 2) == (stream.answers, len(room.x509.asked))
        room.x509.let_go()
        assert {"/web", "/more"} == set(await stream.has(1))

    async def test_never_answered(self, room, hasty):
        """A caller whose one SVID is never signed is told so in time."""
        error = await room.stream().ended()
        assert isinstance(error, Unavailable)
        assert "signed" in error.public

    async def test_failure(self, room):
        """What signing fails with, a caller that has nothing is told at once."""
        room.x509.let_go()
        room.x509.failing = Unavailable("the signer is away")
        assert "the signer is away" == (await room.stream().ended()).public

    async def test_a_first_answer_without_what_cannot_be_had(self, room, hasty):
        """A caller whose default SVID is there is served that, although another cannot be signed; it follows when it is."""
        room.x509.let_go()
        await room.stream().has(1)
        room.x509.failing = Unavailable("away")
        await room.registry.create([MORE])
        stream = room.stream()
        assert ["/web"] == await stream.has(1)
        room.x509.failing = None
        room.clock.advance(SIGNATURE_RETRY_MAX_SECONDS)
        room.alarms.ring_due()
        assert ["/web", "/more"] == await stream.has(2)

    async def test_a_caller_that_changes_while_it_waits(self, room, hasty, monkeypatch):
        """Before a first answer goes out the caller is looked at once more, also where it lacks something."""
        room.x509.let_go()
        await room.stream().has(1)
        room.x509.hold()
        await room.registry.create([MORE])
        attest, looked = room.identities._attestation.attest, []

        async def attest_once(peer):
            looked.append(peer)
            if len(looked) > 1:
                raise AttestationFailed("the process has changed")
            return await attest(peer)

        monkeypatch.setattr(room.identities._attestation, "attest", attest_once)
        stream = room.stream()
        assert isinstance(await stream.ended(), AttestationFailed)
        assert [] == stream.answers

    async def test_another_default_is_never_sent(self, tmp_path, hasty):
        """Where the SVID that comes first cannot be had, a first answer does not make another one the default."""
        room = LateRoom(tmp_path / "others", [replace(WEB, created_at=2**40)])
        room.x509.let_go()
        held = room.stream()
        await held.has(1)
        room.x509.failing = Unavailable("away")
        await room.registry.create([FIRST])
        assert isinstance(await room.stream().ended(), Unavailable)
        room.authority.prepare("x509")
        assert ["/web"] == await held.has(2)  # who holds another one hears of what is new meanwhile
        await room.close_all()

    async def test_news_wait_for_nobody(self, room):
        """While a new identity's SVID is signed, a stream hears of all else; what it holds stays."""
        room.x509.let_go()
        stream = room.stream()
        await stream.has(1)
        room.x509.hold()
        await room.registry.create([MORE])
        await idle()
        room.authority.prepare("x509")
        assert ["/web"] == await stream.has(2)
        assert stream.answers[0].svids[0].bundle != stream.answers[1].svids[0].bundle
        room.x509.let_go()
        assert ["/web", "/more"] == await stream.has(3)

    async def test_renewal(self, room):
        """While its SVID is renewed a stream hears nothing, and then of the new one, in the step that wakes it."""
        room.x509.let_go()
        stream = room.stream()
        await stream.has(1)
        room.x509.hold()
        room.clock.advance(timedelta(hours=1).total_seconds() * 0.6)
        room.alarms.ring_due()
        await idle()
        assert 1 == len(stream.answers)
        room.x509.let_go()
        await stream.has(2)
        assert stream.answers[0].svids[0].x509_svid != stream.answers[1].svids[0].x509_svid

    async def test_other_callers_are_served_meanwhile(self, room):
        """A caller whose SVID hangs keeps nobody waiting: not the bundles, and not what is there."""
        hanging = room.stream()
        await idle()
        async with aclosing(room.api.fetch_x509_bundles(Call(room.peer), pb.X509BundlesRequest())) as answers:
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert await anext(answers)
        assert [] == hanging.answers

    async def test_the_agent_stops(self, room):
        """A stream that waits for a signature ends with the agent."""
        stream = room.stream()
        await idle()
        room.identities.close()
        assert isinstance(await stream.ended(), Unavailable)


class TestWhileItIsSigned:
    async def test_the_entry_is_deleted(self, room):
        """A caller whose entry goes while its SVID is signed gets none, and none is recorded."""
        stream = room.stream()
        await idle()
        await room.registry.delete([WEB.id])
        room.x509.let_go()
        assert isinstance(await stream.ended(), NoIdentity)
        assert ([], []) == (room.events("x509_svid_issued"), room.issuing.x509.kept())

    async def test_the_entry_is_changed(self, room):
        """A caller whose entry changes while its SVID is signed gets one for the entry as it is then."""
        stream = room.stream()
        await idle()
        await room.registry.update([(WEB.id, lambda old: replace(old, spiffe_id=OTHER_ID))])
        room.x509.let_go()
        assert ["/other"] == await stream.has(1)
        assert 1 == len(room.events("x509_svid_issued"))

    async def test_it_is_revoked(self, room):
        """What was asked for before an identity was revoked is given to nobody; what is sent was signed after it."""
        stream = room.stream()
        await idle()
        room.identities.revoke_identity(room.revocations.next_identity(ENTRY, WEB.id))
        room.x509.let_go()
        await stream.has(1)
        (kept,) = room.issuing.x509.kept()
        assert not room.revocations.denies("x509", kept.svid.serial, kept.svid.spiffe_id)
        assert (2, 1) == (len(room.x509.asked), room.x509.cancelled)

    async def test_what_it_holds_is_revoked(self, room):
        """A stream whose SVID is revoked gets the next one when that is signed, and ends then."""
        room.x509.let_go()
        stream = room.stream()
        await stream.has(1)
        room.x509.hold()
        room.identities.revoke_identity(room.revocations.next_identity(ENTRY, WEB.id))
        await idle()
        assert (1, None) == (len(stream.answers), stream.error)
        room.x509.let_go()
        assert isinstance(await stream.ended(), SvidRevoked)
        assert 2 == len(stream.answers)

    async def test_what_it_holds_is_revoked_and_there_is_no_other(self, room, hasty):
        """A stream whose SVID is revoked ends although no other can be signed."""
        room.x509.let_go()
        stream = room.stream()
        await stream.has(1)
        room.x509.hold()
        room.identities.revoke_identity(room.revocations.next_identity(ENTRY, WEB.id))
        assert isinstance(await stream.ended(), Unavailable)
        assert 1 == len(stream.answers)


class TestJwts:
    async def test_waited_for(self, room):
        """A caller waits for its JWT-SVID; the next one for the same audience does not."""
        asking = room.jwts()
        await idle()
        room.jwt.let_go()
        (svid,) = (await asking).svids
        room.jwt.hold()
        assert svid.svid == (await room.jwts()).svids[0].svid
        assert (1, 1) == (len(room.jwt.asked), len(room.events("jwt_svid_issued")))

    async def test_never_answered(self, room, hasty):
        """A caller is told in time if it is never signed, and nothing is recorded as issued."""
        with pytest.raises(Unavailable, match="signed"):
            await room.jwts()
        assert [] == room.events("jwt_svid_issued")

    async def test_the_entry_is_deleted(self, room):
        """A caller whose entry goes meanwhile gets none."""
        asking = room.jwts()
        await idle()
        await room.registry.delete([WEB.id])
        room.jwt.let_go()
        with pytest.raises(NoIdentity):
            await asking
        assert [] == room.events("jwt_svid_issued")

    async def test_the_entry_is_changed(self, room):
        """A caller whose entry changes meanwhile gets one of the entry as it is then."""
        asking = room.jwts()
        await idle()
        await room.registry.update([(WEB.id, lambda old: replace(old, spiffe_id=OTHER_ID))])
        room.jwt.let_go()
        assert ["/other"] == ids(await asking)

    async def test_more_entries_meanwhile(self, room):
        """A caller that has more by the time when its JWT-SVID is signed gets one of each."""
        asking = room.jwts()
        await idle()
        await room.registry.create([MORE])
        room.jwt.let_go()
        assert {"/web", "/more"} == set(ids(await asking))

    @pytest.mark.parametrize("what", ["the identity", "the key"])
    async def test_revoked(self, room, what):
        """What was signed before its identity was revoked, or by a key that is tainted then, is given to nobody."""
        asking = room.jwts()
        await idle()
        if what == "the identity":
            room.identities.revoke_identity(room.revocations.next_identity(ENTRY, WEB.id))
        else:
            room.authority.replace(JWT, room.authority.slots(JWT).active.id)
        room.jwt.let_go()
        (svid,) = (await asking).svids
        assert WEB.spiffe_id == room.identities.verify_jwt_svid(svid.svid, ["a"]).spiffe_id
        assert 2 == len(room.jwt.asked)
