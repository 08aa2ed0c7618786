"""A caller, and everything that its identity hangs on, in memory but for the keys and the process."""

from contextlib import ExitStack
from datetime import timedelta

import pytest
from fakes.attestations import FakeAttestor
from fakes.authorities import authority_in
from fakes.children import child, peer_of
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from fakes.registrations import NODE, TRUST_DOMAIN, FakeEntryStore, FakeForeignStore, entry
from fakes.revocations import FakeRevocationStore
from sojourn.attestation.service import Attestation
from sojourn.audit.journal import Audit
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.identities import Identities
from sojourn.identity.registry import Registry
from sojourn.identity.revocations import Revocations
from sojourn.identity.svid_issuer import Signers, SvidIssuer
from sojourn.runtime.clock import Alarms

TTL = timedelta(hours=1)
WEB = entry("/web")


class Room:
    """A caller that is `unix:uid:1000`, and everything that its identity hangs on."""

    def __init__(self, folder, entries, signers=lambda _authority: None):
        """`signers`: makes what signs instead of the authority itself."""
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)
        self.attestor = FakeAttestor({"uid:1000", "gid:1000"})
        self.registry = Registry(FakeEntryStore(entries), TRUST_DOMAIN, [NODE], self.clock, self.alarms)
        self.authority = authority_in(folder, self.clock)
        self.audit = FakeAuditStore()
        self.auditing = Audit(self.audit, self.clock)
        signing = signers(self.authority) or Signers.at_once(self.authority, TTL, timedelta(minutes=5))
        self.issuing = SvidIssuer(self.authority, signing, self.clock, self.alarms, self.auditing)
        self.revocations = Revocations(FakeRevocationStore(), self.authority, self.clock, self.alarms)
        self.foreign = ForeignBundles(FakeForeignStore(), TRUST_DOMAIN, self.registry)
        self.identities = Identities(
            Attestation({"unix": self.attestor}, self.clock),
            self.registry,
            self.authority,
            self.issuing,
            self.revocations,
            self.foreign,
            self.clock,
        )
        self._closing = ExitStack()
        self.process = self._closing.enter_context(child())
        self.peer = peer_of(self.process)
        self._closing.callback(self.peer.close)

    def stream(self):
        return self.identities.stream(self.peer, "FetchX509SVID")

    def close(self):
        self._closing.close()


def ids(entries):
    return [each.id for each in entries]


@pytest.fixture(name="room")
async def room_fixture(tmp_path):
    room = Room(tmp_path / "keys", [WEB])
    yield room
    room.close()


@pytest.fixture(name="empty")
async def empty_fixture(tmp_path):
    room = Room(tmp_path / "keys", [])
    yield room
    room.close()
