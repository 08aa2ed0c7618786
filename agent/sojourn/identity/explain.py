"""Why a process has the identities that it has, or none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sojourn.attestation.attestor import Attested
from sojourn.attestation.selectors import Selector, text_of
from sojourn.identity.entries import Entry, Registration
from sojourn.identity.matching import nearest, unique_hints
from sojourn.identity.templates import IdTemplate, Unfilled
from sojourn.limits import EXPLAINED_ENTRIES
from sojourn.spiffe.ids import SpiffeId


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one entry says to a caller: matched, hint_taken, unfilled, missing_selectors, other_parent or expired.

    `entry`: as the caller has it, or would have; with placeholders where they are not filled. `template`: the text of
    which its SPIFFE ID was made, if it was. `reason`: why a placeholder cannot be filled.
    """

    entry: Registration
    verdict: str
    missing: tuple[str, ...] = ()
    template: str = ""
    reason: str = ""


def verdicts(
    entries: Iterable[Registration], served: Iterable[Entry], attested: Attested, node_ids: Sequence[SpiffeId]
) -> list[Verdict]:
    """The entries that the caller has, in their order, then those that match and give nothing, then the nearest misses.

    `served`: those that match and are this node's to serve now.
    """
    entries, selectors, served = list(entries), attested.selectors, list(served)
    here = {entry.id for entry in served}
    had = {entry.id for entry in unique_hints(served)}
    matching = sorted((entry for entry in entries if entry.selectors <= selectors), key=lambda entry: entry.order)
    templates = {entry.id: _template(entry) for entry in matching}
    found = [Verdict(entry, "matched", template=templates[entry.id]) for entry in served if entry.id in had]
    found += [Verdict(entry, "hint_taken", template=templates[entry.id]) for entry in served if entry.id not in had]
    found += [_not_served(entry, selectors, node_ids) for entry in matching if entry.id not in here]
    found += [
        Verdict(entry, "missing_selectors", tuple(text_of(entry.selectors - selectors)), _template(entry))
        for entry in nearest(entries, selectors, attested.withheld, EXPLAINED_ENTRIES)
    ]
    return found


def _not_served(entry: Registration, selectors: frozenset[Selector], node_ids: Sequence[SpiffeId]) -> Verdict:
    """Why an entry that has all its selectors gives nothing."""
    if entry.parent_id not in node_ids:
        return Verdict(entry, "other_parent", template=_template(entry))
    made = entry.expand(selectors)
    if isinstance(made, Unfilled):
        return Verdict(entry, "unfilled", template=_template(entry), reason=made.reason)
    return Verdict(made, "expired", template=_template(entry))


def _template(entry: Registration) -> str:
    return str(entry.spiffe_id) if isinstance(entry.spiffe_id, IdTemplate) else ""


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
    if first.verdict == "unfilled":
        reasons = [
            f"{name} could not be proved: {why}" for name, why in attested.withheld.items() if name in _asked(first)
        ]
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


def _asked(verdict: Verdict) -> set[str]:
    """The kinds of selectors, such as `k8s:ns`, that an entry's placeholders stand for."""
    return {each.kind for each in verdict.entry.placeholders}
