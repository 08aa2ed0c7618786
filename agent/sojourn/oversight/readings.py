"""What policies may read of facts: for each, the one that counts, or why there is none."""

from collections.abc import Mapping, Sequence

from sojourn.oversight.publications import Fact
from sojourn.tasks.policy import Context, Param, Reading
from sojourn.tasks.typefile import FactRule

Place = tuple[str, str]  # subject, source
Kept = Mapping[str, Mapping[Place, Fact]]  # by name


def context(
    params: Mapping[str, Param],
    rules: Mapping[str, FactRule],
    subjects: Sequence[str],
    boot: float,
    written: Kept,
    unwritten: Mapping[str, Mapping[Place, Fact | None]],
) -> Context:
    """What counts now by `written`, and, beside it, what would if `unwritten` were (None: there is none any more).

    `boot` is the time on the boot clock. The first of `subjects` counts of whom somebody has said something.
    """
    found: dict[str, Reading | str] = {}
    others: dict[str, Reading | str] = {}
    for name, rule in rules.items():
        on_disk = written.get(name, {})
        found[name] = _read(on_disk, rule, subjects, boot)
        if name in unwritten:
            said = {place: fact for place, fact in {**on_disk, **unwritten[name]}.items() if fact is not None}
            other = _read(said, rule, subjects, boot)
            if _value(other) != _value(found[name]):
                others[name] = other
    also = [{**found, name: other} for name, other in others.items()]
    also += [{**found, **others}] if len(others) > 1 else []
    return _world(params, found, tuple(_world(params, each) for each in also))


def _read(facts: Mapping[tuple[str, str], Fact], rule: FactRule, subjects: Sequence[str], boot: float) -> Reading | str:
    """The fact that counts, or why there is none."""
    why = ""
    for subject in subjects if facts else ():
        for source in rule.sources:
            fact = facts.get((subject, source))
            if fact is None:
                continue
            age = boot - fact.since
            if fact.over(boot):
                why = why or "expired"
            elif rule.max_age is not None and age >= rule.max_age.total_seconds():
                why = why or f"stale: {age:.0f} s old, at most {rule.max_age.total_seconds():.0f} s"
            elif not rule.fits(fact.value):
                why = why or "of another type"
            else:
                return Reading(fact.value, source, max(0.0, age))
    return why or "missing"


def _value(reading: Reading | str) -> tuple[type, Param] | None:
    return None if isinstance(reading, str) else (type(reading.value), reading.value)


def _world(params: Mapping[str, Param], found: Mapping[str, Reading | str], also: tuple[Context, ...] = ()) -> Context:
    facts = {name: each for name, each in found.items() if isinstance(each, Reading)}
    return Context(params, facts, {name: each for name, each in found.items() if isinstance(each, str)}, also)
