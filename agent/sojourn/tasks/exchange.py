"""RFC 8693 token exchange: what a request asks for, and the rules that it must keep.

Result ⊆ subject ∩ task ∩ policy ∩ request. A parameter that we do not honour is refused, never ignored.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sojourn.errors import (
    InvalidAuthorizationDetails,
    InvalidInput,
    InvalidScope,
    InvalidTarget,
    UnsupportedGrantType,
)
from sojourn.tasks.grants import Authority, Grant, from_details
from sojourn.tasks.types import TaskType

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN_TYPE_JWT = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105  # a name
TOKEN_TYPE_ACCESS = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a name
_KNOWN = frozenset(
    {
        "grant_type",
        "subject_token",
        "subject_token_type",
        "requested_token_type",
        "audience",
        "resource",
        "scope",
        "authorization_details",
        "task_id",
        "client_id",
    }
)


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """A well-formed request. `type_name` and `wanted` are None if the client named none."""

    unverified_subject_token: str
    target: str  # '' if the client named none
    type_name: str | None
    wanted: Authority | None
    scope: tuple[str, ...]
    task_id: str
    client_id: str

    def __repr__(self) -> str:
        return f"ExchangeRequest({self.target!r}, {self.type_name!r})"


def read(form: Sequence[tuple[str, str]]) -> ExchangeRequest:
    """Read the form of a token request. Raise InvalidInput and its kin with what RFC 8693, 2 is broken by."""
    fields: dict[str, str] = {}
    targets: set[str] = set()
    seen: set[str] = set()
    for name, value in form:
        if name in seen and name not in {"audience", "resource"}:
            raise InvalidInput(f"parameter {name[:64]!r} is given twice")
        seen.add(name)
        if name in {"audience", "resource"} and value:
            targets.add(value)
        if value:  # a parameter without a value counts as left out (RFC 6749, 3.2)
            fields[name] = value
    grant_type = fields.get("grant_type")
    if not grant_type:
        raise InvalidInput("grant_type is missing")
    if grant_type != GRANT_TYPE:
        raise UnsupportedGrantType(f"grant_type is not {GRANT_TYPE}")
    unknown = sorted(seen - _KNOWN)
    if unknown:
        raise InvalidInput(f"parameter {unknown[0][:64]!r} is not supported here")
    if not fields.get("subject_token"):
        raise InvalidInput("subject_token is missing")
    if fields.get("subject_token_type") != TOKEN_TYPE_JWT:
        raise InvalidInput(f"subject_token_type is not {TOKEN_TYPE_JWT}: the subject token is a JWT-SVID")
    if fields.get("requested_token_type", TOKEN_TYPE_ACCESS) not in {TOKEN_TYPE_ACCESS, TOKEN_TYPE_JWT}:
        raise InvalidInput(f"requested_token_type is not {TOKEN_TYPE_ACCESS}")
    if len(targets) > 1:
        raise InvalidTarget("audience and resource name several targets: a token has one audience")
    target = next(iter(targets), "")
    type_name, wanted = _details(fields.get("authorization_details"))
    if wanted is not None:
        target = target or (wanted.resources[0] if len(wanted.resources) == 1 else "")
        if wanted.resources != (target,):
            raise InvalidTarget("authorization_details must have exactly the requested target as their location")
    scope = tuple(fields.get("scope", "").split())
    return ExchangeRequest(
        unverified_subject_token=fields["subject_token"],
        target=target,
        type_name=type_name,
        wanted=wanted,
        scope=scope,
        task_id=fields.get("task_id", ""),
        client_id=fields.get("client_id", ""),
    )


def choose_type(request: ExchangeRequest, types: Mapping[str, TaskType], spiffe_id: Any) -> tuple[str, Authority]:
    """The task type and the authority of a bare exchange.

    Without authorization_details the one type is taken that the subject may begin and that reaches the target.
    """
    if request.type_name is not None and request.wanted is not None:
        return request.type_name, _by_scope(request, request.wanted)
    if not request.target:
        raise InvalidTarget("name the target: resource, audience, or authorization_details with locations")
    able = [
        kind
        for kind in types.values()
        if kind.ceiling.at(request.target) and spiffe_id in kind.allowed_workloads and "one-shot" in kind.bindings
    ]
    if not able:
        raise InvalidTarget(f"no task type that the subject may begin reaches {request.target[:200]!r}")
    if len(able) > 1:
        names = ", ".join(sorted(kind.name for kind in able)[:10])
        raise InvalidInput(f"several task types reach the target ({names}): name one in authorization_details")
    kind = able[0]
    return kind.name, _by_scope(request, Authority((Grant(request.target, kind.ceiling.at(request.target)),)))


def actions_wanted(request: ExchangeRequest) -> tuple[str, ...]:
    """The actions that the client named, by authorization_details or by scope; none: all."""
    if request.wanted is not None:
        return _by_scope(request, request.wanted).at(request.target)
    return request.scope


def _by_scope(request: ExchangeRequest, wanted: Authority) -> Authority:
    """Scope, if given, narrows to the actions that it names; what it names beyond them is refused."""
    if not request.scope:
        return wanted
    named = Authority.of([Grant.parse(request.target, request.scope)])
    beyond = wanted.excess(named)
    if beyond:
        raise InvalidScope(f"scope names {beyond[0][1][:100]!r}, which is not among the actions asked for")
    return named


def _details(text: str | None) -> tuple[str | None, Authority | None]:
    if text is None:
        return None, None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidAuthorizationDetails("authorization_details are not JSON") from error
    if not isinstance(value, list):
        raise InvalidAuthorizationDetails("authorization_details are not a list of objects")
    try:
        said = from_details(value)
        return said.type_name, said.authority
    except InvalidInput as error:
        raise InvalidAuthorizationDetails(error.public) from error
