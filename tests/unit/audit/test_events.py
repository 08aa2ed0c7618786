"""audit/events.py: the table has every event that the code records, and no other."""

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from harness.trees import parsed, tree_of
from sojourn.audit.events import DENIALS, EVENTS
from sojourn.audit.journal import Audit
from sojourn.runtime.clock import SystemClock

SOURCE = Path(__file__).parents[3] / "agent" / "sojourn"
JOURNAL = "audit/journal.py"
RECORDING = {"event", "note", "commit", "denied"}  # methods of Audit, with the event's name as the first argument
# The candidate is not there yet at the start, when these are recorded of the folder in force.
NEVER = {"shadow_policy_last_good", "shadow_policy_none"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class Place:
    """A node with the functions and the class around it, from the outside in."""

    module: "Module"
    around: tuple[ast.AST, ...]

    def functions(self) -> Iterator[Function]:
        yield from (each for each in reversed(self.around) if isinstance(each, Function))


@dataclass(frozen=True, eq=False)
class Called:
    """A call with its place."""

    call: ast.Call
    place: Place

    @property
    def name(self) -> str:
        func = self.call.func
        return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""

    @property
    def receiver(self) -> str:
        """What a method is called of, by its last name: `audit` of `self._engine.audit.note(…)`."""
        of = self.call.func.value if isinstance(self.call.func, ast.Attribute) else None
        name = of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""
        return name.lstrip("_")

    def argument(self, at: int, name: str) -> ast.expr | None:
        by_name = next((each.value for each in self.call.keywords if each.arg == name), None)
        return self.call.args[at] if at < len(self.call.args) else by_name


class Module:
    """A file of the code with all its calls."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name = name
        self.tree = tree
        self.calls = list(self._calls(self.tree, ()))

    def _calls(self, node: ast.AST, around: tuple[ast.AST, ...]) -> Iterator[Called]:
        if isinstance(node, Function | ast.ClassDef):
            around = (*around, node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield Called(child, Place(self, around))
            yield from self._calls(child, around)

    def gives_away(self, name: str) -> bool:
        """Whether one of its methods is handed to others, who call it by a name of their own."""
        called = {id(each.call.func) for each in self.calls}
        return any(
            isinstance(each, ast.Attribute) and each.attr == name and id(each) not in called
            for each in ast.walk(self.tree)
        )


class Code:
    """Which names of events reach the journal."""

    def __init__(self, modules: list[Module]) -> None:
        self._calls = [each for module in modules for each in module.calls]
        self._by_name: dict[str, list[Called]] = {}
        for each in self._calls:
            self._by_name.setdefault(each.name, []).append(each)
        self._known: dict[tuple[Function, str], set[str]] = {}  # what callers pass for a parameter

    def recorded(self) -> tuple[set[str], list[str]]:
        """The names, and the places whose names cannot be told."""
        names, unknown = set[str](), []
        for each in self._calls:
            if (given := self._given(each)) is None:
                continue
            found = set(self._values(given, each.place))
            names |= found
            if not found and not self._is_callback(each.place):
                unknown.append(f"{each.place.module.name}:{each.call.lineno}")
        return names, unknown

    def _given(self, each: Called) -> ast.expr | None:
        """The name of what a call records; None of a call that records nothing, or only passes on."""
        inside = each.place.module.name == JOURNAL
        if each.name in RECORDING and (each.receiver == "audit" or (inside and each.receiver == "self")):
            given = each.argument(0, "event")
            return given if not inside or isinstance(given, ast.Constant) else None
        if each.name == "Event" and isinstance(each.call.func, ast.Name) and not inside:
            given = each.argument(1, "event")
            return None if isinstance(given, ast.Attribute) else given  # one that was read
        return None

    def _is_callback(self, place: Place) -> bool:
        return any(place.module.gives_away(each.name) for each in place.functions())

    def _values(self, node: ast.expr | None, place: Place) -> Iterator[str]:
        """All that an expression may be, as far as it is strings that stand in the code."""
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.IfExp():
                yield from self._values(node.body, place)
                yield from self._values(node.orelse, place)
            case ast.JoinedStr():
                parts = [[*self._values(each, place)] for each in node.values]
                yield from ("".join(each) for each in itertools.product(*parts))
            case ast.FormattedValue():
                yield from self._values(node.value, place)
            case ast.Name():
                yield from self._named(node.id, place)
            case ast.Attribute(value=ast.Name(id="self")):
                yield from self._of_self(node.attr, place)

    def _named(self, name: str, place: Place) -> Iterator[str]:
        for function in place.functions():
            parameters = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
            if name in (texts := _texts(function)) or name in parameters:
                if name in texts and (function, name) not in self._known:
                    passed = self._known[function, name] = set()  # while it is looked for, there is nothing more
                    passed.update(self._passed(function, name, parameters, place))
                yield from self._known.get((function, name), ())
                return
            if found := [*_assigned(function, name)]:
                for each in found:
                    yield from self._values(each, place)
                return
        for each in _assigned(place.module.tree, name, deep=False):
            yield from self._values(each, place)

    def _passed(self, function: Function, name: str, parameters: list[str], place: Place) -> Iterator[str]:
        """What callers pass for a parameter, and its default."""
        of_class = bool(parameters) and parameters[0] == "self"
        at = parameters.index(name) - of_class if name in parameters else len(parameters)
        called = _class_of(function, place) if function.name == "__init__" else function.name
        for each in self._by_name.get(called, ()):
            same = not called.startswith("_") or each.place.module is place.module
            if each.place.module.name == JOURNAL and place.module.name != JOURNAL:
                continue  # the journal's own methods pass on what they are given, and call nobody else's
            if same and (function.name == "__init__" or isinstance(each.call.func, ast.Attribute) == of_class):
                yield from self._values(each.argument(at, name), each.place)
        defaults = dict(zip(reversed(parameters), reversed(function.args.defaults), strict=False))
        yield from self._values(defaults.get(name), place)

    def _of_self(self, attribute: str, place: Place) -> Iterator[str]:
        """What a class was given as one of its attributes when it was made."""
        owner = next((each for each in place.around if isinstance(each, ast.ClassDef)), None)
        for made in owner.body if owner is not None else ():
            if isinstance(made, ast.FunctionDef) and made.name == "__init__":
                for each in _assigned(made, attribute):
                    yield from self._values(each, Place(place.module, (*place.around[:1], made)))


def _texts(function: Function) -> set[str]:
    """The parameters that are strings: no other is followed to whoever passes it."""
    every = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return {each.arg for each in every if isinstance(each.annotation, ast.Name) and each.annotation.id == "str"}


def _class_of(function: Function, place: Place) -> str:
    return next(each.name for each in place.around if isinstance(each, ast.ClassDef) and function in each.body)


@cache
def _assigned(inside: ast.AST, name: str, *, deep: bool = True) -> tuple[ast.expr, ...]:
    """What is assigned to a variable, or an attribute of `self`, by its name."""
    return tuple(
        value
        for node in (ast.walk(inside) if deep else ast.iter_child_nodes(inside))
        for target, value in _pairs(node)
        if name in {getattr(target, "id", ""), getattr(target, "attr", "")}
    )


def _pairs(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                yield from zip(target.elts, node.value.elts, strict=True)
            else:
                yield target, node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        yield node.target, node.value


@cache
def found() -> tuple[set[str], list[str]]:
    paths = [path for path in sorted(SOURCE.rglob("*.py")) if "_pb" not in path.parts]
    return Code([Module(str(path.relative_to(SOURCE)), tree_of(path)) for path in paths]).recorded()


@pytest.mark.full
def test_every_recorded_event_has_its_sentence() -> None:
    """The table has a sentence for every event that the code records, and none for one that it does not."""
    names, _ = found()
    assert sorted(EVENTS) == sorted(names - NEVER)
    assert len(names) > 90


@pytest.mark.full
@pytest.mark.full
def test_every_name_can_be_told() -> None:
    """No event is recorded under a name that cannot be read from the code."""
    _, unknown = found()
    assert [] == unknown


# Something cannot be used, or was decided; nobody asked for anything and did not get it.
NO_DENIALS = {
    "sink_refused",
    "config_refused",
    "followed_folder_refused",
    "node_refused",
    "policy_refused",
    "shadow_policy_refused",
    "approval_decided",
}


def test_every_refusal_counts_as_one() -> None:
    """Each event that says of itself that something was denied or refused is searched as a refusal, or said not to be."""
    words = ("denied", "refus", "reject", "not taken", "gave no", "not good")
    said = {name for name, text in EVENTS.items() if any(word in f"{name} {text}" for word in words)}
    assert DENIALS | NO_DENIALS <= set(EVENTS)
    assert not DENIALS & NO_DENIALS
    assert set() == said - DENIALS - NO_DENIALS


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('def f(self): self._audit.note("a_b")', {"a_b"}),
        ('def f(audit, bad): audit.denied("a" if bad else "b", 1)', {"a", "b"}),
        (
            'class A:\n def _w(self, event: str): self._audit.event(event, {})\n def f(self): self._w("a") or self._w(event="b")',
            {"a", "b"},
        ),
        (
            'def w(audit, event: str = "c"): audit.note(event)\ndef f(done: str): w(1, f"a_{done}")\nf("x")\nf("y")',
            {"a_x", "a_y", "c"},
        ),
        (
            """
class A:
    def __init__(self, *, thing: str):
        self._thing = thing
    def f(self):
        event, said = f"{self._thing}_b", {}
        self._audit.note(event)
A(thing="a")
""",
            {"a_b"},
        ),
        ('GONE = "a"\nEvent(1, GONE, "{}")', {"a"}),
        ('def f(self): self._tally.note("a")', set()),
    ],
)
def test_a_name_is_found_however_it_is_passed(source: str, names: set[str]) -> None:
    """A name is found where it stands, in a variable, in parts, and in what callers pass."""
    assert (names, []) == Code([Module("a.py", parsed(source))]).recorded()


def test_a_name_that_comes_from_elsewhere_is_told() -> None:
    """A place that records what nobody can read from the code is named with its line."""
    assert (set(), ["a.py:2"]) == Code([Module("a.py", parsed("def f(audit, row):\n audit.note(row.what)"))]).recorded()


def test_the_journal_takes_an_unknown_event() -> None:
    """A name that is in no table is recorded all the same: a record is worth more than its sentence."""
    assert "not_in_the_table" not in EVENTS
    made = Audit(None, SystemClock()).event("not_in_the_table", {"a": 1})  # type: ignore[arg-type]
    assert ("not_in_the_table", '{"a":1}') == (made.event, made.fields)
