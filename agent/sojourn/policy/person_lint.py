"""What is legal in what a task type says of people, but most likely not what its author wants."""

from collections.abc import Iterator, Sequence

from sojourn.errors import Fault
from sojourn.policy.clauses import Clause
from sojourn.policy.task_type_tables import NOTHING, PAIRWISE
from sojourn.policy.task_types import TaskType


def warnings(kind: TaskType, asked: Sequence[Clause]) -> Iterator[Fault]:
    """What to look at again. `asked`: its policies, and the condition of its approval."""
    if kind.person is None:
        return
    if not any("user" in clause.of_principal for clause in asked):
        text = "[person] says whom its tasks are for, and no policy reads principal.user: it is all the same who it is"
        yield Fault(f"{kind.name}.toml", kind.lines.get("person", 0), text)
    if found := _told_subjects(kind):
        text = (
            f"[person] takes people of several issuers, and {', '.join(found)} is told their sub, which two issuers may"
            ' have for two people: say tell = "pairwise", or see to it that the service compares the issuer as well'
        )
        yield Fault(f"{kind.name}.toml", kind.lines.get("person", 0), text)
    for clause in kind.policy.clauses:
        for text in _of(kind.person.issuers, clause):
            yield Fault(f"{kind.name}.cedar", clause.line, f"policy {clause.id!r} {text}")


def _told_subjects(kind: TaskType) -> list[str]:
    """The resources that are told the subjects of people of several issuers, as each of these has them."""
    if kind.person is None or len(kind.person.issuers) < 2:
        return []
    ours = [each for each in kind.ceiling.resources if each not in kind.outside]
    return [each for each in ours if kind.tell.get(each) not in {PAIRWISE, NOTHING}]


def _of(issuers: Sequence[str], clause: Clause) -> Iterator[str]:
    """`issuers`: those whose people the type takes; none: any."""
    for kind, mark, of_one in (("Group", "/", "GROUP"), ("User", "|", "SUBJECT")):
        for name in sorted(clause.named(kind)):
            issuer, marked, _ = name.partition(mark)
            if not marked:
                yield f"names {kind} {name[:100]!r}, which nobody is in or is: write ISSUER{mark}{of_one}"
            elif issuers and issuer not in issuers:
                yield f"names {kind} {name[:100]!r}, of an issuer whose people the type does not take"
    if clause.asks_task_in("Group"):
        yield "asks whether the task is in a Group, which none is: write principal.user in"
    for text in sorted(clause.texts_beside("groups")):
        if text.partition("/")[0] in issuers:
            yield (
                f"compares principal.user.groups with {text[:100]!r}, and they are without their issuer there:"
                f' ask for principal.user in Sojourn::Group::"{text[:100]}"'
            )
    for text in sorted(clause.texts_beside("issuer")):
        if issuers and text not in issuers:
            yield f"compares principal.user.issuer with {text[:100]!r}, whose people the type does not take"
    alone = sorted(clause.of_user & {"groups", "subject"})
    if len(issuers) != 1 and alone and "issuer" not in clause.of_user:
        yield (
            f"reads principal.user.{alone[0]} and not of which issuer, and the type takes people of several: each of"
            " these can give the same name: read issuer too, ask for a Group or User, or name one in [person] issuers"
        )
