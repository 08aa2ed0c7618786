"""Which entries a node gets: those whose parent it is, or whose parent is an entry that it gets, and so on.

A node is a parent by its SPIFFE ID, by what an operator has called it, by what all nodes are, and by each alias: an
entry whose parent is the server and whose selectors are all the node's. The alias entries themselves are for nobody.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sojourn.attestation.selectors import Selector
from sojourn.identity.entries import Entry, Registration
from sojourn.identity.entry_changes import Change
from sojourn.identity.registry import Registry
from sojourn.runtime.clock import Clock
from sojourn.server.node_attestor import node_id
from sojourn.server.node_records import Node
from sojourn.spiffe.ids import AGENT_PATH, SERVER_PATH, SpiffeId, TrustDomain

NAMED: Final = "sojourn"  # below which a node's name is its ID, whatever has attested it


def every_node(trust_domain: TrustDomain) -> SpiffeId:
    """The parent of entries that are for all nodes: the ID below which those of nodes are."""
    return SpiffeId(trust_domain, AGENT_PATH.removesuffix("/"))


def named_node(trust_domain: TrustDomain, name: str) -> SpiffeId:
    """The parent of entries that are for the node of this name. Raise InvalidSpiffeId."""
    return node_id(trust_domain, NAMED, name)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a node got, as long as nothing has changed."""

    changes: int
    selectors: frozenset[Selector]
    name: str
    entries: Mapping[str, Entry]


class AuthorizedEntries:
    """Follows the registry, and says what each node gets."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._trust_domain = registry.node_id.trust_domain
        self._server = SpiffeId(self._trust_domain, SERVER_PATH)
        self._below: dict[SpiffeId, dict[str, Entry]] = {}  # entries by their parents
        self._aliases: dict[Selector, dict[str, Entry]] = {}  # by the first of their selectors
        self._changes = 0
        self._found: dict[SpiffeId, _Found] = {}
        now = clock.now().timestamp()
        for each in registry:
            if not each.expires_at or each.expires_at > now:
                self._add(each)
        registry.on_change(self._changed)

    def of(self, node: Node) -> Mapping[str, Entry]:
        """The entries of a node by their IDs. The same object, as long as it gets the same."""
        found = self._found.get(node.spiffe_id)
        if found is None or (found.changes, found.selectors, found.name) != (self._changes, node.selectors, node.name):
            entries = MappingProxyType(self._walk(node))
            if found is not None and found.entries == entries:
                entries = found.entries  # type: ignore[assignment]  # it is such a proxy, too
            found = self._found[node.spiffe_id] = _Found(self._changes, node.selectors, node.name, entries)
        return found.entries

    def forget(self, node: SpiffeId) -> None:
        """Keep nothing of a node that is gone."""
        self._found.pop(node, None)

    def parents(self, node: Node) -> Iterator[SpiffeId]:
        """By which SPIFFE IDs a node itself is a parent."""
        yield node.spiffe_id
        yield every_node(self._trust_domain)
        if node.name:
            yield named_node(self._trust_domain, node.name)
        for selector in node.selectors:
            for alias in self._aliases.get(selector, {}).values():
                if alias.selectors <= node.selectors:
                    yield alias.spiffe_id

    def _walk(self, node: Node) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        seen: set[SpiffeId] = set()
        waiting = list(self.parents(node))
        while waiting:
            parent = waiting.pop()
            if parent in seen or parent == self._server:
                continue
            seen.add(parent)
            for entry_id, entry in self._below.get(parent, {}).items():
                found[entry_id] = entry
                waiting.append(entry.spiffe_id)
        return found

    def _changed(self, changes: Sequence[Change]) -> None:
        self._changes += 1
        for each in changes:
            if each.old is not None:
                self._remove(each.old)
        for each in changes:
            if each.new is not None:
                self._add(each.new)

    def _add(self, entry: Registration) -> None:
        if not isinstance(entry, Entry):
            return  # what a template stands for is not known here
        self._below.setdefault(entry.parent_id, {})[entry.id] = entry
        if entry.parent_id == self._server:
            self._aliases.setdefault(min(entry.selectors), {})[entry.id] = entry

    def _remove(self, entry: Registration) -> None:
        below = self._below.get(entry.parent_id, {})
        if below.pop(entry.id, None) is not None and not below:
            del self._below[entry.parent_id]
        if entry.parent_id == self._server:
            first = min(entry.selectors)
            aliases = self._aliases.get(first, {})
            if aliases.pop(entry.id, None) is not None and not aliases:
                del self._aliases[first]
