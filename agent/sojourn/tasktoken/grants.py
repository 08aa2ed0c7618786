"""Grants: what a task may do, and where. Authority only ever shrinks, and names are compared byte for byte."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from sojourn.errors import InvalidInput
from sojourn.limits import (
    ACTIONS_PER_GRANT,
    AUDIENCE_MAX_BYTES,
    GRANTS_PARSED_KEPT,
    GRANTS_PER_TASK,
    LONG_MAX,
    PARAMS_PER_TASK,
)

# An absolute URI without fragment (RFC 8707, 2).
_RESOURCE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[!$-;=?-Z\[\]_a-z~]+")
_ACTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}")
DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256, base64url
_MEMBERS = frozenset({"type", "actions", "locations", "params", "params_digest"})


def is_action(text: str) -> bool:
    """Whether a text may be the name of an action."""
    return _ACTION.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Grant:
    """Actions at one resource. The resource is an absolute URI and also the audience of tokens for it."""

    resource: str
    actions: tuple[str, ...]  # sorted, no duplicates, at least one

    @classmethod
    def parse(cls, resource: str, actions: Iterable[str]) -> Self:
        """Check both and make a grant. Raise InvalidInput naming the field and the rule."""
        if not _RESOURCE.fullmatch(resource) or len(resource) > AUDIENCE_MAX_BYTES:
            raise InvalidInput(f"resource {resource[:100]!r} is not an absolute URI without fragment")
        named = sorted(set(actions))
        if not named or len(named) > ACTIONS_PER_GRANT:
            raise InvalidInput(f"a grant has 1 to {ACTIONS_PER_GRANT} actions")
        for action in named:
            if not is_action(action):
                raise InvalidInput(f"action {action[:100]!r} is not a name of letters, digits, and _ . : / -")
        return cls(resource, tuple(named))

    def detail(
        self, task_type: str, params: Mapping[str, str | int | bool] | None = None, params_digest: str = ""
    ) -> dict[str, Any]:
        """The grant as one element of `authorization_details` (RFC 9396, 2)."""
        return {
            "type": task_type,
            "actions": list(self.actions),
            "locations": [self.resource],
            **({"params": dict(params)} if params else {}),
            **({"params_digest": params_digest} if params_digest else {}),
        }


@dataclass(frozen=True, slots=True)
class Authority:
    """All grants of a task: at most one for each resource."""

    grants: tuple[Grant, ...]

    @classmethod
    def of(cls, grants: Iterable[Grant]) -> Self:
        """Merge grants by resource; order is that of first mention."""
        merged: dict[str, set[str]] = {}
        for grant in grants:
            merged.setdefault(grant.resource, set()).update(grant.actions)
        if len(merged) > GRANTS_PER_TASK:
            raise InvalidInput(f"a task has at most {GRANTS_PER_TASK} grants")
        if any(len(actions) > ACTIONS_PER_GRANT for actions in merged.values()):
            raise InvalidInput(f"a grant has 1 to {ACTIONS_PER_GRANT} actions")
        return cls(tuple(Grant(resource, tuple(sorted(actions))) for resource, actions in merged.items()))

    @property
    def resources(self) -> tuple[str, ...]:
        return tuple(grant.resource for grant in self.grants)

    def document(self) -> list[dict[str, Any]]:
        """As JSON."""
        return [{"resource": grant.resource, "actions": list(grant.actions)} for grant in self.grants]

    def named(self, resource: str) -> str:
        """The resource, or if none is named the only one that there is; '' if there are several."""
        return resource or (self.grants[0].resource if len(self.grants) == 1 else "")

    def at(self, resource: str) -> tuple[str, ...]:
        """The actions at a resource; empty if there is no grant for it."""
        return next((grant.actions for grant in self.grants if grant.resource == resource), ())

    def within(self, other: "Authority") -> "Authority":
        """What of this authority is in `other` too; it may be nothing."""
        kept = ((each.resource, tuple(a for a in each.actions if a in other.at(each.resource))) for each in self.grants)
        return Authority(tuple(Grant(resource, actions) for resource, actions in kept if actions))

    def excess(self, wanted: "Authority") -> list[tuple[str, str]]:
        """The (resource, action) pairs of `wanted` that are not in this authority."""
        return [
            (grant.resource, action)
            for grant in wanted.grants
            for action in grant.actions
            if action not in self.at(grant.resource)
        ]


@dataclass(frozen=True, slots=True)
class Details:
    """What `authorization_details` say: of what type a task is, what it may do, with which parameters.

    `params` are those of the task; `params_digest` that of the one request that it is for, '' if it is for more.
    """

    type_name: str
    authority: Authority
    params: Mapping[str, str | int | bool]
    params_digest: str

    def says(self, params: Mapping[str, str | int | bool]) -> bool:
        """Whether what is said of parameters is true of these: all of it, and by type too."""
        return all(
            name in params and (type(params[name]), params[name]) == (type(value), value)
            for name, value in self.params.items()
        )


def from_details(details: object) -> Details:
    """Read `authorization_details` (RFC 9396). Raise InvalidInput.

    Each element names the same `type`, its `actions`, and its `locations`; it may have `params` and `params_digest`,
    the same in all. No other member is accepted, since what we do not understand we must not ignore.
    """
    if not isinstance(details, list) or not details or not all(isinstance(element, dict) for element in details):
        raise InvalidInput("authorization_details are not a list of objects, or are empty")
    first = details[0]
    name = first.get("type")
    if not isinstance(name, str) or any(element.get("type") != name for element in details):
        raise InvalidInput("authorization_details name more than one type, or none")
    grants: list[Grant] = []
    for element in details:
        if not _MEMBERS.issuperset(element):
            unknown = min(set(element) - _MEMBERS)
            raise InvalidInput(f"authorization_details have an unknown member {unknown[:64]!r}")
        if element is not first and any(
            _typed(element, each) != _typed(first, each) for each in ("params", "params_digest")
        ):
            raise InvalidInput("authorization_details have different params in their elements")
        actions, locations = element.get("actions"), element.get("locations")
        if not _strings(actions) or not _strings(locations):
            raise InvalidInput("authorization_details need actions and locations, each a list of strings")
        # Before each action is looked at for each location: a text of 64 KiB may have thousands of both.
        if len(actions) > ACTIONS_PER_GRANT:
            raise InvalidInput(f"a grant has 1 to {ACTIONS_PER_GRANT} actions")
        if len(grants) + len(locations) > GRANTS_PER_TASK:
            raise InvalidInput(f"a task has at most {GRANTS_PER_TASK} grants")
        grants += [parsed(location, tuple(actions)) for location in locations]
    authority = alone(grants[0]) if len(grants) == 1 else Authority.of(grants)
    return Details(name, authority, _params(first), _digest(first))


# The same few stand in request after request, and in token after token; tasks that have the same share it.
parsed: Callable[[str, tuple[str, ...]], Grant] = lru_cache(GRANTS_PARSED_KEPT)(Grant.parse)


@lru_cache(GRANTS_PARSED_KEPT)
def alone(grant: Grant) -> Authority:
    """One grant and no other."""
    return Authority((grant,))


def _params(element: Mapping[str, Any]) -> dict[str, str | int | bool]:
    params = element.get("params", {})
    if not isinstance(params, dict) or len(params) > PARAMS_PER_TASK:
        raise InvalidInput(f"params of authorization_details are not an object of at most {PARAMS_PER_TASK} members")
    for name, value in params.items():
        if not isinstance(value, str | int) or (isinstance(value, int) and abs(value) > LONG_MAX):
            raise InvalidInput(f"parameter {name[:64]!r} is not a string, a whole number or a boolean")
    return dict(params)


def _digest(element: Mapping[str, Any]) -> str:
    if "params_digest" not in element:
        return ""
    digest = element["params_digest"]
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise InvalidInput("params_digest is not a SHA-256 digest in base64url")
    return digest


def _typed(element: Mapping[str, Any], name: str) -> object:
    """A member in a form that differs from another's also if only their types do, as true and 1; none from null."""
    value = element.get(name)
    parts = {key: (type(each), each) for key, each in value.items()} if isinstance(value, dict) else value
    return name in element, parts


def _strings(value: object) -> bool:
    return isinstance(value, list) and set(map(type, value)) == {str}
