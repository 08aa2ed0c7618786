"""Why a process has the identities that it has, or none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sojourn.attestation.attestor import Attested
from sojourn.attestation.selectors import text_of
from sojourn.identity.entries import Entry
from sojourn.identity.matching import nearest, unique_hints
from sojourn.limits import EXPLAINED_ENTRIES
from sojourn.spiffe.ids import SpiffeId


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one entry says to a caller: matched, hint_taken, missing_selectors, other_parent or expired."""

    entry: Entry
    verdict: str
    missing: tuple[str, ...] = ()


def verdicts(
    entries: Iterable[Entry], served: Iterable[Entry], attested: Attested, node_ids: Sequence[SpiffeId]
) -> list[Verdict]:
    """The entries that the caller has, in their order, then those that match and give nothing, then the nearest misses.

    `served`: those that match and are this node's to serve now.
    """
    entries, selectors, served = list(entries), attested.selectors, list(served)
    here = {entry.id for entry in served}
    had = {entry.id for entry in unique_hints(served)}
    matching = sorted((entry for entry in entries if entry.selectors <= selectors), key=lambda entry: entry.order)
    found = [Verdict(entry, "matched") for entry in matching if entry.id in had]
    found += [Verdict(entry, "hint_taken") for entry in matching if entry.id in here - had]
    found += [
        Verdict(entry, "expired" if entry.parent_id in node_ids else "other_parent")
        for entry in matching
        if entry.id not in here
    ]
    found += [
        Verdict(entry, "missing_selectors", tuple(text_of(entry.selectors - selectors)))
        for entry in nearest(entries, selectors, attested.withheld, EXPLAINED_ENTRIES)
    ]
    return found


def conclusion(found: list[Verdict], attested: Attested, has: str = "the process has") -> str:
    """One or two sentences: what the process gets, or what is missing. `has`: who has what is found."""
    matched = [verdict.entry for verdict in found if verdict.verdict == "matched"]
    if matched:
        ids = ", ".join(str(entry.spiffe_id) for entry in matched)
        return f"{has} {len(matched)} {'identity' if len(matched) == 1 else 'identities'}: {ids}"
    if attested.failures:
        names = ", ".join(sorted(attested.failures))
        return f"no entry matches, but it cannot be said that none would: attestor {names} could not tell"
    if not found:
        return "no identity: there are no entries; register one with `sojourn entry create`"
    first = found[0]
    if first.verdict == "missing_selectors":
        why = "; ".join(
            f"{name} could not be proved: {reason}"
            for name, reason in attested.withheld.items()
            if any(missing.startswith(f"{name}:") for missing in first.missing)
        )
        text = f"no identity: the nearest entry, for {first.entry.spiffe_id}, also asks for {', '.join(first.missing)}"
        return f"{text} ({why})" if why else text
    reason = "has expired" if first.verdict == "expired" else "belongs to another node (its parent is not this agent)"
    return f"no identity: the entry for {first.entry.spiffe_id} matches but {reason}"
