"""Registration entries and their store, in memory."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from sojourn.attestation.selectors import Selector
from sojourn.audit.journal import Event
from sojourn.errors import AlreadyExists, SojournError
from sojourn.identity.entries import Entry
from sojourn.spiffe.ids import SpiffeId, TrustDomain

TRUST_DOMAIN = TrustDomain("example.org")
NODE = SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/here")
OTHER_NODE = SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/there")


def selectors(*texts: str) -> frozenset[Selector]:
    return frozenset(Selector.parse(text) for text in texts)


def entry(path: str = "/web", *texts: str, **changes: Any) -> Entry:
    """An entry for `path` with selectors (`unix:uid:1000` if none is named); `changes` are fields."""
    fields = {
        "id": f"entry{path.replace('/', '-')}",
        "spiffe_id": SpiffeId.from_parts("example.org", path),
        "parent_id": NODE,
        "selectors": selectors(*(texts or ("unix:uid:1000",))),
    }
    return Entry(**{**fields, **changes})


class FakeEntryStore:
    """Keeps entries in a dict. `failure` is raised in the place of a write; `gate` holds writes up until it is set."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = {each.id: each for each in entries}
        self.failure: SojournError | None = None
        self.events: list[Event] = []
        self.gate: asyncio.Event | None = None
        self.writing = asyncio.Event()
        self._turn = asyncio.Lock()  # first come, first written

    async def quiet(self) -> None:
        """Return when all that was under way is written."""
        async with self._turn:
            return

    def load(self) -> list[Entry]:
        return list(self.entries.values())

    async def write(self, put: Sequence[Entry], remove: Sequence[str], events: Sequence[Event] = ()) -> None:
        # A write that is under way goes on, whether or not somebody still waits for it: as in a database's thread.
        await asyncio.shield(asyncio.ensure_future(self._write(put, remove)))
        self.events += events

    async def _write(self, put: Sequence[Entry], remove: Sequence[str]) -> None:
        async with self._turn:
            self.writing.set()
            if self.gate is not None:
                await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            gone = {*remove, *(each.id for each in put)}
            kept = {name: each for name, each in self.entries.items() if name not in gone}
            if {each.identity_digest for each in put} & {each.identity_digest for each in kept.values()}:
                raise AlreadyExists("similar entry already exists")
            self.entries = {**kept, **{each.id: each for each in put}}


class FakeForeignStore:
    """Keeps foreign bundles and relationships in dicts. `failure` is raised in the place of a write."""

    def __init__(self, bundles=()) -> None:
        self.bundles = {bundle.trust_domain: bundle for bundle in bundles}
        self.relationships = {}
        self.events = []
        self.failure: SojournError | None = None

    def load(self):
        return list(self.bundles.values()), dict(self.relationships)

    async def put_bundle(self, bundle, events=()) -> None:
        self._fail()
        self.events += events
        self.bundles[bundle.trust_domain] = bundle

    async def remove_bundle(self, trust_domain, events=()) -> None:
        self._fail()
        self.events += events
        self.bundles.pop(trust_domain, None)

    async def put_relationship(self, trust_domain, document, events=()) -> None:
        self._fail()
        self.events += events
        self.relationships[trust_domain] = dict(document)

    async def remove_relationship(self, trust_domain, events=()) -> None:
        self._fail()
        self.events += events
        self.relationships.pop(trust_domain, None)

    async def record(self, events) -> None:
        self._fail()
        self.events += events

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
