"""How each single policy stands to a request: whether it applies, and if not, what it asks for that is not so."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cedarpy

from sojourn.policy.cedar import Deny, Policy
from sojourn.policy.cedar_schema import Context, Param, Principal
from sojourn.policy.clauses import NAMESPACE, Clause, objects

_ANY = {"op": "All"}
_NEEDLESS = re.compile(r'"(?:\\.|[^"\\])*"|\((\w+(?:\.\w+)*)\)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class ClauseVerdict:
    """One policy and a request. `misses` says what the policy asks for that is not so; none if it applies."""

    id: str
    effect: str  # permit | forbid
    line: int  # in the type's file; 0: one of ours
    applies: bool
    misses: tuple[str, ...]


def standing(
    policy: Policy, clause: Clause, principal: Principal, action: str, resource: str, context: Context
) -> ClauseVerdict:
    """Ask the policy alone, and if it does not apply, its parts."""

    def holds(scope: Mapping[str, Any], conditions: Sequence[Any]) -> str:
        """Empty if a policy of these parts matches the request, or why not."""
        answer = policy.ask(_permit(scope, conditions), principal, action, resource, context)
        return answer.reason if isinstance(answer, Deny) else ""

    parts = {part: clause.parsed[part] for part in ("principal", "action", "resource")}
    conditions = clause.parsed["conditions"]
    misses = []
    if holds(parts, conditions):
        misses += [f"it is for {part} {scope_text(scope)}" for part, scope in parts.items() if holds({part: scope}, [])]
        for condition in conditions:
            misses += _broken(condition, holds)
    return ClauseVerdict(clause.id, clause.parsed["effect"], clause.line, not misses, tuple(misses))


def scope_text(scope: Mapping[str, Any]) -> str:
    """What a part of a scope asks for, as in a policy."""
    if scope["op"] == "is":
        within = f" {scope_text({'op': 'in', **scope['in']})}" if "in" in scope else ""
        return f"is {scope['entity_type']}{within}"
    entities = [f"{each['type']}::{json.dumps(each['id'])}" for each in scope.get("entities") or [scope["entity"]]]
    named = ", ".join(entities).replace(f"{NAMESPACE}::", "")
    return f"{scope['op']} [{named}]" if "entities" in scope else f"{scope['op']} {named}"


def literals(clauses: Sequence[Clause]) -> set[Param]:
    """Every number and text that the conditions of some policies name."""
    named = (each.get("Value") for clause in clauses for each in objects(clause.parsed["conditions"]))
    return {value for value in named if isinstance(value, str | int) and not isinstance(value, bool)}


def _broken(condition: Mapping[str, Any], holds: Any) -> list[str]:
    """The first part of a condition that fails; parts joined by && are told apart, in their order."""
    if condition["kind"] == "unless":
        why = holds({}, [condition])
        return [_failed("unless", condition["body"], why)] if why else []
    so_far = None
    for part in _conjuncts(condition["body"]):
        so_far = part if so_far is None else {"&&": {"left": so_far, "right": part}}
        why = holds({}, [{"kind": "when", "body": so_far}])
        if why:
            return [_failed("when", part, why)]
    return []


def _failed(kind: str, body: Any, why: str) -> str:
    text = f"{kind} {{ {_text(body)} }}"
    if "could not" in why:
        return f"{text}: {why}"
    return f"{text} {'holds' if kind == 'unless' else 'does not hold'}"


def _conjuncts(body: Any) -> Iterator[Any]:
    if isinstance(body, dict) and "&&" in body:
        yield from _conjuncts(body["&&"]["left"])
        yield from _conjuncts(body["&&"]["right"])
    else:
        yield body


def _permit(scope: Mapping[str, Any], conditions: Sequence[Any]) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_json_str(_document(scope, conditions))


def _document(scope: Mapping[str, Any], conditions: Sequence[Any]) -> str:
    parts = {part: scope.get(part, _ANY) for part in ("principal", "action", "resource")}
    policy = {"effect": "permit", **parts, "conditions": list(conditions)}
    return json.dumps({"templates": {}, "staticPolicies": {"policy0": policy}, "templateLinks": []})


def _text(body: Any) -> str:
    """An expression as Cedar writes it."""
    whole = cedarpy.policies_from_json_str(_document({}, [{"kind": "when", "body": body}]))
    inner = whole[whole.index("{") + 1 : whole.rindex("}")].strip()
    before = ""
    while before != inner:  # Cedar puts every part in parentheses: around names they only hide them
        before, inner = inner, _NEEDLESS.sub(lambda found: found[1] or found[0], inner)
    return inner
