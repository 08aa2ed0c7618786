"""The single policies of a Cedar text: where each stands, and what its scope can match."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cedarpy

from sojourn.errors import Fault, InvalidPolicy
from sojourn.limits import POLICIES_PER_TYPE, POLICY_MAX_BYTES, POLICY_NESTED_MAX

NAMESPACE = "Sojourn"
RESERVED = "sojourn."  # ids of our own policies begin so
OURS = """
@id("sojourn.task-not-active")
forbid (principal, action, resource) unless { principal.state == "active" };
"""
# What may hold a semicolon that does not end a policy, and the semicolon that does; and brackets.
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n\r]*|[;()\[\]{}]', re.DOTALL)
_FACTS = {".": {"left": {"Var": "context"}, "attr": "facts"}}
_PARAMS = {".": {"left": {"Var": "context"}, "attr": "params"}}
_USER = {".": {"left": {"Var": "principal"}, "attr": "user"}}
_COMPARING = ("==", "!=", "contains", "containsAll", "containsAny")
_COMPUTING = frozenset({"+", "-", "*", "neg"})
_BLANK = re.compile(r"(?:\s|//[^\n\r]*)*")


@dataclass(frozen=True)
class Clause:
    """One policy. `parsed` is Cedar's own JSON of it."""

    id: str
    line: int
    text: str
    parsed: Mapping[str, Any]

    @property
    def permits(self) -> bool:
        return bool(self.parsed["effect"] == "permit")

    @property
    def actions(self) -> frozenset[str] | None:
        """The actions that its scope names; None: every one."""
        return self._named("action")

    @property
    def resources(self) -> frozenset[str] | None:
        """The resources that its scope names; None: every one."""
        return self._named("resource")

    @property
    def principals(self) -> frozenset[tuple[str, str]] | None:
        """The (kind, id) pairs that its scope asks the task to be or to be in; None: every task."""
        return _entities(self.parsed["principal"])

    @cached_property
    def facts(self) -> frozenset[str]:
        """The facts that its conditions read, or ask whether they are there."""
        return self._read_of(_FACTS)

    @cached_property
    def params(self) -> frozenset[str]:
        """The parameters that its conditions read, or ask whether they are there."""
        return self._read_of(_PARAMS)

    @property
    def compared_texts(self) -> frozenset[tuple[str, str]]:
        """The (parameter, text) pairs of which its conditions ask whether they are equal."""
        sides = (each[how] for each in objects(self.parsed["conditions"]) for how in _COMPARING if how in each)
        return frozenset(
            (str(param["."]["attr"]), value["Value"])
            for side in sides
            for param in objects(side)
            if isinstance(param.get("."), dict) and param["."].get("left") == _PARAMS
            for value in objects(side)
            if isinstance(value.get("Value"), str)
        )

    @property
    def of_principal(self) -> frozenset[str]:
        """The attributes of the task that its conditions read, or ask whether they are there."""
        return self._read_of({"Var": "principal"})

    @property
    def of_user(self) -> frozenset[str]:
        """The attributes of the person whom the task is for that its conditions read, or ask whether they are there."""
        return self._read_of(_USER)

    def named(self, kind: str) -> frozenset[str]:
        """The IDs of the entities of a kind that its conditions name."""
        wanted = f"{NAMESPACE}::{kind}"
        return frozenset(
            str(each["id"])
            for each in objects(self.parsed["conditions"])
            if each.get("type") == wanted and "id" in each
        )

    def asks_task_in(self, kind: str) -> bool:
        """Whether its conditions ask if the task itself is in an entity of a kind."""
        wanted = f"{NAMESPACE}::{kind}"
        asked = (each["in"] for each in objects(self.parsed["conditions"]) if isinstance(each.get("in"), dict))
        return any(
            side.get("left") == {"Var": "principal"} and any(each.get("type") == wanted for each in objects(side))
            for side in asked
        )

    def texts_beside(self, attribute: str) -> frozenset[str]:
        """The texts with which its conditions compare an attribute of the person whom the task is for."""
        read = {".": {"left": _USER, "attr": attribute}}
        sides = (each[how] for each in objects(self.parsed["conditions"]) for how in _COMPARING if how in each)
        return frozenset(
            each["Value"]
            for side in sides
            if read in objects(side)
            for each in objects(side)
            if isinstance(each.get("Value"), str)
        )

    @property
    def names_tasks(self) -> bool:
        """Whether it names a task by its ID anywhere, be it in its scope or in a condition."""
        return any(each.get("type") == f"{NAMESPACE}::Task" and "id" in each for each in objects(self.parsed))

    @property
    def computes(self) -> bool:
        """Whether its conditions compute with numbers: that alone may fail as it is asked, and what fails is denied."""
        return any(each.keys() & _COMPUTING for each in objects(self.parsed["conditions"]))

    @property
    def attributes(self) -> frozenset[str]:
        """The names of all attributes that its conditions read or ask for, whatever of."""
        named = (each.get("attr", ()) for each in objects(self.parsed["conditions"]))
        return frozenset(str(name) for each in named for name in ((each,) if isinstance(each, str) else each))

    def _read_of(self, record: Mapping[str, Any]) -> frozenset[str]:
        named = (each.get(how) for each in objects(self.parsed["conditions"]) for how in (".", "has"))
        return frozenset(str(each["attr"]) for each in named if isinstance(each, dict) and each.get("left") == record)

    def can_match(self, action: str, resource: str) -> bool:
        """Whether its scope leaves room for this action at this resource."""
        return (self.actions is None or action in self.actions) and (
            self.resources is None or resource in self.resources
        )

    def _named(self, part: str) -> frozenset[str] | None:
        entities = _entities(self.parsed[part])
        return None if entities is None else frozenset(named for _, named in entities)


