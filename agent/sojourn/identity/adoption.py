"""Entries of a node that has another name now: whose they are, and how this node takes them over.

A host that is renamed is another node, and serves none of the entries that it had.
"""

from collections import Counter
from dataclasses import dataclass, replace

import structlog

from sojourn.errors import AlreadyExists, InvalidInput, LimitExceeded, NotFound, joined
from sojourn.identity.entries import Registration
from sojourn.identity.entry_changes import Recorder
from sojourn.identity.nodes import folder_of, name_of, other_nodes_told
from sojourn.identity.reconciliation import Plan, ReconciliationStep
from sojourn.identity.registry import Registry
from sojourn.limits import ENTRIES_PER_BATCH
from sojourn.spiffe.ids import SpiffeId

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Adopted:
    """The entries that are this node's now, as they are now; and those of a followed folder, which stay as they are."""

    node: SpiffeId
    entries: tuple[Registration, ...]
    left: tuple[Registration, ...]


def other_nodes(registry: Registry) -> dict[SpiffeId, int]:
    """How many entries are for each agent of Sojourn's that is neither this one nor an alias, by name."""
    folder = folder_of(registry.node_id)
    found = Counter(
        entry.parent_id
        for entry in registry
        if entry.parent_id not in registry.node_ids and folder_of(entry.parent_id) == folder
    )
    return {node: found[node] for node in sorted(found, key=str)}


def tell(registry: Registry) -> None:
    """Warn in the log if there are entries that are for other nodes."""
    nodes = other_nodes(registry)
    if nodes:
        counts = {name_of(node): count for node, count in nodes.items()}
        log.warning("entries_of_other_nodes", reason=other_nodes_told(counts, name_of(registry.node_id)), nodes=counts)


async def adopt(registry: Registry, name: str, *, dry_run: bool, record: Recorder | None = None) -> Adopted:
    """Make the entries of another node this one's, all or nothing. `name`: its name or ID; empty if there is one alone.

    Raise NotFound, InvalidInput if it is not said which of several, AlreadyExists if an entry is registered here too.
    """
    node = _chosen(registry, name)
    left = tuple(entry for entry in registry if entry.parent_id == node and registry.followed(entry))

    def plan() -> Plan:
        found = [entry for entry in registry if entry.parent_id == node and not registry.followed(entry)]
        if len(found) > ENTRIES_PER_BATCH:
            raise LimitExceeded(f"more than {ENTRIES_PER_BATCH} entries: node_aliases serves them as they are")
        ours = [replace(entry, parent_id=registry.node_id) for entry in found]
        _check_twins(registry, ours)
        steps = zip(found, ours, strict=True)
        return Plan(tuple(ReconciliationStep("update", old, new, ("parent_id",)) for old, new in steps), 0)

    done = await registry.apply_plan(plan, dry_run=dry_run, record=record)
    return Adopted(node, tuple(step.new for step in done.steps if step.new is not None), left)


def _chosen(registry: Registry, name: str) -> SpiffeId:
    nodes = other_nodes(registry)
    told = ", ".join(f"`{name_of(node)}` ({count})" for node, count in nodes.items())
    if not name:
        if not nodes:
            raise NotFound("no entry is for another node")
        if len(nodes) > 1:
            raise InvalidInput(f"entries are for several nodes, {told}: name one with --from")
        return next(iter(nodes))
    here = registry.node_id
    text = name if name.startswith("spiffe://") else f"spiffe://{here.trust_domain.name}{folder_of(here)}/{name}"
    node = SpiffeId.parse(text)
    if node == here:
        raise InvalidInput(f"`{name_of(node)}` is this node")
    if not any(entry.parent_id == node for entry in registry):
        others = f"; there are: {told}" if told else ", nor for any other node"
        raise NotFound(f"no entry is for `{name_of(node)}`{others}")
    return node


def _check_twins(registry: Registry, ours: list[Registration]) -> None:
    known = {entry.identity_digest: entry for entry in registry}
    faults = [
        f"{entry.id} ({entry.spiffe_id}) is registered here already, as {twin.id}: delete one of them"
        for entry in ours
        if (twin := known.get(entry.identity_digest)) is not None
    ]
    if faults:
        raise AlreadyExists(joined(faults))
