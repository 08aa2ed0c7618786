"""Forged and broken tokens before a guard of a service (F.8 19, C4 41 to 48)."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.boundservice import KEY, THIEFS, Service, refused, serving
from fakes.jws import encoded, joined
from fakes.task_feed import AUDIENCE, signing_key
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.limits import TOKEN_MAX_BYTES
from sojourn.sdk.guard.challenges import Refusal
from sojourn.tasktoken.tokens import TaskToken

pytestmark = pytest.mark.full


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as made:
        yield made


# --- F.8 19, C4 41 to 48: forged and broken tokens ------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "nOnE", "", None, "HS256", "RS256", "ES384", "EdDSA", ["ES256"], {}]
)
async def test_algorithms(service: Service, algorithm: Any) -> None:
    """A token by another algorithm than its key's is refused, signed or not."""
    good = joined({"alg": algorithm, "typ": "at+jwt", "kid": "k1"}, json.dumps(service.claims()).encode(), KEY)
    for token in (good, good.rpartition(".")[0] + ".", good.rpartition(".")[0] + ".AA"):
        refused(await service.bearer(token), 401, "invalid_token")


async def test_the_public_key_as_a_secret(service: Service) -> None:
    """A MAC keyed with the agent's public key, which everybody has, is no signature."""
    public = KEY.public._key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (public, json.dumps(dict(KEY.public.jwk)).encode()):
        header = {"alg": "HS256", "typ": "at+jwt", "kid": "k1"}
        text = ".".join(encoded(json.dumps(each).encode()) for each in (header, service.claims()))
        mac = HMAC(secret, hashes.SHA256())
        mac.update(text.encode())
        refused(await service.bearer(f"{text}.{encoded(mac.finalize())}"), 401, "invalid_token")


@pytest.mark.parametrize(
    "kid", [None, "", "k2", "K1", "k1 ", "k" * 5_000, "../k1", "k1' OR '1'='1", "k1\0", 1, ["k1"], {}]
)
async def test_key_ids(service: Service, kid: Any) -> None:
    """A key is found by its name, byte for byte, or it is not found."""
    header = {"alg": "ES256", "typ": "at+jwt", **({} if kid is None else {"kid": kid})}
    refused(await service.bearer(joined(header, json.dumps(service.claims()).encode(), KEY)), 401, "invalid_token")


