"""The registry of a node: it has what the server says, some entries in one step of the loop."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from itertools import islice

import structlog

from sojourn.identity.entries import Entry, Registration, changed
from sojourn.identity.registry import Registry
from sojourn.limits import UPSTREAM_ENTRIES_IN_A_STEP
from sojourn.runtime.background import Background
from sojourn.spiffe.ids import SpiffeId

log = structlog.get_logger()


class NodeEntries:
    """Takes news of entries. What is gone is so at once; what is new is a little later where there is much of it."""

    def __init__(self, registry: Registry, node_id: Callable[[], SpiffeId]) -> None:
        self._registry = registry
        self._node_id = node_id
        self._coming: dict[str, Entry] = {}
        self._background = Background("node_fault")
        self._at_work = False

    def take_all(self, entries: Mapping[str, Entry]) -> None:
        """Have all of these in one step, before anybody is answered."""
        self._follow(entries, ())

    def take(self, put: Mapping[str, Entry], gone: Collection[str] = ()) -> None:
        """Have these, and no more those that are gone, by their IDs."""
        for each in gone:
            self._coming.pop(each, None)
        self._coming.update(put)
        self._step(gone)
        if self._coming and not self._at_work:
            self._at_work = True
            self._background.run(self._rest())

    async def _rest(self) -> None:
        try:
            while self._coming:
                await asyncio.sleep(0)
                self._step(())
        finally:
            self._at_work = False

    def _step(self, gone: Collection[str]) -> None:
        names = list(islice(self._coming, UPSTREAM_ENTRIES_IN_A_STEP))
        self._follow({each: self._coming.pop(each) for each in names}, gone)

    def _follow(self, put: Mapping[str, Entry], gone: Collection[str]) -> None:
        node_id = self._node_id()
        unfit = self._registry.follow_server(
            node_id, {each: _of_node(entry, node_id) for each, entry in put.items()}, gone
        )
        if unfit:
            log.error("node_entries_unfit", entries=unfit)


def _of_node(entry: Entry, node_id: SpiffeId) -> Registration:
    """An entry as this node's, whose ID may be another than when it was told of it."""
    return entry if entry.parent_id == node_id else changed(entry, {"parent_id": node_id})
