"""What is known of an item between two reviews: since when it is known, who changed it last, and what was decided.

It is kept as one document each. Times are in milliseconds since the epoch; 0: never.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, TypeVar, get_origin

from sojourn.operating_limits import REVIEW_CHANGERS

KEEP: Final = "keep"
NARROW: Final = "narrow"
RETIRE: Final = "retire"
DECISIONS: Final = (KEEP, NARROW, RETIRE)
Changer = tuple[int, int | None]  # a user, and as whom they logged in


Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decided on an item, by the evidence with this digest that they were shown at `shown_ms`."""

    decision: str
    at_ms: int
    digest: str
    shown_ms: int
    reason: str
    uid: int
    login_uid: int | None


@dataclass(frozen=True, slots=True)
class ReviewState:
    """What is known of one item. A type has the `digest` with which it was last in force, since `changed_ms`, and who
    reloaded it so, if somebody did.

    `changers`: the users and login users who reloaded it since somebody last decided to keep it, the last at the end.
    `kept_ms`: when it was last decided that it stays, wholly or narrowed. `told_ms`: the date that was told as overdue.
    """

    known_ms: int
    digest: str = ""
    changed_ms: int = 0
    changed_uid: int | None = None
    changed_login_uid: int | None = None
    kept_ms: int = 0
    told_ms: int = 0
    last: Decision | None = None
    changers: tuple[Changer, ...] = ()

    def due_ms(self, every_ms: int) -> int:
        """When it is to be reviewed next, if it is so often."""
        return max(self.known_ms, self.kept_ms) + every_ms

    def changed(self, digest: str, at_ms: int, by: Changer | None) -> "ReviewState":
        """After a type has come into force as it was not; `by`: of whoever reloaded it, if somebody did."""
        uid, login_uid = by or (None, None)
        others = tuple(each for each in self.changers if each != by)
        changers = others if by is None else (*others, by)[-REVIEW_CHANGERS:]
        made = replace(self, digest=digest, changed_ms=at_ms, changed_uid=uid, changed_login_uid=login_uid)
        return replace(made, changers=changers)

    def decided(self, decision: Decision, digest: str = "") -> "ReviewState":
        """After a decision: what is to be retired stays as overdue as it is, until it is gone. `digest`: with which a
        type was decided on; if it has another meanwhile, whoever changed it stays known.
        """
        kept_ms = self.kept_ms if decision.decision == RETIRE else decision.at_ms
        changers = () if decision.decision == KEEP and digest == self.digest else self.changers
        return replace(self, last=decision, kept_ms=kept_ms, changers=changers)

    def not_after(self, now_ms: int) -> "ReviewState":
        """With no date in the future: the clock was ahead when such were noted."""
        if self.touched_ms <= now_ms:
            return self
        dates = {name: min(getattr(self, name), now_ms) for name in ("known_ms", "changed_ms", "kept_ms")}
        last = self.last and replace(self.last, at_ms=min(self.last.at_ms, now_ms))
        return replace(self, **dates, last=last)

    @property
    def touched_ms(self) -> int:
        """When something was last heard of it."""
        return max(self.known_ms, self.changed_ms, self.kept_ms, self.last.at_ms if self.last else 0)

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, document: Any) -> "ReviewState":
        """The state that a document is of; what a later release has written beside is left out.

        Raise TypeError or ValueError.
        """
        if not isinstance(document, dict):
            raise TypeError("no object")
        last, changers = document.get("last"), document.get("changers", [])
        made = {
            "last": None if last is None else _read(Decision, last),
            "changers": tuple(_changer(each) for each in changers),
        }
        return _read(cls, {**document, **made})


def _changer(value: Any) -> Changer:
    uid, login_uid = value
    if not isinstance(uid, int) or not isinstance(login_uid, int | None):
        raise TypeError("no users")
    return uid, login_uid


def _read(made: type[Read], document: Any) -> Read:
    """The values that a document has of a dataclass. Raise TypeError if one is none of its kind, or is missing."""
    if not isinstance(document, dict):
        raise TypeError("no object")
    known = {each.name: document[each.name] for each in fields(made) if each.name in document}  # type: ignore[arg-type]
    for each in fields(made):  # type: ignore[arg-type]
        kind: Any = get_origin(each.type) if get_origin(each.type) is tuple else each.type
        if each.name in known and not isinstance(known[each.name], kind):
            raise TypeError(f"{each.name} is {type(known[each.name]).__name__}")
    return made(**known)
