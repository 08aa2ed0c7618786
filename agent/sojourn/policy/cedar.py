"""Asking Cedar, so that anything but a clean yes is a no.

One policy set for each task type: our own forbids and the type's policies. An error inside a `forbid` would make that
forbid vanish; so a decision with any error in its diagnostics is a deny.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cedarpy

from sojourn.errors import Fault, InvalidPolicy
from sojourn.limits import ALLOWED_KEPT, ENTITIES_KEPT
from sojourn.policy import clauses
from sojourn.policy.cedar_schema import (
    NO_FIELDS,
    SEEN,
    SEEN_OF,
    SOME_TASK,
    Context,
    Fields,
    Principal,
    context_key,
    entity,
    schema_text,
    uid,
    user_entity,
)
from sojourn.policy.clauses import Clause
from sojourn.policy.user import User, UserFields
from sojourn.policy.user_sight import UserSight
from sojourn.quota.lru import Lru

OWN = tuple(clauses.ours())


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


_Question = tuple[object, ...]


class Policy:
    """The compiled policies of one task type: `clauses` are the type's own, which ours stand before."""

    def __init__(
        self,
        text: str,
        actions: Sequence[str],
        params: Fields,
        facts: Fields = NO_FIELDS,
        limited: Sequence[str] = (),
        beside: Sequence[Clause] = (),
        user: UserFields | None = None,
    ) -> None:
        """Parse and validate. Raise InvalidPolicy with what is wrong.

        `limited`: the actions whose uses are counted. `beside`: what else `ask` will be asked with, see `beside`.
        `user`: what policies may read of people; None: no task is for one.
        """
        self.clauses = clauses.read(text)
        self._required_facts = sorted(facts.required)
        self._schema_text = schema = schema_text(actions, params, facts, limited, user)
        every = [*OWN, *self.clauses]
        faults = [
            Fault("", clause.line, f"policy {clause.id!r} is about action {action!r}, which is not in the ceiling")
            for clause in self.clauses
            for action in sorted((clause.actions or frozenset()) - set(actions))
        ]
        faults += [
            Fault("", clause.line, f"policy {clause.id!r}: principal.calls is now principal.reported_calls")
            for clause in self.clauses
            if "calls" in clause.of_principal
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
        # Tasks that are alike in all that policies name or read are one to them: making entities is half of what a
        # decision costs.
        names_tasks = any(clause.names_tasks for clause in (*self.clauses, *beside))
        read = frozenset[str]().union(*(clause.attributes for clause in (*self.clauses, *beside)))
        self._alike: dict[str, Any] = {} if names_tasks else {"task_id": SOME_TASK}
        self._alike |= {count: 0 for count in ("tokens_issued", "reported_calls") if count not in read}
        self._alike |= {} if limited and "uses" in read else {"uses": ()}
        self._limited = tuple(limited)
        self._user = user
        self._sight = UserSight((*self.clauses, *beside))
        self._user_at = SEEN.index("user")
        self._people = lru_cache(ENTITIES_KEPT)(self._person)
        self._made = lru_cache(ENTITIES_KEPT)(self._entities)
        self._alike_at = [(SEEN.index(name), like) for name, like in self._alike.items()]
        self._allowed: Lru[_Question, Allow] = Lru(ALLOWED_KEPT)
        # Scopes name actions outright, so that what is left out could not match: the answer is the same, but sooner.
        cuts = {action: tuple(each for each in every if _is_about(each, action)) for action in actions}
        made = {tuple(each.id for each in cut): cut for cut in cuts.values()}  # many actions have the same
        ready = {ids: compiled(cut) for ids, cut in made.items()}
        self._cut = {action: ready[tuple(each.id for each in cut)] for action, cut in cuts.items()}

    def beside(self, clause: Clause) -> cedarpy.PolicySet:
        """Compile a policy that is none of the type's, but valid by its schema. Raise InvalidPolicy if it is not."""
        try:
            result = cedarpy.validate_policies(clause.text, self._schema_text)
        except Exception as error:
            raise InvalidPolicy(f"it cannot be validated: {error}") from error
        if not result.validation_passed:
            raise InvalidPolicy([Fault("", 0, _told(each)) for each in result.errors])
        return compiled([clause])

    def decide(self, principal: Principal, action: str, resource: str, context: Context) -> Allow | Deny:
        """Ask whether a task may do `action` at `resource`. Without a fact that is required it may not."""
        decision = self._decide(principal, action, resource, context)
        for other in context.also if decision else ():
            if not (decision := self._decide(principal, action, resource, other)):
                break
        return decision

    def lacking(self, context: Context) -> str:
        """Which required fact is not there, and why; empty: all are."""
        for name in self._required_facts:
            if name not in context.facts:
                return f"fact {name!r} is {context.absent.get(name, 'missing')}"
        return ""

    def _decide(self, principal: Principal, action: str, resource: str, context: Context) -> Allow | Deny:
        lacking = self.lacking(context)
        if lacking:
            return Deny(lacking)
        # Cedar has no clock and no memory: to the very same question it says the same again. Only a clean yes is kept.
        question = self._question(principal, action, resource, context)
        kept = self._allowed.get(question) if question is not None else None
        if kept is not None:
            return kept
        decision = self.ask(self._cut.get(action, self.whole), principal, action, resource, context)
        if question is not None and isinstance(decision, Allow):
            self._allowed.put(question, decision)
        return decision

    def _question(self, principal: Principal, action: str, resource: str, context: Context) -> _Question | None:
        """All that Cedar reads beside policies and schema. None: it cannot be told, and asking will say why."""
        try:
            seen = list(SEEN_OF(principal))
            for place, like in self._alike_at:
                if type(seen[place]) is type(like):
                    seen[place] = like
            age: object = None
            if isinstance(user := seen[self._user_at], User):
                seen[self._user_at] = told = self._sight.told(user)
                age = type(told[5])
            question = (*seen, *map(type, seen), age, action, resource, *context_key(context))
            hash(question)
        except Exception:  # noqa: BLE001  # whatever it is, `ask` meets it too, and denies
            return None
        return question

    def ask(
        self,
        policies: cedarpy.PolicySet,
        principal: Principal,
        action: str,
        resource: str,
        context: Context,
    ) -> Allow | Deny:
        """What other policies than the type's would say, by the same schema. Only `decide` grants anything."""
        try:
            principal = self._as_told_apart(principal)
            entities = self._made(principal)
            request = {
                "principal": uid("Task", principal.task_id),
                "action": uid("Action", action),
                "resource": uid("Resource", resource),
                "context": context.document(),
            }
            result = cedarpy.is_authorized(request, policies, entities, schema=self._schema)
            diagnostics = result.diagnostics
            named = diagnostics.id_annotations_by_reason
            decided = tuple(sorted(named.get(reason) or reason for reason in diagnostics.reasons))
            if diagnostics.errors:
                return Deny(f"policy could not be evaluated: {diagnostics.errors[0]}", decided)
            if result.decision is cedarpy.Decision.Allow and decided:  # no permit without a policy that says so
                return Allow(decided)
        except BaseException as error:  # noqa: BLE001  # whatever goes wrong is a deny; a panic of Cedar is no Exception
            return Deny(f"policy could not be asked: {type(error).__name__}")
        return Deny("a policy forbids it" if decided else "no policy permits it", decided)

    def _as_told_apart(self, principal: Principal) -> Principal:
        """The task as the policies can tell it from others. What is not of its type is left to be found out."""
        alike = {name: value for name, value in self._alike.items() if type(getattr(principal, name)) is type(value)}
        if principal.user is not None:
            alike["user"] = self._sight.seen(principal.user)
        return replace(principal, **alike)

    def _entities(self, principal: Principal) -> cedarpy.Entities:
        """The entities of a decision: the task, and whom it is for. Parents and resources have no attributes."""
        task = json.dumps([entity(principal, self._limited, self._user)])
        if principal.user is None:
            return cedarpy.Entities.from_json_str(task, self._schema)
        # Tasks change with each use, and people do not: only the task is read again.
        return self._people(principal.user).with_added_json_str(task, self._schema)

    def _person(self, user: User) -> cedarpy.Entities:
        return cedarpy.Entities.from_json_str(json.dumps([user_entity(user, self._user)]), self._schema)


def _is_about(clause: Clause, action: str) -> bool:
    return clause.actions is None or action in clause.actions


def compiled(some: Sequence[Clause]) -> cedarpy.PolicySet:
    """Make a set of policies that can be asked."""
    return cedarpy.PolicySet.from_str(clauses.joined(some))


def _faults(errors: Sequence[Any], every: Sequence[Clause]) -> list[Fault]:
    """What Cedar's validator found, each once, with the policy's id and line."""
    found = []
    for error in errors:
        number = re.fullmatch(r"policy([0-9]+)", str(error.policy_id))
        clause = every[int(number[1])] if number and int(number[1]) < len(every) else None
        named = f"policy {clause.id!r}: {_told(error)}" if clause else _told(error)
        found.append(Fault("", clause.line if clause else 0, named))
    return list(dict.fromkeys(found))


def _told(error: Any) -> str:
    """What the validator says, without its own name of the policy."""
    return re.sub(r"^for policy `[^`]*`, ", "", str(error.error))