def read(text: str) -> list[Clause]:
    """Take a text apart. Raise InvalidPolicy with every policy that cannot be parsed or has no id of its own."""
    found: list[Clause] = []
    faults: list[Fault] = []
    for number, (line, piece) in enumerate(_pieces(text)):
        if number == POLICIES_PER_TYPE:
            raise InvalidPolicy([Fault("", line, f"more than {POLICIES_PER_TYPE} policies")])
        try:
            clause = _clause(line, piece)
            if clause.id.startswith(RESERVED):
                faults.append(Fault("", line, f"policy id {clause.id!r}: ids that begin with {RESERVED!r} are ours"))
            found.append(clause)
        except InvalidPolicy as error:
            faults += error.faults
    first: dict[str, int] = {}
    for clause in found:
        if clause.id in first:
            faults.append(Fault("", clause.line, f"policy id {clause.id!r} is taken: line {first[clause.id]} has it"))
        first.setdefault(clause.id, clause.line)
    if faults:
        raise InvalidPolicy(sorted(faults, key=lambda fault: fault.line))
    return found


def only(text: str) -> Clause:
    """The one policy that a text is. Raise InvalidPolicy if it is none, or several."""
    pieces = list(_pieces(text))
    if len(pieces) != 1:
        raise InvalidPolicy([Fault("", 0, "it is not one policy")])
    return _clause(*pieces[0])


def ours() -> list[Clause]:
    """The policies that stand before those of every task type."""
    return [_clause(0, piece) for _, piece in _pieces(OURS)]


def joined(clauses: Sequence[Clause]) -> str:
    """The text of some policies; Cedar numbers them in this order."""
    return "\n".join(clause.text for clause in clauses)


def _clause(line: int, piece: str) -> Clause:
    _check_bounds(line, piece)
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(piece))
    except RecursionError:
        raise InvalidPolicy([Fault("", line, "policy has too many parts in one another, or in a row")]) from None
    except Exception as error:
        raise InvalidPolicy([Fault("", line, f"policy cannot be parsed: {error}")]) from error
    if parsed["templates"] or len(parsed["staticPolicies"]) != 1:
        raise InvalidPolicy([Fault("", line, "policy has slots: a template has no place here")])
    [policy] = parsed["staticPolicies"].values()
    named = (policy.get("annotations") or {}).get("id")
    if not named:
        raise InvalidPolicy([Fault("", line, 'every policy needs an id: write @id("…") before it')])
    return Clause(named, line, piece, policy)


def _check_bounds(line: int, piece: str) -> None:
    """Raise InvalidPolicy for what could overflow the parser's stack, which would end the process."""
    if len(piece.encode("utf-8", "surrogatepass")) > POLICY_MAX_BYTES:
        raise InvalidPolicy([Fault("", line, f"policy is longer than {POLICY_MAX_BYTES} bytes")])
    depth = 0
    for token in _TOKEN.finditer(piece):
        depth += (token[0] in "([{") - (token[0] in ")]}")
        if depth > POLICY_NESTED_MAX:
            raise InvalidPolicy([Fault("", line, f"policy has more than {POLICY_NESTED_MAX} brackets in one another")])


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Each policy's text with its line; what follows the last semicolon is one more, unless it is blank."""
    start = 0
    ends = [token.end() for token in _TOKEN.finditer(text) if token[0] == ";"]
    for end in [*ends, len(text)]:
        begins = _BLANK.match(text, start)
        assert begins is not None
        if begins.end() < end:
            yield text.count("\n", 0, begins.end()) + 1, text[begins.end() : end]
        start = end


def _entities(scope: Mapping[str, Any]) -> frozenset[tuple[str, str]] | None:
    scope = scope.get("in", scope) if scope["op"] == "is" else scope
    entities = scope.get("entities") or ([scope["entity"]] if "entity" in scope else None)
    if entities is None:
        return frozenset() if scope.get("entities") == [] else None
    return frozenset((each["type"].removeprefix(f"{NAMESPACE}::"), each["id"]) for each in entities)


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in Cedar's JSON of a policy or a part of one, the outer ones first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    for each in node if isinstance(node, list) else ():
        yield from objects(each)
