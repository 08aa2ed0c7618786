"""workload.py: whatever changes is in the very next answer, on a connection that was answered a moment ago."""

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest
from fakes.authorities import authority_in
from fakes.children import child, peer_of
from fakes.identity_room import TTL, Room
from fakes.registrations import entry
from sojourn._pb import workload_pb2 as pb
from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Process
from sojourn.audit.journal import Audit
from sojourn.authority.key_steps import X509
from sojourn.authority.x509_profile import signer_id
from sojourn.endpoints.api.workload import WorkloadApi
from sojourn.errors import AttestationFailed, NoIdentity, Unavailable
from sojourn.identity import identities as identities_module
from sojourn.identity.issued_svids import IssuedSvid
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain

OTHER = TrustDomain("other.example")
WEB = entry("/web", federates_with=(OTHER,))
EXECS = "import os,sys; print(flush=True); os.read(0, 1); os.execvp('cat', ['cat'])"


@dataclass
class Call:
    """What of a call the stream's part looks at."""

    peer: Peer


class Fetching:
    """A room whose caller fetches over and over."""

    def __init__(self, folder: Any) -> None:
        self.room = Room(folder / "keys", [WEB])
        self.folder = folder
        self.api = WorkloadApi(
            self.room.identities, Audit(self.room.audit, self.room.clock), self.room.clock, wit=False
        )

    async def __call__(self) -> pb.X509SVIDResponse:
        """The first answer of a stream, as a client has it that then ends the call. A call comes in a round of its own."""
        await asyncio.sleep(0)
        async with aclosing(self.api.fetch_x509_svid(Call(self.room.peer), pb.X509SVIDRequest())) as answers:
            return pb.X509SVIDResponse.FromString(await anext(answers))

    def svid(self) -> Any:
        return self.room.identities.x509_svid(WEB)


@pytest.fixture
async def fetch(tmp_path, monkeypatch):
    monkeypatch.setattr(identities_module, "UNMATCHED_HOLD_SECONDS", 0.01)
    fetching = Fetching(tmp_path)
    for _ in range(3):
        await fetching()
    yield fetching
    fetching.room.close()


def ids(answer):
    return [each.spiffe_id.removeprefix("spiffe://example.org") for each in answer.svids]


def leaf(answer):
    return answer.svids[0].x509_svid


async def test_nothing(fetch):
    """While nothing changes the answer is the same."""
    assert await fetch() == await fetch()


async def test_a_new_entry(fetch):
    """An entry that was registered is in the next answer."""
    await fetch.room.registry.create([entry("/more")])
    assert {"/web", "/more"} == set(ids(await fetch()))


async def test_an_entry_that_changed(fetch):
    """Of an entry that was changed there is another SVID."""
    before = await fetch()
    await fetch.room.registry.update([(WEB.id, lambda each: replace(each, hint="x"))])
    after = await fetch()
    assert ("", "x") == (before.svids[0].hint, after.svids[0].hint)
    assert leaf(before) != leaf(after)


async def test_an_entry_for_another(fetch):
    """An entry whose selectors are no longer the caller's is gone."""
    other = entry("/x", "unix:uid:7").selectors
    await fetch.room.registry.update([(WEB.id, lambda each: replace(each, selectors=other))])
    with pytest.raises(NoIdentity):
        await fetch()


async def test_an_entry_that_is_deleted(fetch):
    """An entry that was deleted is gone, and one that stays is not."""
    await fetch.room.registry.create([entry("/more")])
    await fetch()
    await fetch.room.registry.delete([WEB.id])
    assert ["/more"] == ids(await fetch())


async def test_an_entry_that_ends(fetch):
    """An entry that ends by the wall clock is in no answer after that, though no alarm has rung."""
    ends = int(fetch.room.clock.now().timestamp()) + 60
    await fetch.room.registry.create([entry("/brief", expires_at=ends)])
    assert {"/web", "/brief"} == set(ids(await fetch()))
    fetch.room.clock.step_wall(60)
    assert ["/web"] == ids(await fetch())
    fetch.room.clock.step_wall(-60)
    assert {"/web", "/brief"} == set(ids(await fetch()))


async def test_an_svid_that_is_renewed(fetch):
    """After a rotation the next answer has the new SVID."""
    before = await fetch()
    async with fetch.room.stream():
        await fetch.room.issuing.rotate(lambda _: True)
        assert leaf(before) != leaf(await fetch())


async def test_an_svid_that_ended(fetch):
    """An SVID whose time is up is not served, though no alarm has rung."""
    before = await fetch()
    fetch.room.clock.step_wall(TTL.total_seconds())
    assert leaf(before) != leaf(await fetch())


async def test_a_clock_that_was_set_back(fetch):
    """An SVID that is not valid yet is not served, also if no other can be made: the root is not valid either."""
    fetch.room.clock.step_wall(-3_600)
    with pytest.raises(Unavailable):
        await fetch()


async def test_a_revoked_svid(fetch):
    """After a revocation there is another SVID, and a list with the old one."""
    before = await fetch()
    svid = fetch.svid()
    revoked = IssuedSvid(
        "x509",
        svid.serial,
        str(svid.spiffe_id),
        WEB.id,
        int(svid.not_after.timestamp()),
        signer_id(svid.leaf),
        fetch.room.authority.root_of(svid),
    )
    await fetch.room.identities.revoke([revoked])
    after = await fetch()
    assert (0, 1) == (len(before.crl), len(after.crl))
    assert leaf(before) != leaf(after)


