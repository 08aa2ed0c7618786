"""Declarative registration: what must change so that the entries are the ones that are wanted."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

from sojourn.errors import FailedPrecondition, InvalidEntry, SojournError, joined
from sojourn.identity.entries import Registration, check
from sojourn.spiffe.ids import TrustDomain


@dataclass(frozen=True, slots=True)
class ReconciliationStep:
    """One change: `create` has no `old`, `delete` no `new`; of an `update` `changed` names the fields."""

    action: str  # create | update | delete
    old: Registration | None
    new: Registration | None
    changed: tuple[str, ...] = ()

    @property
    def event(self) -> str:
        """What the audit calls it."""
        return f"entry_{self.action}d"


@dataclass(frozen=True, slots=True)
class Plan:
    """All changes, and how many entries are as wanted already."""

    steps: tuple[ReconciliationStep, ...]
    unchanged: int


def make(
    existing: Iterable[Registration],
    wanted: Sequence[Registration],
    trust_domain: TrustDomain,
    *,
    prune: Callable[[Registration], bool] | None,
    locked: Callable[[Registration], str] = lambda _: "",
    places: Sequence[str] = (),
) -> Plan:
    """Compare what is there with what is wanted. Raise InvalidEntry with the faults of all wanted entries.

    A wanted entry with an ID is the one with that ID; without, it is the one with the same SPIFFE ID, parent and
    selectors. What is there and not wanted goes if `prune` says so. New entries have an empty ID if they named none.
    `locked` says why what is there may not be changed, or nothing: raise FailedPrecondition if there is no other fault.
    `places` says where the wanted entries stand; without, they are counted. An entry keeps its origin if the wanted one
    has none.
    """
    existing = list(existing)
    by_id = {entry.id: entry for entry in existing}
    by_digest = {entry.identity_digest: entry for entry in existing}
    faults: list[str] = []
    seen: dict[str, int] = {}
    steps: list[ReconciliationStep] = []
    kept: set[str] = set()
    kind: type[SojournError] = FailedPrecondition
    places = places or [f"entry {place}" for place in range(1, len(wanted) + 1)]
    for place, entry in enumerate(wanted):
        fault = _fault(entry, trust_domain)
        twin = seen.setdefault(entry.identity_digest, place)
        if not fault and twin != place:
            fault = f"is the same as {places[twin]}: one SPIFFE ID, parent and set of selectors"
        if fault:
            kind = InvalidEntry
            faults.append(f"{places[place]} ({entry.spiffe_id}): {fault}")
            continue
        old = by_id.get(entry.id) if entry.id else by_digest.get(entry.identity_digest)
        if old is None:
            steps.append(ReconciliationStep("create", None, entry))
            continue
        kept.add(old.id)
        origin = entry.origin or old.origin
        new = replace(entry, id=old.id, revision=old.revision, created_at=old.created_at, origin=origin)
        changed = tuple(
            each.name for each in fields(Registration) if getattr(old, each.name) != getattr(new, each.name)
        )
        if changed and (reason := locked(old)):
            faults.append(f"{places[place]} ({entry.spiffe_id}): {reason}")
        elif changed:
            steps.append(ReconciliationStep("update", old, new, changed))
    if faults:
        raise kind(joined(faults))
    if prune is not None:
        steps += [
            ReconciliationStep("delete", entry, None) for entry in existing if entry.id not in kept and prune(entry)
        ]
    changed_count = sum(step.action != "delete" for step in steps)
    return Plan(tuple(steps), len(wanted) - changed_count)


def _fault(entry: Registration, trust_domain: TrustDomain) -> str:
    try:
        check(entry if entry.id else replace(entry, id="new"), trust_domain)
    except SojournError as error:
        return error.public
    return ""
