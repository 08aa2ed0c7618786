"""Signed events as an issuer makes them, and one who takes facts."""

import itertools
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from fakes.jws import joined
from sojourn.errors import SojournError
from sojourn.jose.jws import SigningKey
from sojourn.ssf.caep import PersonAct
from sojourn.ssf.subjects import PeopleIssuer

IDP = "https://idp.example.net/"
AUDIENCE = "https://sojourn.example.org"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
RISK = f"{CAEP}risk-level-change"
WEB = "spiffe://example.org/web"
TASK = "tsk_5LqS9n1TnYFvQ3vJ9nXb2w"
_numbers = itertools.count()


def issuer_key(kid: str = "k1") -> SigningKey:
    return SigningKey.from_private(kid, ec.generate_private_key(ec.SECP256R1()))


def jwks(*keys: SigningKey, **members: Any) -> str:
    """A JWK Set with these keys; `members` go into each."""
    return json.dumps({"keys": [{**key.public.jwk, **members} for key in keys]})


def uri(spiffe_id: str) -> dict[str, str]:
    return {"format": "uri", "uri": spiffe_id}


def iss_sub(issuer: str, subject: str) -> dict[str, str]:
    return {"format": "iss_sub", "iss": issuer, "sub": subject}


def in_session(issuer: str, subject: str, session: str) -> dict[str, Any]:
    """A session of a person, as Keycloak names it."""
    return {
        "format": "complex",
        "user": iss_sub(issuer, subject),
        "session": {"format": "opaque", "id": session},
    }


def risk(level: str = "HIGH", **members: Any) -> dict[str, Any]:
    return {RISK: {"principal": "USER", "current_level": level, **members}}


def claims(at: float, **changes: Any) -> dict[str, Any]:
    """The claims of a good event with a `jti` of its own; what is changed to None is left out."""
    made = {
        "iss": IDP,
        "aud": AUDIENCE,
        "iat": int(at),
        "jti": f"event-{next(_numbers)}",
        "sub_id": uri(WEB),
        "events": risk(),
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def signed(key: SigningKey, at: float, *, typ: str = "secevent+jwt", **changes: Any) -> str:
    """A good event, with changes to its claims."""
    header = {"alg": key.algorithm, "kid": key.kid, "typ": typ}
    return joined(header, json.dumps(claims(at, **changes)).encode(), key)


class FakeFacts:
    """Takes facts as the agent's do: the newest counts. `failure` is raised in the place of the next ones."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, str], Any] = {}
        self.publications: list[Any] = []
        self.failure: SojournError | None = None

    async def publish(self, publication: Any, by: Any) -> bool:
        assert {"by_uid", "by_pid"} <= set(by)
        if self.failure is not None:
            raise self.failure
        place = (publication.name, publication.subject, publication.source)
        known = self.known.get(place)
        if known is not None and publication.happened_at <= known.happened_at:
            return False
        self.publications.append(publication)
        self.known[place] = publication
        return True

    def find(self, key: tuple[str, str, str]) -> Any:
        return self.known.get(key)

    def value(self, name: str = "risk_level", subject: str = WEB, source: str = IDP) -> Any:
        known = self.known.get((name, subject, source))
        return None if known is None else known.value


class FakePeople:
    """Does to people what events say. `failure` is raised in the place of the next ones, `unfit` by the check."""

    def __init__(self) -> None:
        self.done: list[tuple[PeopleIssuer, PersonAct, str]] = []
        self.failure: SojournError | None = None
        self.unfit: SojournError | None = None

    def check(self, people: PeopleIssuer, acts: Any, tasks: Any) -> None:
        if self.unfit is not None:
            raise self.unfit

    def pseudonym_of(self, people: PeopleIssuer, subject: str) -> str:
        return f"psn_of_{subject}"

    async def apply(self, people: PeopleIssuer, act: PersonAct, source: str, by: Any) -> None:
        assert {"by_uid", "by_pid", "signal"} <= set(by)
        self.done.append((people, act, source))
        if self.failure is not None:
            raise self.failure

    @property
    def deeds(self) -> list[tuple[str, str, str]]:
        """What was done, to whom, and in which of their sessions."""
        return [(act.deed, act.whose.subject, act.whose.session) for _, act, _ in self.done]
