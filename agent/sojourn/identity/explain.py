"""Why a process has the identities that it has, or none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sojourn.attestation.attestor import Attested
from sojourn.attestation.selectors import Selector, text_of
from sojourn.identity.entries import Entry, Registration
from sojourn.identity.matcher import nearest, unique_hints
from sojourn.identity.templates import IdTemplate, Unfilled, values_of
from sojourn.limits import EXPLAINED_ENTRIES
from sojourn.spiffe.ids import SpiffeId


@dataclass(frozen=True, slots=True)
class EntryVerdict:
    """What one entry says to a caller: matched, cannot_tell, hint_taken, unfilled, missing_selectors, other_parent or
    expired.

    `entry`: as the caller has it, or would have; with placeholders where they are not filled. `template`: the text of
    which its SPIFFE ID was made, if it was. `reason`: why a placeholder cannot be filled.
    """

    entry: Registration
    verdict: str
    missing: tuple[str, ...] = ()
    template: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """What an attestor that could not tell would have had to say for `entry` to match; `others`: what that also asks
    for, and is not so.
    """

    entry: Registration
    selectors: tuple[str, ...]
    others: tuple[str, ...] = ()


def verdicts(
    entries: Iterable[Registration],
    served: Iterable[Entry],
    possible: Iterable[Registration],
    attested: Attested,
    node_ids: Sequence[SpiffeId],
) -> list[EntryVerdict]:
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
    templates = {entry.id: _template(entry) for entry in matching}
    found = [EntryVerdict(entry, "matched", template=templates[entry.id]) for entry in served if entry.id in had]
    found += [
        EntryVerdict(entry, "cannot_tell", tuple(sorted(_lacked(entry, attested))), _template(entry))
        for entry in list(unsure.values())[:EXPLAINED_ENTRIES]
    ]
    found += [
        EntryVerdict(entry, "hint_taken", template=templates[entry.id]) for entry in served if entry.id not in had
    ]
    found += [
        _not_served(entry, attested, node_ids) for entry in matching if entry.id not in here and entry.id not in unsure
    ]
    found += [
        EntryVerdict(entry, "missing_selectors", tuple(text_of(entry.selectors - selectors)), _template(entry))
        for entry in nearest(
            (entry for entry in entries if entry.id not in unsure), selectors, attested.withheld, EXPLAINED_ENTRIES
        )
    ]
    return found


def _not_served(entry: Registration, attested: Attested, node_ids: Sequence[SpiffeId]) -> EntryVerdict:
    """Why an entry that has all its selectors gives nothing."""
    if entry.parent_id not in node_ids:
        return EntryVerdict(entry, "other_parent", template=_template(entry))
    made = entry.expand(attested.selectors, attested.untold)
    if isinstance(made, Unfilled):
        return EntryVerdict(entry, "unfilled", template=_template(entry), reason=made.reason)
    return EntryVerdict(made, "expired", template=_template(entry))


def _template(entry: Registration) -> str:
    return str(entry.spiffe_id) if isinstance(entry.spiffe_id, IdTemplate) else ""


def _lacked(entry: Registration, attested: Attested) -> dict[str, Selector]:
    """What an entry asks for and a caller has not, for people; `k8s:ns:…` for what fills a placeholder in."""
    missing = {str(selector): selector for selector in entry.selectors - attested.selectors}
    for each in entry.placeholders:
        if isinstance(values_of([each], attested.selectors, attested.untold), Unfilled):
            missing[f"{each.type}:{each.key}:…"] = Selector(each.type, f"{each.key}:…")
    return missing


def needs(entries: Iterable[Registration], possible: Sequence[Registration], attested: Attested) -> dict[str, Need]:
    """For each attestor, or kind of its selectors, of which nothing is known: what it would have had to say for the
    nearest entry to match.

    `entries`: those that this node would serve. That is the first of those that are `possible`, if it asks for any of
    the attestor's selectors, or else the one that lacks the fewest.
    """
    entries, found = list(entries), {}
    for name in attested.untold:

        def lacks(entry: Registration, name: str = name) -> bool:
            concerned = any(each.within({name}) for each in entry.selectors)
            if not concerned and not any(each.within({name}) for each in entry.placeholders):
                return False  # of ten thousand entries, most
            return any(selector.within({name}) for selector in _lacked(entry, attested).values())

        best = next(filter(lacks, possible), None)
        for entry in [best] if best is not None else nearest(filter(lacks, entries), attested.selectors, (), 1):
            missing = _lacked(entry, attested).items()
            its = sorted(text for text, selector in missing if selector.within({name}))
            others = sorted(text for text, selector in missing if not selector.within({name}))
            found[name] = Need(entry, tuple(its), tuple(others))
    return found


def conclusion(found: list[EntryVerdict], attested: Attested, has: str = "the process has") -> str:
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


def _undecided(unsure: list[EntryVerdict], attested: Attested, proved: str) -> str:
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


def _nothing(first: EntryVerdict, attested: Attested) -> str:
    if first.verdict == "unfilled":
        kinds = {each.kind for each in first.entry.placeholders}
        reasons = [f"{name} could not be proved: {why}" for name, why in attested.withheld.items() if name in kinds]
        return f"no identity: the entry for {first.entry.spiffe_id} matches but {'; '.join([first.reason, *reasons])}"
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