async def test_a_tainted_authority(fetch):
    """What a tainted authority signed is not served any more once that was replaced, nor is its root once revoked."""
    room, before = fetch.room, await fetch()
    old = room.authority.slots(X509).active.id
    await room.authority.activate(X509, room.authority.prepare(X509).id)
    prepared = await fetch()
    assert before.svids[0].bundle != prepared.svids[0].bundle
    room.authority.taint(X509, old)
    await room.issuing.replace_signed_by(X509, old)
    after = await fetch()
    assert leaf(before) != leaf(after)
    room.authority.revoke(X509, old)
    assert after.svids[0].bundle != (await fetch()).svids[0].bundle


async def test_a_foreign_bundle(fetch):
    """A bundle of a trust domain that the entry federates with is there once it is known, and gone once it is not."""
    authority = authority_in(fetch.folder / "other", fetch.room.clock, trust_domain=OTHER)
    assert {} == dict((await fetch()).federated_bundles)
    await fetch.room.foreign.put(authority.bundle)
    assert {"spiffe://other.example": authority.bundle.x509_der} == dict((await fetch()).federated_bundles)
    changed = Bundle(OTHER, fetch.room.authority.bundle.x509_authorities)
    await fetch.room.foreign.put(changed)
    assert {"spiffe://other.example": changed.x509_der} == dict((await fetch()).federated_bundles)
    await fetch.room.foreign.remove(OTHER, "dissociate")
    assert {} == dict((await fetch()).federated_bundles)


async def test_what_is_proved(fetch):
    """What is proved of a process that moved to another cgroup counts at once."""
    fetch.room.attestor.values = frozenset({"uid:7"})
    assert ["/web"] == ids(await fetch())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Process, "cgroup", lambda _: "0::/elsewhere")
        with pytest.raises(NoIdentity):
            await fetch()


async def test_a_process_that_has_gone(fetch):
    """A caller that has ended has no further answer."""
    fetch.room.process.kill()
    fetch.room.process.wait()
    with pytest.raises(AttestationFailed):
        await fetch()


async def test_another_program(fetch):
    """A caller that has become another program has none on this connection."""
    with child(sys.executable, "-c", EXECS) as process:
        process.stdout.readline()
        fetch.room.peer = Peer.of_pid(process.pid)
        try:
            for _ in range(3):
                await fetch()
            process.stdin.write(b"x\n")
            process.stdin.flush()
            process.stdout.readline()  # cat has begun, and gives the line back
            with pytest.raises(AttestationFailed, match="connect again"):
                await fetch()
        finally:
            fetch.room.peer.close()


@pytest.mark.root
@pytest.mark.parametrize("change", ["os.setegid(4001)", "os.seteuid(4001)"])
async def test_other_ids(fetch, change):
    """A caller that has changed its ids has none on this connection."""
    code = f"import os; print(flush=True); os.read(0, 1); {change}; print(flush=True); os.read(0, 1)"
    with child(sys.executable, "-c", code) as process:
        process.stdout.readline()
        fetch.room.peer = Peer.of_pid(process.pid)
        try:
            for _ in range(3):
                await fetch()
            process.stdin.write(b"x")
            process.stdin.flush()
            process.stdout.readline()
            with pytest.raises(AttestationFailed, match="user or group"):
                await fetch()
        finally:
            fetch.room.peer.close()


async def test_records_of_jwt_svids(fetch):
    """The journal has one record of each JWT-SVID for each process that has it, however often that asks."""
    audit = Audit(fetch.room.audit, fetch.room.clock)
    api = WorkloadApi(fetch.room.identities, audit, fetch.room.clock, wit=False)

    async def given(peer, audience):
        answer = await api.fetch_jwt_svid(Call(peer), pb.JWTSVIDRequest(audience=[audience]))
        return answer.svids[0].svid

    with child() as process:
        other = peer_of(process)
        first = await given(fetch.room.peer, "a")
        assert {first} == {await given(peer, "a") for peer in (fetch.room.peer, other, fetch.room.peer, other)}
        second = await given(fetch.room.peer, "b")
        await audit.flush()
        records = [(each["pid"], each["audience"]) for each in fetch.room.audit.fields("jwt_svid_issued")]
        assert first != second
        pid = fetch.room.peer.process.pid
        assert [(pid, ["a"]), (other.process.pid, ["a"]), (pid, ["b"])] == records
        fetch.room.clock.advance(180)
        assert first != await given(other, "a")
        await audit.flush()
        assert 4 == len(fetch.room.audit.fields("jwt_svid_issued"))
        other.close()


async def test_records_again_when_records_were_lost(fetch):
    """A JWT-SVID whose record the journal may have lost is recorded again: by that it is found to be revoked."""
    audit = Audit(fetch.room.audit, fetch.room.clock, waiting_max=1)
    api = WorkloadApi(fetch.room.identities, audit, fetch.room.clock, wit=False)
    for _ in range(2):
        await api.fetch_jwt_svid(Call(fetch.room.peer), pb.JWTSVIDRequest(audience=["a"]))
        audit.note("another")
    await api.fetch_jwt_svid(Call(fetch.room.peer), pb.JWTSVIDRequest(audience=["a"]))
    await audit.flush()
    assert 1 == len(fetch.room.audit.fields("jwt_svid_issued"))


@pytest.mark.parametrize("method", ["fetch_x509_bundles", "fetch_jwt_bundles"])
async def test_streams_share_what_they_hold(fetch, method):
    """All streams that are told of the same bundles hold one answer, however many they are and however large it is."""
    told = []
    for _ in range(2):
        async with aclosing(getattr(fetch.api, method)(Call(fetch.room.peer), None)) as answers:
            told.append(await anext(answers))
    assert told[0] is told[1]
