"""The tables [people.NAME] of the configuration: whose tokens a workload may bring to begin a task for a person."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from sojourn.limits import (
    AUDIENCE_MAX_BYTES,
    PEOPLE_ISSUERS,
    PERSON_AUDIENCES,
    PERSON_CLAIMS,
    PERSON_PREFIX_MAX_BYTES,
    PERSON_PRESENTERS,
    PERSON_SCOPE_ACTIONS,
    PERSON_SCOPES,
    PERSON_TOKEN_MAX_SECONDS,
    SERVICE_WORKLOADS,
)
from sojourn.settings.outside import Issuer, OutsideTable
from sojourn.settings.tables import Duration, FilePath, SpiffeIds, Table, between
from sojourn.spiffe.ids import SCHEME
from sojourn.tasktoken.grants import is_action

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")  # policies and cases write `NAME|SUBJECT` and `NAME/GROUP`
_SCOPE = re.compile(r"[!#-[\]-~]{1,255}")
_Item = TypeVar("_Item")
# What a token says of itself and of its person, which is read anyway, or what would not be the person's.
_OWN: Final = frozenset(
    {
        *("iss", "sub", "aud", "exp", "iat", "nbf", "jti", "azp", "client_id", "act", "may_act", "cnf"),
        *("sid", "auth_time", "acr", "amr", "sub_id", "events"),
    }
)


def _text(value: str) -> str:
    if not value or len(value.encode()) > AUDIENCE_MAX_BYTES or not value.isprintable():
        raise ValueError(f"is not a printable text of 1 to {AUDIENCE_MAX_BYTES} bytes")
    return value


def _prefix(value: str) -> str:
    if not re.fullmatch(rf"[!-~]{{0,{PERSON_PREFIX_MAX_BYTES}}}", value) or value.lower().startswith("spiffe:"):
        raise ValueError(
            f"is none of at most {PERSON_PREFIX_MAX_BYTES} printable ASCII characters without spaces, or looks like a"
            " SPIFFE ID"
        )
    return value


Text = Annotated[str, AfterValidator(_text)]
Audiences = Annotated[tuple[Text, ...], Field(max_length=PERSON_AUDIENCES)]


def _some(value: tuple[_Item, ...]) -> tuple[_Item, ...]:
    """Not empty. Where an item is at fault, that alone is told."""
    if not value:
        raise ValueError("is empty: name one at the least")
    return value


def _other_claims(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        if each in _OWN:
            raise ValueError(f"{each!r} is a claim that is read anyway, or that is not about the person")
    if len(set(value)) < len(value):
        raise ValueError("has a claim twice")
    return value


def _scope(value: str) -> str:
    if not _SCOPE.fullmatch(value):
        raise ValueError(f"{value[:64]!r} is no value of a scope (RFC 6749, 3.3)")
    return value


def _action(value: str) -> str:
    if not is_action(value):
        raise ValueError(f"{value[:64]!r} is no name of an action")
    return value


Actions = Annotated[
    tuple[Annotated[str, AfterValidator(_action)], ...], Field(max_length=PERSON_SCOPE_ACTIONS), AfterValidator(_some)
]
Scopes = Annotated[
    Mapping[Annotated[str, AfterValidator(_scope)], Actions], Field(min_length=1, max_length=PERSON_SCOPES)
]


class PresenterConfig(Table):
    """Workloads, and the tokens that they may bring: those that were given to them, and no others."""

    workloads: Annotated[SpiffeIds, Field(min_length=1, max_length=SERVICE_WORKLOADS)]
    id_token_audiences: Audiences = ()  # client IDs of theirs at the issuer
    access_token_audiences: Audiences = ()  # what an access token is for that they receive
    authorized_parties: Audiences = ()  # client IDs to which such a token may have been given
    id_jag_clients: Audiences = ()  # what the issuer calls them in an ID-JAG; their SPIFFE IDs will do too then

    @model_validator(mode="after")
    def _takes_something(self) -> Self:
        if bool(self.access_token_audiences) != bool(self.authorized_parties):
            raise ValueError("access_token_audiences and authorized_parties go together")
        if not self.id_token_audiences and not self.access_token_audiences and not self.id_jag_clients:
            raise ValueError(
                "has none of id_token_audiences, access_token_audiences and id_jag_clients: no token could be brought"
            )
        others = [each for each in self.id_jag_clients if each.startswith(SCHEME) and each not in self.workloads]
        if others:
            raise ValueError(f"id_jag_clients: {others[0]!r} is the name of none of these workloads")
        return self


class PeopleConfig(OutsideTable):
    """One issuer of people's tokens, and who may bring them."""

    issuer: Issuer
    jwks: FilePath | None = None  # a file with its JWK Set; default: by OpenID Connect Discovery
    algorithms: Annotated[tuple[Literal["ES256", "RS256", "PS256"], ...], AfterValidator(_some)] = (
        "ES256",
        "RS256",
        "PS256",
    )
    longest: Annotated[Duration, between(timedelta(minutes=1), timedelta(seconds=PERSON_TOKEN_MAX_SECONDS))] = (
        timedelta(hours=1)
    )
    fresh: Annotated[Duration, between(timedelta(seconds=10), timedelta(seconds=PERSON_TOKEN_MAX_SECONDS))] = timedelta(
        minutes=10
    )
    ends: Literal["token", "session"] = "token"  # with what tasks end, if no newer token is brought
    session_longest: Annotated[Duration, between(timedelta(minutes=1))] = timedelta(hours=12)  # since they logged in
    recheck: Annotated[Duration | None, between(timedelta(seconds=5), timedelta(minutes=15))] = None  # by RFC 7662
    recheck_grace: Annotated[Duration, between(timedelta(seconds=10), timedelta(hours=1))] = timedelta(seconds=60)
    client_id: Text | None = None  # of the agent, when it asks; sent along if it is set
    client_auth: Literal["jwt-spiffe", "jwt-bearer", "private_key_jwt"] = "jwt-spiffe"  # by a JWT-SVID of its own
    opaque: bool = False  # whether access tokens that are no JWTs are taken, by what the issuer says of them
    groups: Text = "groups"
    claims: Annotated[tuple[Text, ...], Field(max_length=PERSON_CLAIMS), AfterValidator(_other_claims)] = ()
    scopes: Scopes | None = None  # what the scopes of an access token let be done; None: they are not looked at
    authorization_details: Literal["bound", "ignore"] = "bound"  # of an access token: whether they are the most
    prefix: Annotated[str, AfterValidator(_prefix)] = ""  # before their `sub` in tokens of ours
    audit: Literal["pseudonym", "plain"] = "pseudonym"  # what audit records call its people
    presenters: Annotated[tuple[PresenterConfig, ...], Field(max_length=PERSON_PRESENTERS), AfterValidator(_some)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.groups in _OWN or self.groups in self.claims:
            raise ValueError(f"groups: {self.groups!r} is another claim already")
        asked = ("ca", "private_networks", "plain_http", "timeout")
        if self.jwks is not None and (given := [key for key in asked if key in self.model_fields_set]):
            raise ValueError(f"{given[0]} is for asking the issuer, which jwks makes needless")
        if self.jwks is not None and self.recheck is not None:
            raise ValueError("recheck asks the issuer, which jwks makes needless otherwise: leave jwks out")
        of_recheck = ("recheck_grace", "client_id", "client_auth")
        if self.recheck is None and (given := [key for key in of_recheck if key in self.model_fields_set]):
            raise ValueError(f"{given[0]} is for recheck, which is not set")
        if self.opaque and (self.recheck is None or not any(each.access_token_audiences for each in self.presenters)):
            raise ValueError("opaque needs recheck, by which the issuer is asked, and access_token_audiences")
        if self.jwks is None and self.issuer.startswith("http:") and not self.plain_http:
            raise ValueError("issuer is asked over plain http, which plain_http = true allows for a loopback address")
        return self


def _issuers(tables: Mapping[str, PeopleConfig]) -> Mapping[str, PeopleConfig]:
    for name in tables:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name: it has small letters, digits and hyphens, at most 64")
    urls = [each.issuer for each in tables.values()]
    if twice := next((each for each in urls if urls.count(each) > 1), None):
        raise ValueError(f"the issuer {twice!r} is there twice")
    if len(tables) > 1:
        _check_apart(tables)
        _check_one_to_ask(tables)
    return tables


def _check_one_to_ask(tables: Mapping[str, PeopleConfig]) -> None:
    """Raise ValueError if of a workload's opaque tokens nobody can tell which issuer is to be asked: none may be shown
    another's.
    """
    asked: dict[str, str] = {}
    for name, table in tables.items():
        theirs = [each.workloads for each in table.presenters if table.opaque and each.access_token_audiences]
        for workload in {str(each) for workloads in theirs for each in workloads}:
            if asked.setdefault(workload, name) != name:
                raise ValueError(
                    f"{workload!r} may bring opaque tokens of {asked[workload]!r} and of {name!r}: no such token says"
                    " whose it is, so that one issuer would be shown another's"
                )


def _check_apart(tables: Mapping[str, PeopleConfig]) -> None:
    """Raise ValueError if people of two issuers might have one `sub` in tokens of ours."""
    for name, table in tables.items():
        if not table.prefix:
            raise ValueError(
                f"there are several issuers, so that each needs a prefix for its subjects, and {name!r} has none: a"
                f' service takes one `sub` for one person. Write prefix = "{name}|", for example'
            )
        other = next((each for each in tables if each != name and tables[each].prefix.startswith(table.prefix)), None)
        if other is not None:
            raise ValueError(f"the prefix of {other!r} begins with that of {name!r}: give each another one")


People = Annotated[Mapping[str, PeopleConfig], Field(max_length=PEOPLE_ISSUERS), AfterValidator(_issuers)]


def plain_in_audit(tables: Mapping[str, PeopleConfig]) -> frozenset[str]:
    """The names of the issuers whose people audit records name as they are."""
    return frozenset(name for name, table in tables.items() if table.audit == "plain")
