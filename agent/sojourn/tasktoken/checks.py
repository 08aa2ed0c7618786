"""Whether a good token is for what is asked: its action, its parameters, and the one request that it is for."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sojourn.errors.oauth import ActionNotAllowed, ParamNotBound, WrongParams
from sojourn.tasktoken.tokens import TaskToken


@dataclass(frozen=True, slots=True)
class Exact:
    """A value whose sender said its type, as in JSON: it is no text of another's."""

    value: object


def check_action(token: TaskToken, action: str) -> None:
    """Raise ActionNotAllowed unless the token allows the action."""
    if action not in token.actions:
        raise ActionNotAllowed(f"token does not allow the action {action!r}")


def check_params(token: TaskToken, given: Mapping[str, object]) -> None:
    """Raise WrongParams if the request has a parameter that the token's task has with another value.

    `given` are the request's, typed, or text where its sender could say no type, as in a path: `42` is 42's text.
    """
    for name, bound in token.params.items():
        if name in given and not _same(bound, given[name]):
            raise WrongParams(f"token is for another {name[:64]!r} than the request is")


def check_concerning(
    token: TaskToken, action: str, given: Mapping[str, object], unchecked: Collection[str] = ()
) -> None:
    """The same for an action: raise ParamNotBound for a parameter that concerns it and is not given.

    Those of `unchecked` the request does not have: whoever serves it says so.
    """
    for name, bound in token.concerning(action).items():
        if name in unchecked:
            continue
        if name not in given:
            raise ParamNotBound(
                f"the task's parameter {name[:64]!r} is compared with nothing: give the request's value"
            )
        check_stated(name, bound, [given[name]])


def check_stated(name: str, bound: str | int | bool, stated: Sequence[object]) -> None:
    """Raise WrongParams unless whatever a request states of a parameter is the task's value of it."""
    if not all(_same(bound, each) for each in stated):
        raise WrongParams(f"token is for another {name[:64]!r} than the request is")


def check_digest(token: TaskToken, digest: str) -> None:
    """Raise WrongParams for a token that is for one request, unless that has this digest. '': nobody knows it."""
    if not token.params_digest:
        return
    if not digest:
        raise WrongParams("token is for one request, and the request's digest is not known here")
    if not secrets.compare_digest(token.params_digest.encode(), digest.encode(errors="replace")):
        raise WrongParams("token is for another request than this one")


def _same(bound: str | int | bool, given: object) -> bool:
    if isinstance(given, Exact):
        return type(given.value) is type(bound) and given.value == bound
    if isinstance(given, str):
        return given == (bound if isinstance(bound, str) else str(bound).lower())
    return type(given) is type(bound) and given == bound
