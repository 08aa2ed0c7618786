"""Requests for tokens: what they ask for, and the rules that they must keep.

RFC 8693 token exchange, client_credentials (RFC 6749, 4.4) and jwt-bearer (RFC 7523, 2.1), each with RFC 8707 and 9396.
Result ⊆ subject ∩ task ∩ policy ∩ request. A parameter that we do not honour is refused, never ignored.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sojourn.errors import (
    InvalidAuthorizationDetails,
    InvalidInput,
    InvalidScope,
    InvalidTarget,
    UnsupportedGrantType,
)
from sojourn.jose import strict_json
from sojourn.oauth import forms
from sojourn.people.token_kind import ACCESS_TOKEN, ID_TOKEN
from sojourn.policy.task_types import TaskType
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Authority, Details, Grant, alone, from_details, parsed
from sojourn.tasktoken.tokens import TaskToken

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
CLIENT_CREDENTIALS: Final = "client_credentials"
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GRANT_TYPES: Final = (GRANT_TYPE, CLIENT_CREDENTIALS, JWT_BEARER)
TOKEN_TYPE_JWT = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105  # a name
TOKEN_TYPE_ACCESS = ACCESS_TOKEN
TOKEN_TYPE_ID = ID_TOKEN
OWN_TYPES: Final = frozenset({TOKEN_TYPE_ACCESS, TOKEN_TYPE_JWT})  # task tokens are both
_CLIENT = frozenset({"grant_type", "client_id", "client_assertion", "client_assertion_type", "client_secret"})
_WANTED = frozenset({"audience", "resource", "scope", "authorization_details", "task_id"})
_EXCHANGE = {"subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type"}
KNOWN: Final = {
    GRANT_TYPE: _CLIENT | _WANTED | _EXCHANGE,
    CLIENT_CREDENTIALS: _CLIENT | _WANTED,
    JWT_BEARER: _CLIENT | _WANTED | {"assertion"},
}
_REPEATABLE = frozenset({"audience", "resource"})
# Without them the request would be for something else, so an empty one is a mistake and not left out (CVE-2026-9704).
_NOT_EMPTY = (_EXCHANGE - {"subject_token", "subject_token_type", "requested_token_type"}) | {
    "client_assertion",
    "client_assertion_type",
    "task_id",
}


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A well-formed request. `type_name` and `wanted` are None if the client named none, `params` if it gave none."""

    grant_type: str
    unverified_subject: str = field(repr=False)  # the subject token or the assertion; '': the client itself
    subject_type: str  # TOKEN_TYPE_JWT | TOKEN_TYPE_ACCESS | TOKEN_TYPE_ID
    unverified_actor: str = field(repr=False)  # the actor token; '': none
    issued_type: str  # what the client calls the token that it wants; '' if it does not say
    target: str  # '' if the client named none
    type_name: str | None
    wanted: Authority | None
    scope: tuple[str, ...]
    task_id: str
    params: Mapping[str, str | int | bool] | None = None
    params_digest: str = ""
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)  # as sent: for who the client is


