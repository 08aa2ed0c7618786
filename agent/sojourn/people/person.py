"""A person, as a verified token of their issuer says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sojourn.errors import InvalidInput
from sojourn.jose.canonical_json import exactly
from sojourn.tasktoken.grants import Details
from sojourn.tasktoken.person_claims import PersonClaims

Claim = str | int | bool
_NOTHING: Mapping[str, Claim] = {}
PSEUDONYM_PREFIX: Final = "psn_"
_PSEUDONYM: Final = re.compile(PSEUDONYM_PREFIX + r"[A-Za-z0-9_-]{22}")


@dataclass(frozen=True, slots=True)
class Person:
    """Who a task is for. Times are seconds since the epoch, by the issuer's clock; 0 and '': the token does not say.

    `issuer` is its name in the configuration, and `url` its `iss`, byte for byte. The token is good until `expires_at`,
    and tasks live by it until `ends_at`. `session` is the `sid`. `groups` are sorted and each there once. `claims` are
    those that the configuration names. `may` are the actions that the scope of their access token lets be done for
    them, sorted; None: no token has said, and policy alone decides. `key` is the thumbprint of the one to which their
    token bound what is got by it (RFC 9449, 6.1). `rechecked`: their issuer is asked again and again whether the token
    is active. `prefix` stands before `subject` in tokens of ours. `details` are the most that may begin by an access
    token, or go on by it: they are of the token, and no task has them.
    """

    issuer: str
    url: str
    subject: str
    issued_at: int
    expires_at: int
    ends_at: int
    session: str = ""
    auth_time: int = 0
    acr: str = ""
    amr: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    claims: Mapping[str, Claim] = field(default_factory=lambda: _NOTHING)
    may: tuple[str, ...] | None = None
    key: str = ""
    rechecked: bool = False
    prefix: str = ""
    details: Details | None = None

    @property
    def name(self) -> str:
        """As operators, policies and cases name them. No issuer's name has the bar in it."""
        return f"{self.issuer}|{self.subject}"

    @property
    def group_names(self) -> list[str]:
        """Their groups as policies and services are told of them: ISSUER/GROUP, so that no other issuer gives one."""
        return [f"{self.issuer}/{group}" for group in self.groups]

    def is_same(self, other: "Person") -> bool:
        """Whether both are one person: of one issuer, by one subject, byte for byte."""
        return (self.url, self.subject) == (other.url, other.subject)

    def bare(self) -> "Person":
        """Who they are, and nothing of what they may or have: for a task that is over."""
        return replace(self, groups=(), claims=_NOTHING, may=())

    def no_more_than(self, other: "Person") -> "Person":
        """The same, but nothing may be done for them that could not be by what the other token said."""
        if other.may is None:
            return self
        may = other.may if self.may is None else tuple(each for each in self.may if each in other.may)
        return replace(self, may=may)

    def in_task(self) -> "Person":
        """The same as a task has them, which is within the details of the token already."""
        return replace(self, details=None) if self.details is not None else self

    def by_token_alone(self) -> "Person":
        """The same, whose tasks end with the token at the latest."""
        return replace(self, ends_at=min(self.ends_at, self.expires_at))

    def told(self) -> PersonClaims:
        """What a token of ours tells a service of them."""
        return PersonClaims(self.url, self.subject, self.auth_time, self.acr, self.amr, prefix=self.prefix)

    def document(self) -> dict[str, Any]:
        """As JSON, which `read` reads."""
        return {
            "issuer": self.issuer,
            "url": self.url,
            "subject": self.subject,
            "issued_at": self.issued_at,
            "expires_at": self.expires_at,
            "ends_at": self.ends_at,
            "session": self.session,
            "auth_time": self.auth_time,
            "acr": self.acr,
            "amr": list(self.amr),
            "groups": list(self.groups),
            "claims": dict(self.claims),
            "may": None if self.may is None else list(self.may),
            "key": self.key,
            "rechecked": self.rechecked,
            "prefix": self.prefix,
        }

    @classmethod
    def read(cls, document: Any) -> "Person":
        """Read it again, strictly. Raises whatever it meets if it is not as it must be."""
        claims, may = exactly(dict, document["claims"]), document["may"]
        for each in claims.values():
            if not isinstance(each, str | int):
                raise InvalidInput("not a claim")
        return cls(
            issuer=exactly(str, document["issuer"]),
            url=exactly(str, document["url"]),
            subject=exactly(str, document["subject"]),
            issued_at=exactly(int, document["issued_at"]),
            expires_at=exactly(int, document["expires_at"]),
            ends_at=exactly(int, document["ends_at"]),
            session=exactly(str, document["session"]),
            auth_time=exactly(int, document["auth_time"]),
            acr=exactly(str, document["acr"]),
            amr=tuple(exactly(str, each) for each in exactly(list, document["amr"])),
            groups=tuple(exactly(str, each) for each in exactly(list, document["groups"])),
            claims={exactly(str, name): each for name, each in claims.items()},
            may=None if may is None else tuple(exactly(str, each) for each in exactly(list, may)),
            key=exactly(str, document["key"]),
            rechecked=exactly(bool, document["rechecked"]),
            prefix=exactly(str, document["prefix"]),
        )


def is_pseudonym(text: str) -> bool:
    """Whether a text has the form of what records and facts call a person."""
    return _PSEUDONYM.fullmatch(text) is not None
