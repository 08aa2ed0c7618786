"""What may be asked for by a person's token at the most (RFC 8707, RFC 9396): the resource, scope and
authorization_details of an ID-JAG, the authorization_details of an access token.

A request that names more is refused, and one that leaves something open gets what both have.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from sojourn.errors import InvalidAuthorizationDetails, InvalidScope, InvalidTarget
from sojourn.oauth.token_request import TokenRequest
from sojourn.people.id_jag import IdJag
from sojourn.people.person import Person
from sojourn.tasks.task import Task
from sojourn.tasktoken.grants import Authority, Details, Grant, alone


@dataclass(frozen=True, slots=True)
class GrantBounds:
    """The most, by each of the three; one that is None bounds nothing, and one that is empty leaves nothing."""

    resources: tuple[str, ...] | None = None
    scope: frozenset[str] | None = None
    details: Details | None = None

    @classmethod
    def of(cls, jag: IdJag) -> Self:
        return cls(jag.resources, jag.scope, jag.details)

    @classmethod
    def of_person(cls, person: Person) -> Self:
        """By an access token. Its scope, which is mapped to actions, bounds a task as long as it lives."""
        return cls(details=person.details)

    def within(self, request: TokenRequest) -> TokenRequest:
        """The request, with what it leaves open as the assertion has it, if that is one thing.

        Raise InvalidTarget, InvalidScope or InvalidAuthorizationDetails if it names more than that.
        """
        request = replace(request, target=self._target(request))
        asked = (*request.scope, *(() if request.wanted is None else request.wanted.at(request.target)))
        beyond = [each for each in asked if self.scope is not None and each not in self.scope]
        if beyond:
            raise InvalidScope(f"the assertion's scope does not have {beyond[0][:100]!r}")
        if self.details is None:
            return request
        if request.wanted is None:
            return self._as_details(request, self.details)
        _check_details(request, request.wanted, self.details)
        return request

    def narrowed(self, authority: Authority) -> Authority:
        """What of an authority the assertion has too. Raise InvalidScope if that is nothing."""
        if self == UNBOUNDED:  # the very same, which tasks share
            return authority
        left = self._common(authority)
        if not left.grants:
            raise InvalidScope("the person's token has none of the actions that there are")
        return left

    def actions(self, named: Sequence[str], held: Authority, target: str) -> tuple[str, ...]:
        """The actions of a token at a target for a task that has `held`; none are `named`: all that both have.

        Raise InvalidTarget if it is not said which target, or InvalidScope.
        """
        if named or self == UNBOUNDED:
            return tuple(named)
        resource = held.named(target)
        if not resource:
            raise InvalidTarget("the task has several targets: name one")
        return self.narrowed(alone(Grant(resource, held.at(resource)))).at(resource)

    def covers(self, task: Task) -> bool:
        """Whether the assertion has all that a task has: then the task may go on by it."""
        if self._common(task.authority) != task.authority:
            return False
        details = self.details
        if details is None:
            return True
        return details.type_name == task.type.name and details.says(task.params)

    def _target(self, request: TokenRequest) -> str:
        resources = self.resources
        if resources is None and self.details is not None:
            resources = self.details.authority.resources
        if resources is None:
            return request.target
        target = request.target or (resources[0] if len(resources) == 1 else "")
        if target not in resources:
            raise InvalidTarget(
                "the person's token is for another resource than the target" if target else "name one of its resources"
            )
        return target

    def _as_details(self, request: TokenRequest, details: Details) -> TokenRequest:
        """A request without details of its own, by those of the assertion."""
        actions = details.authority.at(request.target)
        if not actions:
            raise InvalidTarget("the authorization_details of the person's token do not have the target")
        return replace(
            request,
            type_name=details.type_name,
            wanted=self.narrowed(alone(Grant(request.target, actions))),
            params=details.params or None,
        )

    def _common(self, authority: Authority) -> Authority:
        kept = ((each.resource, self._kept(each)) for each in authority.grants)
        return Authority(tuple(Grant(resource, actions) for resource, actions in kept if actions))

    def _kept(self, grant: Grant) -> tuple[str, ...]:
        return tuple(action for action in grant.actions if self._has(grant.resource, action))

    def _has(self, resource: str, action: str) -> bool:
        return (
            (self.resources is None or resource in self.resources)
            and (self.scope is None or action in self.scope)
            and (self.details is None or action in self.details.authority.at(resource))
        )


UNBOUNDED: Final = GrantBounds()


def _check_details(request: TokenRequest, wanted: Authority, details: Details) -> None:
    """Raise InvalidAuthorizationDetails unless those of a request are within the assertion's."""
    if request.type_name != details.type_name:
        raise InvalidAuthorizationDetails("the authorization_details of the person's token are of another type")
    beyond = details.authority.excess(wanted)
    if beyond:
        raise InvalidAuthorizationDetails(
            f"the authorization_details of the person's token do not have {beyond[0][1][:100]!r}"
        )
    if not details.says(request.params or {}):
        raise InvalidAuthorizationDetails("the authorization_details of the person's token have other params")
