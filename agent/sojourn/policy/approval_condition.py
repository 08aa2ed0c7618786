"""Whether a task needs someone's approval: the condition `when` of its type's [approval], asked as policies are.

Cedar is asked whether the task may begin without. Anything but a clean yes, an error above all, is a need.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any

from sojourn.errors import Fault, InvalidPolicy
from sojourn.policy import clauses
from sojourn.policy.cedar import Policy
from sojourn.policy.cedar_schema import Context, Principal
from sojourn.policy.clauses import Clause
from sojourn.policy.user import ATTRIBUTES, UserFields
from sojourn.tasktoken.grants import Authority

# Cedar takes `has` of what no schema has for false: a name that is mistyped would then be a condition that never holds.
_THERE: Mapping[str, Collection[str]] = {
    "context": ("params", "facts"),
    "principal": tuple({"type", *(each.name for each in fields(Principal))} - {"task_id", "task_type"}),
    "principal.workload": (),
    "resource": (),
    "action": (),
}
_ID = f"{clauses.RESERVED}approval-when"


def read(text: str) -> Clause:
    """The policy of a condition: it permits what needs no approval. Raise InvalidPolicy if it is not one condition."""
    clause = clauses.only(f'@id("{_ID}") permit (principal, action, resource) unless {{\n{text}\n}};')
    if len(clause.parsed["conditions"]) != 1:
        raise InvalidPolicy([Fault("", 0, "it is not one condition")])
    return clause


class ApprovalNeed:
    """The compiled condition of one task type."""

    def __init__(
        self,
        clause: Clause,
        policy: Policy,
        params: Collection[str],
        facts: Collection[str],
        user: UserFields | None = None,
    ) -> None:
        """`policy`: the type's, by whose schema the condition must be valid; `params`, `facts` and `user`: what the
        type has.

        Raise InvalidPolicy if it is not, or if it asks whether there is what never is.
        """
        there = {**_THERE, "context.params": params, "context.facts": facts}
        if user is None:
            there["principal"] = tuple(name for name in _THERE["principal"] if name != "user")
        else:
            there["principal.user"] = (*ATTRIBUTES, *user.claims)
        missing = [
            path
            for parent, path in _paths(clause)
            if path.rpartition(".")[2] not in there.get(parent, path.rpartition(".")[2:])
        ]
        if missing:
            raise InvalidPolicy([Fault("", 0, f"there is no {path}") for path in dict.fromkeys(missing)])
        self.clause = clause
        self._policy = policy
        self._without = policy.beside(clause)

    def of(self, principal: Principal, authority: Authority, context: Context) -> bool:
        """Whether a task that has `authority` needs approval: the condition holds for any action at any resource of it,
        with the facts that are in force or with those that were said and are not on disk yet.
        """
        asked = [(action, grant.resource) for grant in authority.grants for action in grant.actions]
        return not asked or not all(
            self._policy.ask(self._without, principal, action, resource, each)
            for each in (context, *context.also)
            for action, resource in asked
        )


def _paths(clause: Clause) -> Iterator[tuple[str, str]]:
    """Each attribute that a condition reads or asks for, dotted, behind that of which it is one."""
    for each in clauses.objects(clause.parsed["conditions"]):
        for node in (each.get("."), each.get("has")):
            if isinstance(node, dict):
                path = _path(node["left"])
                for name in [node["attr"]] if isinstance(node["attr"], str) else node["attr"]:
                    yield path, f"{path}.{name}"
                    path = f"{path}.{name}"


def _path(node: Mapping[str, Any]) -> str:
    """What an expression names, dotted; of any other it is empty."""
    if "Var" in node:
        return str(node["Var"])
    inner = node.get(".")
    above = _path(inner["left"]) if isinstance(inner, dict) else ""
    return f"{above}.{inner['attr']}" if above and isinstance(inner, dict) else ""