def read(form: Sequence[tuple[str, str]], outside: Callable[[str], object] = lambda _target: False) -> TokenRequest:
    """Read the form of a token request. Raise InvalidInput and its kin with the rule that is broken.

    `outside`: whether a provider outside gives what is for a target; then it may be of any type.
    """
    grant_type = _grant_type(form)
    values = forms.read(form, KNOWN[grant_type], _REPEATABLE)
    fields = forms.single({name: each for name, each in values.items() if name not in _REPEATABLE})
    forms.check_not_empty(form, _NOT_EMPTY)
    subject, subject_type = _subject(grant_type, fields)
    actor, actor_type = fields.get("actor_token", ""), fields.get("actor_token_type")
    if (actor_type is None) != (not actor):
        raise InvalidInput("actor_token and actor_token_type go together")
    if actor_type not in {None, TOKEN_TYPE_JWT}:
        raise InvalidInput(f"actor_token_type is not {TOKEN_TYPE_JWT}: the actor token is the client's own JWT-SVID")
    targets = {value for name in _REPEATABLE for value in values.get(name, ())}
    if len(targets) > 1:
        raise InvalidTarget("audience and resource name several targets: a token has one audience")
    target = next(iter(targets), "")
    details = _details(fields.get("authorization_details"))
    if details is not None:
        resources = details.authority.resources
        target = target or (resources[0] if len(resources) == 1 else "")
        if resources != (target,):
            raise InvalidTarget("authorization_details must have exactly the requested target as their location")
    issued_type = fields.get("requested_token_type", "")
    if issued_type not in {"", *OWN_TYPES} and not outside(target):
        raise InvalidInput(f"requested_token_type is not {TOKEN_TYPE_ACCESS}")
    return TokenRequest(
        grant_type=grant_type,
        unverified_subject=subject,
        subject_type=subject_type,
        unverified_actor=actor,
        issued_type=issued_type,
        target=target,
        type_name=details.type_name if details is not None else None,
        wanted=details.authority if details is not None else None,
        scope=tuple(fields.get("scope", "").split()),
        task_id=fields.get("task_id", ""),
        params=details.params if details is not None and details.params else None,
        params_digest=details.params_digest if details is not None else "",
        fields=fields,
    )


def choose_type(
    request: TokenRequest, types: Mapping[str, TaskType], spiffe_ids: Sequence[SpiffeId]
) -> tuple[str, Authority]:
    """The task type and the authority of a bare request of a client with these SPIFFE IDs.

    Without authorization_details the one type is taken that the client may begin and that reaches the target.
    """
    if request.type_name is not None and request.wanted is not None:
        return request.type_name, _by_scope(request, request.wanted)
    if not request.target:
        raise InvalidTarget("name the target: resource, audience, or authorization_details with locations")
    able = [
        kind
        for kind in types.values()
        if kind.ceiling.at(request.target)
        and any(each in kind.allowed_workloads for each in spiffe_ids)
        and "one-shot" in kind.bindings
    ]
    if not able:
        raise InvalidTarget(f"no task type that the subject may begin for one token reaches {request.target[:200]!r}")
    if len(able) > 1:
        names = ", ".join(sorted(kind.name for kind in able)[:10])
        raise InvalidInput(f"several task types reach the target ({names}): name one in authorization_details")
    kind = able[0]
    return kind.name, _by_scope(request, alone(Grant(request.target, kind.ceiling.at(request.target))))


def check_issued_type(request: TokenRequest, gives: Container[str]) -> None:
    """Raise InvalidInput if the client wants a token of a type that there is none of for its target."""
    if request.issued_type and request.issued_type not in gives:
        raise InvalidInput("requested_token_type is not that of the tokens for this target: leave it out")


def actions_wanted(request: TokenRequest) -> tuple[str, ...]:
    """The actions that the client named, by authorization_details or by scope; none: all."""
    if request.wanted is not None:
        return _by_scope(request, request.wanted).at(request.target)
    return request.scope


def check_params(request: TokenRequest, type_name: str, params: Mapping[str, str | int | bool]) -> None:
    """Raise InvalidAuthorizationDetails unless what the client says of a task that is begun already is true of it."""
    if request.type_name not in {None, type_name}:
        raise InvalidAuthorizationDetails("the task is of another type than authorization_details say")
    for name, value in (request.params or {}).items():
        if name not in params or (type(params[name]), params[name]) != (type(value), value):
            raise InvalidAuthorizationDetails(f"authorization_details have another {name[:64]!r} than the task")


# --- from a task token ----------------------------------------------------------------------------------------------


def narrowed(request: TokenRequest, subject: TaskToken, held: Authority) -> Grant:
    """What is asked for of a task token's authority by its own holder: its audience, and actions of its own.

    `held`: what the task has now. Raise InvalidTarget, InvalidScope, InvalidAuthorizationDetails.
    """
    if request.target not in {"", subject.resource}:
        raise InvalidTarget("subject_token is for another target: a token that is derived from it has the same")
    return _derived(request, subject, subject.resource, held)


