"""Signed events as an issuer makes them, and one who takes facts."""

import itertools
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from fakes.jws import joined
from sojourn.errors import SojournError
from sojourn.jose.jws import SigningKey

IDP = "https://idp.example.net/"
AUDIENCE = "https://sojourn.example.org"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
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

    def value(self, name: str = "risk_level", subject: str = WEB, source: str = IDP) -> Any:
        known = self.known.get((name, subject, source))
        return None if known is None else known.value
