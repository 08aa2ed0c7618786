"""What policies may read of facts: for each, the one that counts, or why there is none.

Who says it ranks before whom it is about: the source that a type names first is not overruled by one that it names
later and that speaks of a single workload or task. Otherwise the least of the sources could keep an operator's
emergency stop from whomever it likes, in advance.
"""

from collections.abc import Iterable, Mapping, Sequence

from sojourn.facts.publications import Fact
from sojourn.people.person import is_pseudonym
from sojourn.policy.cedar_schema import Context, Param, Reading
from sojourn.policy.task_type_tables import FactRule
from sojourn.tasktoken.task_id import is_task_id

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

    `boot` is the time on the boot clock. The first source of a rule counts that has said something, and of that one the
    first of `subjects` of whom it has.
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
    for source in rule.sources if facts else ():
        for subject in subjects:
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


def before(said: Fact, rule: FactRule, others: Iterable[Fact], boot: float) -> list[Fact]:
    """Those of `others` that count before what was `said`, where a task is a subject of both, and that differ from it.

    `others` are of the same name, and about somebody whom `said` is about too.
    """
    if said.source not in rule.sources:
        return []
    own = _rank(said, rule)
    return [
        fact
        for fact in others
        if fact.source in rule.sources
        and _rank(fact, rule) < own
        and rule.fits(fact.value)
        and (type(fact.value), fact.value) != (type(said.value), said.value)
        and not fact.over(boot)
        and (rule.max_age is None or boot - fact.since < rule.max_age.total_seconds())
    ]


def _rank(fact: Fact, rule: FactRule) -> tuple[int, int]:
    """The less, the sooner it counts: by its source, then a task's before its person's, a workload's, everybody's."""
    about = 0 if is_task_id(fact.subject) else 1 if is_pseudonym(fact.subject) else 2 if fact.subject else 3
    return rule.sources.index(fact.source), about


def _value(reading: Reading | str) -> tuple[type, Param] | None:
    return None if isinstance(reading, str) else (type(reading.value), reading.value)


def _world(params: Mapping[str, Param], found: Mapping[str, Reading | str], also: tuple[Context, ...] = ()) -> Context:
    facts = {name: each for name, each in found.items() if isinstance(each, Reading)}
    return Context(params, facts, {name: each for name, each in found.items() if isinstance(each, str)}, also)
