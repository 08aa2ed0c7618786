"""What is wrong with a decision that somebody wants to make on an item: by which evidence, of what, and by whom."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sojourn.errors import (
    InvalidInput,
    NotFound,
    OwnReview,
    ReasonNeeded,
    ReviewNotShown,
    ReviewStale,
    SojournError,
    quoted,
)
from sojourn.operating_limits import REVIEW_AHEAD_SECONDS, REVIEW_REASON_MAX, REVIEW_SHOWN_SECONDS
from sojourn.oversight.review_items import Item
from sojourn.oversight.review_names import TYPE
from sojourn.oversight.review_state import DECISIONS, RETIRE, ReviewState
from sojourn.policy.approval_request import Person


@dataclass(frozen=True, slots=True)
class Shown:
    """Evidence as it was shown: canonical JSON, and its SHA-256."""

    item: str
    digest: str
    at_ms: int
    evidence: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A decision that somebody wants to make, by evidence with this digest."""

    item: str
    decision: str
    digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class Known:
    """What decisions are judged by. `items`: all that there are to review; `shown`: by item and digest."""

    items: Mapping[str, Item]
    shown: Mapping[tuple[str, str], Shown]
    states: Mapping[str, ReviewState]
    now_ms: int


def faults(wanted: Sequence[Wanted], person: Person, known: Known) -> list[SojournError | None]:
    """What is wrong with each; None: nothing."""
    found = [_fault(each, person, known) for each in wanted]
    for place in _twice(wanted):
        found[place] = found[place] or InvalidInput(f"{quoted(wanted[place].item)} is decided twice")
    return found


def _fault(wanted: Wanted, person: Person, known: Known) -> SojournError | None:
    if wanted.decision not in DECISIONS:
        return InvalidInput(f"a decision is one of {', '.join(DECISIONS)}")
    if len(wanted.reason) > REVIEW_REASON_MAX:
        return InvalidInput(f"the reason is longer than {REVIEW_REASON_MAX} characters")
    item, state = known.items.get(wanted.item), known.states.get(wanted.item)
    if item is None:
        return NotFound(f"there is nothing to review under {quoted(wanted.item)}: `sojourn review list` has all")
    seen = known.shown.get((wanted.item, wanted.digest))
    if seen is None or hashlib.sha256(seen.evidence.encode()).hexdigest() != wanted.digest:
        return not_shown(wanted.item)
    evidence = json.loads(seen.evidence)
    who = _not_by(person, item, state)
    stale = _stale(item, seen, evidence["reviewed"], state, known.now_ms)
    if stale or who:
        return stale or OwnReview(who)
    if wanted.decision != RETIRE and not evidence["used"] and not wanted.reason.strip():
        return ReasonNeeded(f"nobody used {quoted(item.id)} in this time: say why it stays")
    return None


def _stale(item: Item, seen: Shown, reviewed: str, state: ReviewState | None, now_ms: int) -> SojournError | None:
    """Whether evidence is of now, and nobody has decided since it was shown."""
    if now_ms - seen.at_ms > REVIEW_SHOWN_SECONDS * 1_000 or _ahead(seen.at_ms, now_ms):
        return not_shown(item.id)
    if reviewed != item.subject or (item.kind == TYPE and (state is None or state.digest != item.about)):
        return changed_since(item)
    last = state.last if state is not None else None
    if last is None:
        return None
    if last.digest == seen.digest or (last.at_ms >= seen.at_ms and not _ahead(last.at_ms, now_ms)):
        return ReviewStale(f"{quoted(item.id)} was decided on since this was shown of it: look at it again")
    return None


def _ahead(at_ms: int, now_ms: int) -> bool:
    """Whether the clock was ahead when this was noted, or is behind."""
    return at_ms > now_ms + REVIEW_AHEAD_SECONDS * 1_000


def _not_by(person: Person, item: Item, state: ReviewState | None) -> str:
    """Why somebody may not decide on an item; empty: they may."""
    if person.spiffe_ids:
        return (
            f"no workload reviews: this process is {', '.join(sorted(person.spiffe_ids))[:200]} by its entries;"
            " review from a process that no entry is for"
        )
    changers = state.changers if item.kind == TYPE and state is not None else ()
    if not any(person.same_user(Person(*each, 0)) for each in changers):
        return ""
    login = "" if person.login_uid is None else f", logged in as {person.login_uid}"
    return (
        f"nobody reviews their own change: user {person.uid}{login} reloaded task type {item.name!r} since it was last"
        " decided to keep it, so somebody else decides"
    )


def changed_since(item: Item) -> ReviewStale:
    return ReviewStale(f"{quoted(item.id)} was changed since this was shown of it: look at it again")


def not_shown(item: str) -> ReviewNotShown:
    return ReviewNotShown(
        f"the agent has not shown evidence with this digest of {quoted(item)}, or it was long ago: look at it again"
    )


def _twice(wanted: Sequence[Wanted]) -> Iterator[int]:
    """The places of what is decided on a second time."""
    seen: set[str] = set()
    for place, each in enumerate(wanted):
        if each.item in seen:
            yield place
        seen.add(each.item)
