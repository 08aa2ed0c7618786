"""An issuer of people's tokens as real ones make them, signed by a library that is not ours to read them with."""

import json
import secrets
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fakes.jws import joined
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from sojourn.jose.jws import SigningKey
from sojourn.people.token_kind import ACCESS_TOKEN, ID_JAG_HEADER, ID_TOKEN
from sojourn.settings.people import PeopleConfig
from sojourn.spiffe.ids import SpiffeId

ISSUER = "https://idp.example.net/realms/corp"
CHAT = SpiffeId.parse("spiffe://example.org/agent/chat")  # a front end
DESK = SpiffeId.parse("spiffe://example.org/agent/desk")  # another
CHAT_CLIENT, DESK_CLIENT, WEB_CLIENT = "chat-app", "desk-app", "chat-web"
CHAT_URL = "https://chat.example.org"
OWN_ISSUER = "https://sojourn.example.org"  # what this agent is called as an authorization server
JAG_CLIENT = "f53f191f9311af35"  # what the issuer calls the front end there
ALICE, BOB = "8a1c7a30-5a8e-4f6e-9d0f-alice", "the-one-who-is-bob"
TABLE: dict[str, Any] = {
    "issuer": ISSUER,
    "claims": ["department", "level", "staff"],
    "presenters": [
        {
            "workloads": [str(CHAT)],
            "id_token_audiences": [CHAT_CLIENT],
            "access_token_audiences": [CHAT_URL],
            "authorized_parties": [WEB_CLIENT],
            "id_jag_clients": [JAG_CLIENT],
        },
        {"workloads": [str(DESK)], "id_token_audiences": [DESK_CLIENT]},
    ],
}
CHAT_ALONE = [{"workloads": [str(CHAT)], "id_token_audiences": [CHAT_CLIENT]}]  # as presenters


def table(**changes: Any) -> PeopleConfig:
    return PeopleConfig.model_validate({**TABLE, **changes})


# Of a check that goes well.
STEPS = [
    *("configured", "own_clock", "metadata", "keys", "kind", "signature", "audience", "presenter", "freshness"),
    "claims",
]


class PeopleIssuer:
    """Signs tokens. `at` is its clock, seconds since the epoch. A claim or header that is set to None is left out."""

    def __init__(self, at: float, *, url: str = ISSUER, algorithm: str = "ES256", kid: str = "k1") -> None:
        self.at = int(at)
        self.url = url
        self.algorithm = algorithm
        self.kid = kid
        if algorithm.startswith("ES"):
            private = ec.generate_private_key(ec.SECP256R1())
            self._key: ECKey | RSAKey = ECKey.import_key(private)
            self.signing = SigningKey.from_private(kid, private)
        else:
            self._key = RSAKey.import_key(rsa.generate_private_key(65537, 2048))

    def jwk(self, **members: Any) -> dict[str, Any]:
        return {**self._key.as_dict(private=False), "kid": self.kid, "alg": self.algorithm, "use": "sig", **members}

    def jwks(self, *others: "PeopleIssuer") -> dict[str, Any]:
        return {"keys": [each.jwk() for each in (self, *others)]}

    def common(self) -> dict[str, Any]:
        return {
            "iss": self.url,
            "sub": ALICE,
            "iat": self.at,
            "exp": self.at + 300,
            "jti": "j1",
            "sid": "s1",
            "auth_time": self.at - 60,
            "acr": "1",
            "groups": ["staff", "support"],
        }

    def id_claims(self, **changes: Any) -> dict[str, Any]:
        return _without({**self.common(), "aud": CHAT_CLIENT, "azp": CHAT_CLIENT, "typ": "ID", "nonce": "n", **changes})

    def access_claims(self, **changes: Any) -> dict[str, Any]:
        said = {"aud": [CHAT_URL, "account"], "azp": WEB_CLIENT, "typ": "Bearer", "scope": "openid"}
        return _without({**self.common(), **said, **changes})

    def id_jag_claims(self, **changes: Any) -> dict[str, Any]:
        said = {"aud": OWN_ISSUER, "client_id": JAG_CLIENT, "jti": secrets.token_hex(8), "sid": None}
        return _without({**self.common(), **said, **changes})

    def id_jag(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        return self.sign(self.id_jag_claims(**changes), {"typ": ID_JAG_HEADER, **(header or {})})

    def id_token(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        return self.sign(self.id_claims(**changes), header)

    def access_token(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        return self.sign(self.access_claims(**changes), header)

    def sign(self, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
        said = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **(header or {})}
        return jwt.encode(_without(said), claims, self._key, algorithms=[self.algorithm])

    def sign_oddly(self, claims: dict[str, Any], header: dict[str, Any]) -> str:
        """By any header, which no library would write."""
        said = _without({"alg": "ES256", "typ": "JWT", "kid": self.kid, **header})
        return joined(said, json.dumps(claims).encode(), self.signing)


def _without(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


TYPES = {"id": ID_TOKEN, "access": ACCESS_TOKEN}