def handed_on(request: TokenRequest, subject: TaskToken, held: Authority) -> Grant:
    """What is asked for of a task token's authority by the service that it was given to, for a call of its own.

    The actions are at most those of the token; the target is one where the token's task (which has `held`) has them.
    """
    target = request.target or subject.resource
    if not held.at(target):
        raise InvalidTarget(f"the task of subject_token has no grant at {target[:200]!r}")
    return _derived(request, subject, target, held)


def _derived(request: TokenRequest, subject: TaskToken, target: str, held: Authority) -> Grant:
    if request.task_id:
        raise InvalidInput("task_id does not go with an access token as subject: the task is that of the token")
    check_params(request, subject.task_type, subject.params)
    if request.params_digest not in {"", subject.params_digest} and subject.params_digest:
        raise InvalidAuthorizationDetails("subject_token is for another request: its params_digest stays what it is")
    there = tuple(action for action in held.at(target) if action in subject.actions)
    wanted = actions_wanted(request)
    beyond = [action for action in wanted if action not in there]
    if beyond:
        raise InvalidScope(f"subject_token does not give action {beyond[0][:100]!r} at {target[:200]!r}")
    if not there:
        raise InvalidTarget(f"subject_token gives no action that its task has at {target[:200]!r}")
    return Grant(target, tuple(sorted(set(wanted))) or there)


# --- reading --------------------------------------------------------------------------------------------------------


def _grant_type(form: Sequence[tuple[str, str]]) -> str:
    """By this alone, and never by what else was sent, it is decided what the request is (CVE-2026-9704)."""
    said = [value for name, value in form if name == "grant_type"]
    if len(said) > 1:
        raise InvalidInput("parameter 'grant_type' is given twice")
    if not said or not said[0]:
        raise InvalidInput("grant_type is missing")
    if said[0] not in GRANT_TYPES:
        raise UnsupportedGrantType(f"grant_type is none of {', '.join(GRANT_TYPES)}")
    return said[0]


def _subject(grant_type: str, fields: Mapping[str, str]) -> tuple[str, str]:
    """The token that says who the subject is, and its type."""
    if grant_type == CLIENT_CREDENTIALS:
        return "", TOKEN_TYPE_JWT
    if grant_type == JWT_BEARER:
        if "assertion" not in fields:
            raise InvalidInput("assertion is missing")
        return fields["assertion"], TOKEN_TYPE_JWT
    if "subject_token" not in fields:
        raise InvalidInput("subject_token is missing")
    kind = fields.get("subject_token_type")
    if kind not in {TOKEN_TYPE_JWT, TOKEN_TYPE_ACCESS, TOKEN_TYPE_ID}:
        raise InvalidInput(
            f"subject_token_type is not {TOKEN_TYPE_JWT}, for a JWT-SVID, {TOKEN_TYPE_ACCESS}, for a task token or a"
            f" person's access token, or {TOKEN_TYPE_ID}, for a person's ID token"
        )
    return fields["subject_token"], kind


def _by_scope(request: TokenRequest, wanted: Authority) -> Authority:
    """Scope, if given, narrows to the actions that it names; what it names beyond them is refused."""
    if not request.scope:
        return wanted
    named = alone(parsed(request.target, request.scope))
    beyond = wanted.excess(named)
    if beyond:
        raise InvalidScope(f"scope names {beyond[0][1][:100]!r}, which is not among the actions asked for")
    return named


def _details(text: str | None) -> Details | None:
    if text is None:
        return None
    try:
        value = strict_json.loads(text)
    except ValueError as error:
        raise InvalidAuthorizationDetails("authorization_details are not JSON") from error
    try:
        return from_details(value)
    except InvalidInput as error:
        raise InvalidAuthorizationDetails(error.public) from error
