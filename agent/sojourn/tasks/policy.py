"""Asking Cedar, so that anything but a clean yes is a no.

One policy set for each task type: our own forbids and the type's policies. An error inside a `forbid` would make that
forbid vanish; so a decision with any error in its diagnostics is a deny.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cedarpy

from sojourn.errors import Fault, InvalidPolicy
from sojourn.tasks import clauses
from sojourn.tasks.clauses import NAMESPACE, Clause

OWN = tuple(clauses.ours())
Param = str | int | bool
PARAM_TYPES = {"string": "String", "long": "Long", "boolean": "Bool"}


@dataclass(frozen=True, slots=True)
class Allow:
    """Policy said yes; `policies` are the ids that decided, sorted."""

    policies: tuple[str, ...]

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Deny:
    """Policy said no, or could not be asked cleanly."""

    reason: str
    policies: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Principal:
    """A task, as policies see it."""

    task_id: str
    task_type: str
    workload: str  # SPIFFE ID
    state: str
    tokens_issued: int
    calls: int


class Policy:
    """The compiled policies of one task type: `clauses` are the type's own, which ours stand before."""

    def __init__(
        self, text: str, actions: Sequence[str], params: Mapping[str, str], required: Collection[str] = ()
    ) -> None:
        """Parse and validate. `params` maps names to PARAM_TYPES' keys. Raise InvalidPolicy with what is wrong."""
        self.clauses = clauses.read(text)
        schema = schema_text(actions, params, required)
        every = [*OWN, *self.clauses]
        faults = [
            Fault("", clause.line, f"policy {clause.id!r} is about action {action!r}, which is not in the ceiling")
            for clause in self.clauses
            for action in sorted((clause.actions or frozenset()) - set(actions))
        ]
        if faults:
            raise InvalidPolicy(faults)
        try:
            result = cedarpy.validate_policies(clauses.joined(every), schema)
            self._schema = cedarpy.Schema.from_str(schema)
        except Exception as error:
            raise InvalidPolicy(f"policy cannot be validated: {error}") from error
        if not result.validation_passed:
            raise InvalidPolicy(_faults(result.errors, every))
        self.whole = compiled(every)
        # Scopes name actions outright, so that what is left out could not match: the answer is the same, but sooner.
        self._cut = {
            action: compiled([each for each in every if each.actions is None or action in each.actions])
            for action in actions
        }

    def decide(self, principal: Principal, action: str, resource: str, params: Mapping[str, Param]) -> Allow | Deny:
        """Ask whether a task may do `action` at `resource`."""
        return self.ask(self._cut.get(action, self.whole), principal, action, resource, params)

    def ask(
        self,
        policies: cedarpy.PolicySet,
        principal: Principal,
        action: str,
        resource: str,
        params: Mapping[str, Param],
    ) -> Allow | Deny:
        """What other policies than the type's would say, by the same schema. Only `decide` grants anything."""
        try:
            entities = cedarpy.Entities.from_json_str(json.dumps(_entities(principal, resource)), self._schema)
            request = {
                "principal": _uid("Task", principal.task_id),
                "action": _uid("Action", action),
                "resource": _uid("Resource", resource),
                "context": {"params": dict(params)},
            }
            result = cedarpy.is_authorized(request, policies, entities, schema=self._schema)
            diagnostics = result.diagnostics
            named = diagnostics.id_annotations_by_reason
            decided = tuple(sorted(named.get(reason) or reason for reason in diagnostics.reasons))
            if diagnostics.errors:
                return Deny(f"policy could not be evaluated: {diagnostics.errors[0]}", decided)
            if result.decision is cedarpy.Decision.Allow:
                return Allow(decided)
        except Exception as error:  # noqa: BLE001  # whatever goes wrong while deciding is a deny
            return Deny(f"policy could not be asked: {type(error).__name__}")
        return Deny("a policy forbids it" if decided else "no policy permits it", decided)


def compiled(some: Sequence[Clause]) -> cedarpy.PolicySet:
    """Make a set of policies that can be asked."""
    return cedarpy.PolicySet.from_str(clauses.joined(some))


def _faults(errors: Sequence[Any], every: Sequence[Clause]) -> list[Fault]:
    """What Cedar's validator found, each once, with the policy's id and line."""
    found: dict[Fault, None] = {}
    for error in errors:
        number = re.fullmatch(r"policy([0-9]+)", str(error.policy_id))
        clause = every[int(number[1])] if number and int(number[1]) < len(every) else None
        message = re.sub(r"^for policy `[^`]*`, ", "", str(error.error))
        named = f"policy {clause.id!r}: {message}" if clause else message
        found[Fault("", clause.line if clause else 0, named)] = None
    return list(found)


def schema_text(actions: Sequence[str], params: Mapping[str, str], required: Collection[str] = ()) -> str:
    """The Cedar schema of a task type: its actions, and its parameters in the context."""
    fields = ", ".join(
        f"{json.dumps(name)}{'' if name in required else '?'}: {PARAM_TYPES[kind]}" for name, kind in params.items()
    )
    named = ", ".join(json.dumps(action) for action in actions)
    return f"""
namespace {NAMESPACE} {{
  entity TaskType;
  entity Workload;
  entity Resource;
  entity Task in [TaskType, Workload] {{
    type: String, state: String, workload: Workload, tokens_issued: Long, calls: Long
  }};
  action {named} appliesTo {{
    principal: [Task], resource: [Resource], context: {{ params: {{ {fields} }} }}
  }};
}}
"""


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": f"{NAMESPACE}::{kind}", "id": name}


def _entities(principal: Principal, resource: str) -> list[dict[str, Any]]:
    workload, task_type = _uid("Workload", principal.workload), _uid("TaskType", principal.task_type)
    return [
        {"uid": workload, "attrs": {}, "parents": []},
        {"uid": task_type, "attrs": {}, "parents": []},
        {"uid": _uid("Resource", resource), "attrs": {}, "parents": []},
        {
            "uid": _uid("Task", principal.task_id),
            "attrs": {
                "type": principal.task_type,
                "state": principal.state,
                "workload": {"__entity": workload},
                "tokens_issued": principal.tokens_issued,
                "calls": principal.calls,
            },
            "parents": [workload, task_type],
        },
    ]
