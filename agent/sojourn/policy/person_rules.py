"""Whom a task may be for: the rules of its type's [person], asked before policy is."""

from collections.abc import Mapping

from sojourn.errors import LimitExceeded, PolicyDenied
from sojourn.errors.people import PersonRefused
from sojourn.people.person import Person
from sojourn.policy.cedar_schema import Param
from sojourn.policy.task_type_tables import PersonRule
from sojourn.policy.task_types import TaskType
from sojourn.policy.user import User
from sojourn.tasktoken.grants import Authority, Details


def check_person(kind: TaskType, person: Person | None, now: float) -> None:
    """Raise PersonRefused or PolicyDenied unless a task of this type may begin for `person`, or live on by a token of
    theirs that is brought at `now`, seconds since the epoch. None: nobody's token was brought.
    """
    check_user(kind, None if person is None else User.of(person, now))


def check_user(kind: TaskType, user: User | None, *, login: bool = True) -> None:
    """The same of a person as policies see them. `login` False: however long ago that was, for a task that lives."""
    rule = kind.person
    if rule is None:
        if user is not None:
            raise PersonRefused("person_not_taken", f"task type {kind.name!r} is for nobody: bring no person's token")
        return
    if user is None:
        if rule.need == "required":
            raise PersonRefused("person_required", f"task type {kind.name!r} is for a person: bring a token of theirs")
        return
    if rule.issuers and user.issuer not in rule.issuers:
        raise PersonRefused("unknown_issuer", f"task type {kind.name!r} takes nobody of issuer {user.issuer[:64]!r}")
    _check_claims(rule, user)
    if rule.groups and set(rule.groups).isdisjoint(user.group_names):
        raise PolicyDenied(
            f"task type {kind.name!r} is for people of certain groups, and the person is in none of them"
        )
    _check_login(rule, user, login=login)


def check_scope(kind: TaskType, user: User | None, wanted: Authority | None) -> None:
    """Raise PersonRefused if the scope of the person's access token does not let all be done that is wanted; where
    nobody says what is (None), if it lets nothing of this type be done.
    """
    if user is None or user.may is None:
        return
    asked = [action for grant in (wanted or kind.ceiling).grants for action in grant.actions]
    missing = [action for action in asked if not user.lets(action)]
    if missing and (wanted is not None or len(missing) == len(asked)):
        what = f"action {missing[0][:100]!r}" if wanted is not None else f"anything of task type {kind.name!r}"
        raise PersonRefused("not_in_scope", f"the scope of the person's access token does not let {what} be done")


def check_details(
    kind: TaskType, details: Details | None, wanted: Authority | None, params: Mapping[str, Param]
) -> None:
    """Raise PersonRefused if the authorization_details of the person's access token are not of such a task, or do not
    have all that is wanted outright.
    """
    if details is None:
        return
    if details.type_name != kind.name:
        raise _not_in_details(f"are of another task type than {kind.name!r}")
    if not details.says(params):
        raise _not_in_details("have other params than the task")
    beyond = [] if wanted is None else details.authority.excess(wanted)
    if beyond:
        raise _not_in_details(f"do not have action {beyond[0][1][:100]!r} at {beyond[0][0][:100]!r}")


def within_details(details: Details | None, given: Authority) -> Authority:
    """What of an authority such details have too. Raise PersonRefused if that is nothing."""
    if details is None:
        return given
    left = given.within(details.authority)
    if not left.grants:
        raise _not_in_details("have nothing of what policy allows")
    return left


def _not_in_details(why: str) -> PersonRefused:
    return PersonRefused("not_in_scope", f"the authorization_details of the person's access token {why}")


def check_room(kind: TaskType, live: int) -> None:
    """Raise LimitExceeded if a person who has `live` live tasks of this type may have no more."""
    if kind.person is not None and live >= kind.person.max_live:
        raise LimitExceeded(f"the person has {live} live tasks of type {kind.name!r}, and may have no more")


def _check_claims(rule: PersonRule, user: User) -> None:
    for name, kind, _ in user.claims:
        if rule.claims.get(name, kind) != kind:
            raise PersonRefused("person_not_taken", f"claim {name!r} of the person is no {rule.claims[name]}")


def _check_login(rule: PersonRule, user: User, *, login: bool) -> None:
    fresh = int(rule.max_auth_age.total_seconds()) if rule.max_auth_age is not None else None
    other = bool(rule.acr) and user.acr not in rule.acr
    old = login and fresh is not None and user.auth_age > fresh
    if other or old:
        how = "in another way" if other else "again: it was too long ago, or nobody says when"
        raise PersonRefused(
            "insufficient_user_authentication",
            f"the person must log in {how}",
            acr_values=rule.acr,
            max_age=fresh,
        )
