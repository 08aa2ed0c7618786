"""A partner whose keys are ours: tokens of any make that the agent has the keys for."""

import json
import time
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.jws import joined
from sojourn._pb import workload_pb2 as pb
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.jose.jws import SigningKey

from harness.raw import BUNDLE_API, WORKLOAD_API, Admin, Wire

FOREIGN = ec.generate_private_key(ec.SECP256R1())
KEY = SigningKey.from_private("kid-1", FOREIGN)
SUBJECT = "spiffe://partner.org/web"


def befriend(admin: Admin) -> None:
    """Give the agent partner.org's bundle, which has our key."""
    spki = FOREIGN.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    keys = [types.JWTKey(key_id="kid-1", public_key=spki)]
    request = bundle_pb2.BatchSetFederatedBundleRequest(
        bundle=[types.Bundle(trust_domain="partner.org", jwt_authorities=keys)]
    )
    admin.unary(BUNDLE_API + "BatchSetFederatedBundle", request)


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with changes; one that is `...` is left out."""
    made = {"sub": SUBJECT, "aud": ["a"], "exp": int(time.time()) + 300, "iat": int(time.time()), **changes}
    return {name: value for name, value in made.items() if value is not ...}


def token(header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token of the partner's, with these changes, whose signature is good."""
    full = {"alg": "ES256", "kid": "kid-1", "typ": "JWT", **(header or {})}
    return joined(full, json.dumps(claims(**changes)).encode(), KEY)


def validate(wire: Wire, svid: str, audience: str = "a") -> pb.ValidateJWTSVIDResponse:
    request = pb.ValidateJWTSVIDRequest(audience=audience, svid=svid)
    return wire.unary(WORKLOAD_API + "ValidateJWTSVID", request, pb.ValidateJWTSVIDResponse)


def rejected(wire: Wire, svid: str, audience: str = "a") -> str:
    """The text with which the agent rejects a token as invalid, by its stable code."""
    with pytest.raises(grpc.RpcError) as caught:
        validate(wire, svid, audience)
    error: Any = caught.value
    assert ("INVALID_ARGUMENT", "invalid_token") == (error.code().name, dict(error.trailing_metadata())["sojourn-code"])
    return str(error.details())
