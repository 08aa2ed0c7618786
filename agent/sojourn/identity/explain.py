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
    """What one entry says to a caller: matched, cannot_tell, hint_taken, missing_selectors, other_parent or expired."""

    entry: Entry
    verdict: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Need:
    """What an attestor that could not tell would have had to say for `entry` to match; `others`: what that also asks
    for, and is not so.
    """

    entry: Entry
    selectors: tuple[str, ...]
    others: tuple[str, ...] = ()


def verdicts(
    entries: Iterable[Entry],
    served: Iterable[Entry],
    possible: Iterable[Entry],
    attested: Attested,
    node_ids: Sequence[SpiffeId],
) -> list[Verdict]:
    """The entries that the caller has, in their order, then those that it may have, those that match and give nothing,
    and the nearest misses.

    `served`: those that match and are this node's to serve now. `possible`: those that might, and would change what the
    caller has, if all attestors could tell.
    """
    entries, selectors, served = list(entries), attested.selectors, list(served)
    unsure = {entry.id: entry for entry in possible}
    here = {entry.id for entry in served}
    had = {entry.id for entry in unique_hints(served)}
    matching = sorted((entry for entry in entries if entry.selectors <= selectors), key=lambda entry: entry.order)
    found = [Verdict(entry, "matched") for entry in matching if entry.id in had]
    found += [
        Verdict(entry, "cannot_tell", tuple(text_of(entry.selectors - selectors)))
        for entry in list(unsure.values())[:EXPLAINED_ENTRIES]
    ]
    found += [Verdict(entry, "hint_taken") for entry in matching if entry.id in here - had]
    found += [
        Verdict(entry, "expired" if entry.parent_id in node_ids else "other_parent")
        for entry in matching
        if entry.id not in here
    ]
    found += [
        Verdict(entry, "missing_selectors", tuple(text_of(entry.selectors - selectors)))
        for entry in nearest(
            (entry for entry in entries if entry.id not in unsure), selectors, attested.withheld, EXPLAINED_ENTRIES
        )
    ]
    return found


def needs(entries: Iterable[Entry], possible: Sequence[Entry], attested: Attested) -> dict[str, Need]:
    """For each attestor, or kind of its selectors, of which nothing is known: what it would have had to say for the
    nearest entry to match.

    `entries`: those that this node would serve. That is the first of those that are `possible`, if it asks for any of
    the attestor's selectors, or else the one that lacks the fewest.
    """
    entries, found = list(entries), {}
    for name in attested.untold:

        def lacks(entry: Entry, name: str = name) -> bool:
            return any(selector.within({name}) for selector in entry.selectors - attested.selectors)

        best = [entry for entry in possible if lacks(entry)][:1]
        for entry in best or nearest(filter(lacks, entries), attested.selectors, (), 1):
            missing = entry.selectors - attested.selectors
            its = {selector for selector in missing if selector.within({name})}
            found[name] = Need(entry, tuple(text_of(its)), tuple(text_of(missing - its)))
    return found


def conclusion(found: list[Verdict], attested: Attested, has: str = "the process has") -> str:
    """One or two sentences: what the process gets, or what is missing. `has`: who has what is found."""
    matched = [verdict.entry for verdict in found if verdict.verdict == "matched"]
    unsure = [verdict for verdict in found if verdict.verdict == "cannot_tell"]
    ids = ", ".join(str(entry.spiffe_id) for entry in matched)
    if unsure:
        return _undecided(unsure, attested, f"; proved so far: {ids}" if ids else "")
    failed = (
        f"; {_names(attested)} could not tell, but no entry that might match asks for it" if attested.untold else ""
    )
    if matched:
        return f"{has} {len(matched)} {'identity' if len(matched) == 1 else 'identities'}: {ids}{failed}"
    if not found:
        return f"no identity: there are no entries; register one with `sojourn entry create`{failed}"
    return _nothing(found[0], attested) + failed


def _undecided(unsure: list[Verdict], attested: Attested, proved: str) -> str:
    first = unsure[0]
    more = f", and {len(unsure) - 1} more entries might match" if len(unsure) > 1 else ""
    asked = [missing for verdict in unsure for missing in verdict.missing]
    why = "; ".join(
        f"{name}: {reason}"
        for name, reason in sorted(attested.failures.items())
        if name in attested.untold and any(missing.startswith(f"{name}:") for missing in asked)
    )
    return (
        f"not now: an attestor could not tell ({why}), and the entry for {first.entry.spiffe_id} would match if it said"
        f" {', '.join(first.missing)}{more}. New calls get UNAVAILABLE until it can tell; open streams keep what they"
        f" have{proved}"
    )


def _names(attested: Attested) -> str:
    names = sorted(attested.untold)
    return f"attestor {names[0]}" if len(names) == 1 else f"attestors {', '.join(names)}"


def _nothing(first: Verdict, attested: Attested) -> str:
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