@pytest.mark.parametrize("name", ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "cty", "x5t", "enc", "x-unknown"])
async def test_headers(service: Service, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that would name a key, or a rule, is refused, and nothing is fetched."""
    value: Any = {"jwk": dict(THIEFS.public.jwk), "crit": ["b64"], "b64": False, "x5c": ["AA"]}.get(
        name, "https://a.b/c"
    )
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1", name: value}
    token = joined(header, json.dumps(service.claims()).encode(), THIEFS if name == "jwk" else KEY)

    def fail(*_: Any) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("socket.socket.connect", fail)
    refused(await service.bearer(token), 401, "invalid_token")


@pytest.mark.parametrize(
    "audience",
    [
        None, "", [], [AUDIENCE, "https://other.example.org"], [AUDIENCE, AUDIENCE], AUDIENCE + "/", AUDIENCE.upper(),
        AUDIENCE[:-1], AUDIENCE + "x", f" {AUDIENCE}", AUDIENCE.replace("e", "\u0435"), {"a": AUDIENCE}, True, 1,
    ],
    ids=repr,
)  # fmt: skip
async def test_audiences(service: Service, audience: Any) -> None:
    """A token is for this service alone, byte for byte."""
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
    token = joined(header, json.dumps(service.claims(aud=audience)).encode(), KEY)
    refused(await service.bearer(token), 401, "invalid_token")


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", ["1", True, None, [], {}, -1, 10**400, 1e300, "NaN"], ids=repr)
async def test_times_of_wrong_types(service: Service, name: str, value: Any) -> None:
    """A time that is none is refused, and nothing else happens."""
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
    claims = {**service.claims(), name: value}
    refused(await service.bearer(joined(header, json.dumps(claims).encode(), KEY)), 401, "invalid_token")
    for literal in ("NaN", "Infinity", "1e400"):
        payload = json.dumps({**claims, name: "@"}).replace('"@"', literal).encode()
        refused(await service.bearer(joined(header, payload, KEY)), 401, "invalid_token")


async def test_times(service: Service) -> None:
    """A token that has expired, is of the future, or says no end is refused."""
    now = service.clock.now().timestamp()
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
    for changes in ({"exp": now}, {"exp": now - 1}, {"nbf": now + 60}, {"iat": now + 60}, {"exp": None}, {"iat": None}):
        token = joined(header, json.dumps(service.claims(**changes)).encode(), KEY)
        refused(await service.bearer(token), 401, "invalid_token")


def _broken(good: str) -> list[str]:
    header, payload, signature = good.split(".")
    doubled = base64.urlsafe_b64decode(payload + "==").replace(b'{"iss"', b'{"iss":"https://evil.example.org","iss"', 1)
    deep = b'{"a":' * 20_000 + b"1" + b"}" * 20_000
    last = signature[-1]
    other_tail = signature[:-1] + chr(ord(last) + 1)  # the same bytes with other bits behind them, or other bytes
    return [
        f"{header}.{encoded(doubled)}.{signature}",
        f"{header}.{encoded(deep)[: TOKEN_MAX_BYTES - 500]}.{signature}",
        f"{header}.{payload}=.{signature}",
        f"{header}.{payload}.{signature}=",
        f"{header}.{payload}.{other_tail}",
        f"{header}.{payload}..{signature}",
        f"{header}.{payload}.{signature}.x",
        f"{header}.{payload}",
        "." * 5,
        "." * 1_000_000,
        "a" * (TOKEN_MAX_BYTES + 1),
        f"{header}.{payload}.{signature}\t",
        f"{header}.\u0430{payload}.{signature}",
        f"{header}.{payload}.+/{signature}",
    ]


async def test_broken_texts(service: Service) -> None:
    """A text that is not exactly a token is none: and nobody pays for it with more than a glance."""
    for number, text in enumerate(_broken(service.token())):
        answer = await service.bearer(text)
        assert isinstance(answer, Refusal), number
        assert (401, "invalid_token") == (answer.status, answer.error), number


async def test_claims_that_are_huge_or_deep(service: Service) -> None:
    """Claims that are nested deeply or of many members break nothing, and change nothing."""
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
    nested: Any = 1
    for _ in range(200):
        nested = [nested]
    for changes in (
        {"authorization_details": [*service.claims()["authorization_details"], {"type": "other"}] * 30},
        {"authorization_details": nested},
        {"task": nested},
        {"act": nested},
        {"sub": "spiffe://example.org/" + "a" * 5_000},
    ):
        token = joined(header, json.dumps(service.claims(**changes)).encode(), KEY)
        refused(await service.bearer(token), 401, "invalid_token")


async def test_a_key_that_is_no_longer_published(service: Service) -> None:
    """A token of a key that the agent has withdrawn is refused from then on, also one that was good before."""
    token = service.token()
    assert isinstance(await service.bearer(token), TaskToken)
    following = signing_key("k2")
    jwks = json.dumps({"keys": [dict(following.public.jwk)]}).encode()
    service.agent.push("WatchTasks", pb.TaskFeed(delta=pb.Delta(), epoch=1, keys=jwks))
    async with asyncio.timeout(20):
        while "k1" in service.verifier.feed.keys:
            await asyncio.sleep(0.01)
    refused(await service.bearer(token), 401, "invalid_token", "unknown key")
    assert isinstance(await service.bearer(service.token(key=following)), TaskToken)


async def test_a_key_of_the_same_name(service: Service) -> None:
    """A token that another key of the same name has signed is refused: also if one that is alike was good before."""
    token = service.token()
    assert isinstance(await service.bearer(token), TaskToken)
    refused(await service.bearer(service.token(key=signing_key("k1"))), 401, "invalid_token", "signature")
    head, _, signature = token.rpartition(".")
    forged = f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    refused(await service.bearer(forged), 401, "invalid_token", "signature")
