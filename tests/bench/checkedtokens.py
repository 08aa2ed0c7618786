"""Tokens checked in a service, in this process: ours by the SDK's verifier, Keycloak's by its published keys."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import perf_counter
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from beside import compared
from figures import Figure
from ground import Bench
from joserfc import jwt
from joserfc.jwk import KeySet
from keycloakpeer import SERVICE, KeycloakPeer
from sojourn import Client, TaskVerifier
from tokenground import PLACE_A, TokenGround

NOTES = (
    "a token checked in the service: Sojourn's by TaskVerifier, which hears within milliseconds that a task is over;",
    "Keycloak's by joserfc and the realm's keys, which take it until it expires: to hear more is an introspection each time",
)
Check = Callable[[str], Awaitable[object]]


def checked_tokens(bench: Bench, site: TokenGround, keycloak: KeycloakPeer) -> Iterator[Figure | str]:
    count = bench.effort.calls
    with site.client.task("docs") as task:
        ours = [[task.token(PLACE_A).token for _ in range(count)] for _ in range(bench.effort.repetitions)]
        theirs = [[_exchanged(keycloak) for _ in range(count)] for _ in range(bench.effort.repetitions)]
        rates = asyncio.run(_rates(bench, site, keycloak, {"Sojourn": ours, "Keycloak": theirs}))
    for what, found in rates.items():
        yield from compared(f"a token checked in the service, {what}", "/s", found)
    yield from NOTES


def _exchanged(keycloak: KeycloakPeer) -> str:
    token = ""
    for step in (keycloak.first(), keycloak.exchange()):
        body = step.bodies[0].replace("{token}", token).encode()
        request = Request(keycloak.keycloak.base + step.target, body)
        with urlopen(request, timeout=30) as answer:
            token = json.load(answer)["access_token"]
    return token


async def _rates(
    bench: Bench, site: TokenGround, keycloak: KeycloakPeer, tokens: dict[str, list[list[str]]]
) -> dict[str, dict[str, list[float]]]:
    by_keys = _by_keys(keycloak)
    found: dict[str, dict[str, list[float]]] = {"first seen": {}, "seen before": {}}
    async with Client(site.agent.socket) as client, TaskVerifier(client, PLACE_A) as verifier:
        checks: dict[str, Check] = {"Sojourn": lambda token: verifier.verify(token, "doc:read"), "Keycloak": by_keys}
        for name, check in checks.items():  # once, so that both have begun
            await check(tokens[name][0][0])
        for number in range(bench.effort.repetitions):
            for name, check in checks.items():
                batch = tokens[name][number]
                found["first seen"].setdefault(name, []).append(await _rate(check, batch[1:]))
                again = batch[-1:] * len(batch)
                found["seen before"].setdefault(name, []).append(await _rate(check, again))
    return found


async def _rate(check: Check, tokens: Sequence[str]) -> float:
    began = perf_counter()
    for token in tokens:
        await check(token)
    return len(tokens) / (perf_counter() - began)


def _by_keys(keycloak: KeycloakPeer) -> Check:
    """Signature, issuer, audience and time, as a service checks them that has the realm's keys."""
    path = f"{urlsplit(keycloak.realm.issuer).path}/protocol/openid-connect/certs"
    with urlopen(keycloak.keycloak.base + path, timeout=30) as answer:
        every = json.load(answer)["keys"]
    keys = KeySet.import_key_set({"keys": [key for key in every if key.get("use") == "sig"]})
    claims = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": keycloak.realm.issuer},
        aud={"essential": True, "value": SERVICE},
        exp={"essential": True},
    )

    async def check(token: str) -> object:
        decoded = jwt.decode(token, keys, algorithms=["RS256"])
        claims.validate(decoded.claims)
        return decoded

    return check
