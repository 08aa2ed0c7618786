"""Asking Cedar, so that anything but a clean yes is a no.

One policy set for each task type: our own forbids and the type's policies. An error inside a `forbid` would make that
forbid vanish; so a decision with any error in its diagnostics is a deny.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cedarpy

from sojourn.errors import InvalidPolicy

NAMESPACE = "Sojourn"
OURS = """
@id("sojourn.task-not-active")
forbid (principal, action, resource) unless { principal.state == "active" };
"""
Param = str | int | bool
PARAM_TYPES = {"string": "String", "long": "Long", "boolean": "Bool"}


@dataclass(frozen=True, slots=True)
class Allow:
    """Policy said yes; `policies` are the ids that decided."""

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
    """The compiled policies of one task type."""

    def __init__(self, text: str, actions: Sequence[str], params: Mapping[str, str]) -> None:
        """Parse and validate. `params` maps names to PARAM_TYPES' keys. Raise InvalidPolicy with what is wrong."""
        schema = schema_text(actions, params)
        whole = OURS + text
        try:
            self._policies = cedarpy.PolicySet.from_str(whole)
            identified = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
        except Exception as error:
            raise InvalidPolicy(f"policy cannot be parsed: {error}") from error
        if any("id" not in (policy.get("annotations") or {}) for policy in identified.values()):
            raise InvalidPolicy('every policy needs an id: write @id("…") before it')
        try:
            result = cedarpy.validate_policies(whole, schema)
            self._schema = cedarpy.Schema.from_str(schema)
        except Exception as error:
            raise InvalidPolicy(f"policy cannot be validated: {error}") from error
        if not result.validation_passed:
            raise InvalidPolicy("; ".join(str(getattr(fault, "error", fault)) for fault in result.errors))

    def decide(self, principal: Principal, action: str, resource: str, params: Mapping[str, Param]) -> Allow | Deny:
        """Ask whether a task may do `action` at `resource`."""
        try:
            entities = cedarpy.Entities.from_json_str(json.dumps(_entities(principal, resource)), self._schema)
            request = {
                "principal": _uid("Task", principal.task_id),
                "action": _uid("Action", action),
                "resource": _uid("Resource", resource),
                "context": {"params": dict(params)},
            }
            result = cedarpy.is_authorized(request, self._policies, entities, schema=self._schema)
            diagnostics = result.diagnostics
            named = diagnostics.id_annotations_by_reason
            policies = tuple(named.get(reason) or reason for reason in diagnostics.reasons)
            if diagnostics.errors:
                return Deny(f"policy could not be evaluated: {diagnostics.errors[0]}", policies)
            if result.decision is cedarpy.Decision.Allow:
                return Allow(policies)
        except Exception as error:  # noqa: BLE001  # whatever goes wrong while deciding is a deny
            return Deny(f"policy could not be asked: {type(error).__name__}")
        return Deny("a policy forbids it" if policies else "no policy permits it", policies)


def schema_text(actions: Sequence[str], params: Mapping[str, str]) -> str:
    """The Cedar schema of a task type: its actions, and its parameters in the context."""
    fields = ", ".join(f"{json.dumps(name)}?: {PARAM_TYPES[kind]}" for name, kind in params.items())
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
