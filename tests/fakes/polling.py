"""The side of an agent that polls a transmitter on loopback, over a real database."""

from contextlib import asynccontextmanager

from fakes.databases import opened
from fakes.signed_events import AUDIENCE, CAEP, FakeFacts, FakePeople, iss_sub
from sojourn.audit.journal import Audit
from sojourn.runtime.clock import SystemClock
from sojourn.settings.signals import SignalsConfig
from sojourn.spiffe.ids import TrustDomain
from sojourn.ssf.hearing import Hearing
from sojourn.ssf.receiver import Signals
from sojourn.store.audit import AuditTable
from sojourn.store.security_events import SignalTable

URL = "https://kc.example.org/realms/corp"
REVOKED = {f"{CAEP}session-revoked": {}}
NODE = "spiffe://example.org/spire/agent/sojourn/n1"


class Polling:
    """An agent's side, over a real database, and a transmitter on loopback."""

    def __init__(self, folder, transmitter):
        self.folder = folder
        self.transmitter = transmitter
        self.clock = SystemClock()
        self.facts, self.people = FakeFacts(), FakePeople()
        self.facts.publish = self.publish
        self.people.apply = self.apply
        self.published, self.done, self.counted, self.minted = [], [], [], []

    async def publish(self, publication, by):
        self.published.append(publication)
        return True

    async def apply(self, people, act, source, by):
        if self.people.failure is not None:
            raise self.people.failure
        self.done.append((act.deed, act.whose.subject))

    async def mint(self, audience, *, algorithm="ES256", claims=None):
        self.minted.append((audience, algorithm))
        return "a.b.c"

    @asynccontextmanager
    async def running(self, **changes):
        said = {
            "issuer": self.transmitter.issuer,
            "poll": self.transmitter.poll_url,
            "plain_http": True,
            "timeout": "5s",
            "people": "corp",
            **changes,
        }
        with opened(self.folder / "sojourn.db") as database:
            journal = AuditTable(database)
            self.audit = Audit(journal, self.clock)
            self.store = SignalTable(database, journal)
            hearing = Hearing([SignalsConfig.model_validate(said)], AUDIENCE, {"corp": URL}, self.clock)
            self.signals = Signals(
                hearing.issuers,
                self.facts,
                lambda _: True,
                lambda *_: True,
                self.store,
                self.audit,
                self.clock,
                TrustDomain("example.org"),
                self.people,
            )
            hearing.poll(self.signals, self.mint, NODE)
            [self.poller] = hearing.pollers
            self.poller.counted = self.counted.append
            try:
                yield self
            finally:
                await hearing.close()

    @property
    def state(self):
        return self.poller.state

    def say(self, subject="alice", **changes):
        return self.transmitter.say(**{"sub_id": iss_sub(URL, subject), "events": REVOKED, **changes})
