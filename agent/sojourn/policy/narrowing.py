"""A narrower version of a task type: those edits of it that can be made, and that keep out nothing of what was used."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tomlkit.exceptions import TOMLKitError

from sojourn.errors import InvalidInput
from sojourn.policy.cedar_schema import Param
from sojourn.policy.narrower import wider_type
from sojourn.policy.narrowing_edits import Edit
from sojourn.policy.params import text_of
from sojourn.policy.questions import PolicyAnswer
from sojourn.policy.replay import Answered, Pair, Replay, pairs_of
from sojourn.policy.task_types import TaskType, TypeSet
from sojourn.policy.type_files import TypeFiles
from sojourn.tasktoken.end_reasons import HOLDER

USED: Final = "it was used"
ENDED, DELEGATED, NARROWED = "task_ended", "task_delegated", "task_narrowed"
HEARD: Final = frozenset({ENDED, DELEGATED, NARROWED})
"""Events of which records say what was used, beside decisions."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An edit that is not made. `seq`: the record of the first use that it would keep out; 0: it cannot be made."""

    edit: Edit
    why: str
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Narrowed:
    """A type with as many edits as can be made together. `texts`: its two files, by their names."""

    kind: TaskType
    texts: Mapping[str, str]
    edits: tuple[Edit, ...]
    impossible: tuple[LeftOut, ...] = ()


