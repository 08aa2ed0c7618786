"""The person whom a task is for, as policies see them: `principal.user`, an entity `Sojourn::User::"corp|8a1c"`.

Each field is named once, here, with its Cedar type: schema, entity, the key of kept decisions, what an explanation
shows and what an approval is asked for come from these fields.
"""

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from sojourn.jose.canonical_json import canonical
from sojourn.limits import JWT_LEEWAY_SECONDS, LONG_MAX, PEOPLE_NAMED_KEPT
from sojourn.people.person import Claim, Person

UNKNOWN_AGE: Final = LONG_MAX  # seconds; a policy that wants a fresh login does not take it for one
_KINDS: Final[Mapping[type, str]] = {str: "string", int: "long", bool: "boolean"}
_CEDAR: Final = "cedar"
_CLAIMS: Final = "claims"
Claims = tuple[tuple[str, str, Claim], ...]  # name, kind as task types have it, value: in Python 1 and true are equal


@dataclass(frozen=True, slots=True)
class UserFields:
    """What a task type says of its people: the claims that policies may read, by their kinds; whether each task has
    one.
    """

    claims: Mapping[str, str] = field(default_factory=dict)
    required: bool = True


def _is(kind: str) -> dict[str, str]:
    return {_CEDAR: kind}


@dataclass(frozen=True, slots=True)
class User:
    """A person at the moment of a decision. `auth_age`: whole seconds since they logged in, UNKNOWN_AGE if nobody says.

    `issuer` is its name in the configuration. `groups` are as the issuer names them. `may`: the actions that their
    access token lets be done, which no policy adds to; None: it does not say.
    """

    issuer: str = field(metadata=_is("String"))
    subject: str = field(metadata=_is("String"))
    acr: str = field(metadata=_is("String"))
    amr: tuple[str, ...] = field(metadata=_is("Set<String>"))
    groups: tuple[str, ...] = field(metadata=_is("Set<String>"))
    auth_age: int = field(metadata=_is("Long"))
    claims: Claims = ()
    may: tuple[str, ...] | None = None

    @classmethod
    def of(cls, person: Person, now: float) -> "User":
        """A person at `now`, seconds since the epoch."""
        age = login_age(person.auth_time, now)
        claims = claims_of(person.claims) if person.claims else ()
        return cls(person.issuer, person.subject, person.acr, person.amr, person.groups, age, claims, person.may)

    def lets(self, action: str) -> bool:
        """Whether their access token lets an action be done, if it says."""
        return self.may is None or action in self.may

    @property
    def name(self) -> str:
        """The ID of the entity, as `Person.name`."""
        return f"{self.issuer}|{self.subject}"

    @property
    def group_names(self) -> list[str]:
        """The IDs of the entities of kind Group that the user is in."""
        return [f"{self.issuer}/{group}" for group in self.groups]

    def attributes(self, declared: Mapping[str, str]) -> dict[str, Any]:
        """By the names that policies have for them; of claims those that are `declared`."""
        made = {name: _plain(getattr(self, name)) for name in ATTRIBUTES}
        return made | {name: value for name, _, value in self.claims if name in declared}

    def hidden(self, key: bytes) -> dict[str, Any]:
        """For digests that are kept: without `key` nobody can try who it was, or what they were in."""
        return {"hmac": _hmac(key, _LASTING_OF(self)), "auth_age": self.auth_age}


ATTRIBUTES: Final[Mapping[str, str]] = {
    each.name: each.metadata[_CEDAR] for each in fields(User) if _CEDAR in each.metadata
}
_LASTING: Final = tuple(each.name for each in fields(User) if each.name != "auth_age")
_LASTING_OF: Final[Callable[[User], tuple[Any, ...]]] = attrgetter(*_LASTING)


@lru_cache(PEOPLE_NAMED_KEPT)  # it is asked for at each decision that is made for them
def _hmac(key: bytes, lasting: tuple[Any, ...]) -> str:
    said = dict(zip(_LASTING, lasting, strict=True))
    return hmac.digest(key, canonical(said).encode(), "sha256").hex()


def login_age(auth_time: int, now: float) -> int:
    """Whole seconds between a login and `now`; UNKNOWN_AGE of one that nobody says, or that is yet to come."""
    if not auth_time or auth_time > now + JWT_LEEWAY_SECONDS:
        return UNKNOWN_AGE
    return max(0, int(now) - auth_time)


def claims_of(values: Mapping[str, Claim]) -> Claims:
    """Claims with their kinds, sorted."""
    return tuple((name, _KINDS[type(value)], value) for name, value in sorted(values.items()))


def _plain(value: str | int | Sequence[str]) -> Any:
    return list(value) if isinstance(value, tuple) else value