class Narrowing:
    """Narrows a type by edits, and leaves out those that would have kept out what was used.

    All records of a time are told to it, in their order; and told once more while `again` says so, as an edit that is
    left out may have hidden another. `replay` is what the narrower type answers to those that were told since.
    """

    def __init__(
        self, old: TaskType, toml: str, cedar: str, edits: Sequence[Edit], *, even_if_used: bool = False
    ) -> None:
        """`even_if_used`: leave out none that can be made."""
        self._old = old
        self._toml, self._cedar = toml, cedar
        self._even_if_used = even_if_used
        self._wanted = list(edits)
        self._used: list[LeftOut] = []
        self._found: dict[int, LeftOut] = {}  # since `again`, by the edit's place
        self._counted = {old.named["type_version"]: frozenset(old.limits)}
        self._by_old = Replay(TypeSet({old.name: old}), self._counted)
        self._make()

    @property
    def left_out(self) -> list[LeftOut]:
        return [*self._used, *self.narrowed.impossible]

    def again(self) -> bool:
        """Leave out what was found to be used. Say whether there was anything."""
        if not self._found:
            return False
        self._used += self._found.values()
        self._wanted = [each for place, each in enumerate(self._wanted) if place not in self._found]
        self._make()
        return True

    def take(self, event: str, seq: int, at_ms: int, fields: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Look at what a record has decided for the type, with the parameters of its task."""
        answered = self.replay.take(event, seq, at_ms, fields, params)
        if self._even_if_used or answered is None or not answered.refused:
            return
        old = self._by_old.answer(event, fields, params)
        if isinstance(old, Answered) and old.refused:
            return  # by what is in force: an older version of the type has allowed it
        for pair, answer in answered.otherwise.items():
            if not answer:
                self._note(seq, self._behind(answer, pair, fields, params))

    def hear(self, event: str, seq: int, fields: Mapping[str, Any]) -> None:
        """Look at what else a record says was used of the type: one of HEARD."""
        if not self._even_if_used:
            said = {ENDED: _ended, DELEGATED: _delegated, NARROWED: _narrowed}[event]
            self._note(seq, said(self.narrowed, self._old, fields))

    def _note(self, seq: int, edits: Iterable[Edit]) -> None:
        for each in edits:
            place = self._wanted.index(each)
            self._found.setdefault(place, LeftOut(each, USED, seq))

    def _behind(
        self, answer: PolicyAnswer, pair: Pair, fields: Mapping[str, Any], params: Mapping[str, Param]
    ) -> Sequence[Edit]:
        """The edits by which something is denied; if that is not clear, all that may be it, or just all."""
        edits = [each for each in self.narrowed.edits if each.rule == answer.rule]
        if answer.rule == "workload":
            edits = [each for each in edits if not each.about or fields["spiffe_id"] in each.about]
        elif answer.rule == "ceiling":
            edits = [each for each in edits if each.about == pair]
        elif answer.rule == "params":
            edits = [each for each in edits if _breaks(self.narrowed.kind, each.about[0], params)] or edits
        elif answer.rule == "policy":
            allowed_by = self._deciding(pair, fields, params)
            edits = [each for each in edits if set(each.about) & allowed_by] or edits
        return edits or self.narrowed.edits

    def _deciding(self, pair: Pair, fields: Mapping[str, Any], params: Mapping[str, Param]) -> set[str]:
        """The policies by which the type as it is allows something."""
        answer = self._by_old.ask_policy(self._old, "", fields, params, pair)
        return set(answer.decision.policies)

    # --- making -----------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        self._found = {}
        self.narrowed = self._made(self._wanted)
        self.replay = Replay(TypeSet({self._old.name: self.narrowed.kind}), self._counted)

    def _made(self, edits: Sequence[Edit]) -> Narrowed:
        """Make as many of these as can be, in their order: all of them at once, or half and half."""
        made, impossible = self._apply(()), dict[int, LeftOut]()
        parts = [list(edits)] if edits else []
        while parts:
            part = parts.pop()
            try:
                made = self._apply((*made.edits, *part))
            except _IMPOSSIBLE as error:
                middle = len(part) // 2
                if middle:
                    parts += [part[middle:], part[:middle]]
                else:
                    impossible[id(part[0])] = LeftOut(part[0], f"it cannot be made: {_said(error)}")
        for group in self._of_one_policy([each.edit for each in impossible.values()]):
            try:
                made = self._apply((*made.edits, *group))
            except _IMPOSSIBLE:
                continue
            impossible = {key: each for key, each in impossible.items() if each.edit not in group}
        return replace(made, impossible=tuple(impossible.values()))

    def _of_one_policy(self, edits: Sequence[Edit]) -> Iterator[list[Edit]]:
        """Those that one policy names: it can go with all of its actions, and with none alone."""
        for clause in self._old.policy.clauses:
            group = [each for each in edits if each.rule == "ceiling" and each.about[1] in (clause.actions or ())]
            if len(group) > 1:
                yield group

    def _apply(self, edits: tuple[Edit, ...]) -> Narrowed:
        files = TypeFiles(self._old, self._toml, self._cedar)
        for each in edits:
            each.make(files)
        kind = files.made() if edits else self._old
        if told := wider_type(self._old, kind):
            raise InvalidInput(f"it might allow more: {told[0]}")
        return Narrowed(kind, {f"{kind.name}.toml": files.toml, f"{kind.name}.cedar": files.cedar}, edits)


_IMPOSSIBLE: Final = (InvalidInput, TOMLKitError, ValueError, KeyError)


def _breaks(kind: TaskType, name: str, params: Mapping[str, Param]) -> bool:
    """Whether a parameter's value is none that a type takes."""
    try:
        if name in params:
            kind.params[name].read(name, text_of(params[name]))
    except InvalidInput:
        return True
    return False


# --- what records say beside decisions --------------------------------------------------------------------------------


def _ended(narrowed: Narrowed, old: TaskType, fields: Mapping[str, Any]) -> Iterator[Edit]:
    """What a task has used in all. A binding that the type as it is has not either is no edit's."""
    new, (tokens, calls) = narrowed.kind, fields.get("spent") or (0, 0)
    rule = new.delegation
    more = {
        "binding": fields["binding"] in old.bindings - new.bindings,
        "max_duration": fields.get("seconds", 0) > new.max_duration.total_seconds(),
        "max_tokens": new.max_tokens is not None and tokens > new.max_tokens,
        "max_reported_calls": new.max_reported_calls is not None and calls > new.max_reported_calls,
        "max_children": rule is not None and fields.get("children", 0) > rule.max_children,
        "max_depth": rule is not None and fields.get("depth", 0) > rule.max_depth,
    }
    return (each for each in narrowed.edits if more.get(each.of))


def _delegated(narrowed: Narrowed, _old: TaskType, fields: Mapping[str, Any]) -> Iterator[Edit]:
    """To whom a task was handed on, accepted or not, and what of it was named for that."""
    named = set() if fields.get("wanted") == "all" else set(pairs_of(fields["grants"]))
    return (
        each
        for each in narrowed.edits
        if (each.of == "delegation" and fields["to"] in each.about) or (each.rule == "ceiling" and each.about in named)
    )


def _narrowed(narrowed: Narrowed, _old: TaskType, fields: Mapping[str, Any]) -> Iterator[Edit]:
    """What a task's holder kept of it, by name."""
    kept = set(pairs_of(fields["grants"])) if fields.get("reason") == HOLDER else set()
    return (each for each in narrowed.edits if each.rule == "ceiling" and each.about in kept)


def _said(error: Exception) -> str:
    return error.public if isinstance(error, InvalidInput) else str(error)
