"""dry_run.py: what an operator is told of a person's token, step by step, up to the one that fails."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.people import ALICE, CHAT, DESK, JAG_CLIENT, OWN_ISSUER, STEPS, WEB_CLIENT, PeopleIssuer
from harness.authserver import AuthServer, status
from sojourn.people.dry_run import PersonCheck, PersonDryRun
from sojourn.people.service import People
from sojourn.people.token_kind import ACCESS_TOKEN, ID_JAG, ID_TOKEN
from sojourn.providers.provider import Step
from sojourn.settings.people import PeopleConfig
from sojourn.spiffe.ids import SpiffeId

START = FakeClock().now().timestamp()
PRESENTERS = [
    {
        "workloads": [str(CHAT)],
        "id_token_audiences": ["chat-app"],
        "access_token_audiences": ["https://chat.example.org"],
        "authorized_parties": [WEB_CLIENT],
    }
]


async def _mint(audience: str, **_: Any) -> str:
    return f"svid.for.{audience}"


async def tried(
    text: str,
    server: AuthServer,
    *,
    name: str = "corp",
    presenter: SpiffeId = CHAT,
    token_type: str = "",
    registered: bool = True,
    **more: Any,
) -> list[Step]:
    """The steps; the token and its subject are in none of them."""
    said = {"issuer": server.issuer, "presenters": PRESENTERS, "plain_http": True, **more}
    clock = FakeClock()
    people = People({"corp": PeopleConfig.model_validate(said)}, clock, lambda _: None, _mint, own_issuer=OWN_ISSUER)
    checking = PersonDryRun(people, lambda _: registered, clock)
    steps = [step async for step in checking.steps(PersonCheck(name, text, token_type, presenter))]
    await people.close()
    told = json.dumps([(step.told, step.hint) for step in steps])
    for part in (text, *(each for each in text.split(".") if each), ALICE):
        assert part not in told
    assert all(step.outcome == "ok" for step in steps[:-1])
    return steps


def ends(steps: list[Step]) -> tuple[str, str]:
    return steps[-1].name, steps[-1].outcome


@pytest.fixture
def idp(server: AuthServer) -> PeopleIssuer:
    made = PeopleIssuer(START, url=server.issuer)
    server.jwks = made.jwks()
    return made


async def test_all_well(server: AuthServer, idp: PeopleIssuer) -> None:
    """A good token goes through all steps, and the last tells what is known of the person, and not who it is."""
    steps = await tried(idp.id_token(), server)
    assert STEPS == [step.name for step in steps]
    assert ("claims", "ok") == ends(steps)
    assert "groups: 2" in steps[-1].told


async def test_an_access_token(server: AuthServer, idp: PeopleIssuer) -> None:
    """A token that says what it is needs no word of the operator's; one that may be either is taken as it is told."""
    assert ("claims", "ok") == ends(await tried(idp.access_token(), server))
    assert ("kind", "failed") == ends(await tried(idp.access_token(), server, token_type=ID_TOKEN))
    either = idp.access_token(typ=None, scope=None)
    assert ("audience", "failed") == ends(await tried(either, server))
    assert ("claims", "ok") == ends(await tried(either, server, token_type=ACCESS_TOKEN))


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"typ": "Refresh"}, "kind"),
        ({"iss": "https://idp.example.net"}, "kind"),
        ({"aud": "other"}, "audience"),
        ({"azp": "other"}, "audience"),
        ({"aud": 7}, "audience"),
        ({"may_act": {"sub": "other"}}, "presenter"),
        ({"act": {"sub": "other"}}, "presenter"),
        ({"cnf": {"jkt": "x"}}, "presenter"),
        ({"iat": int(START) - 3600, "exp": int(START) + 60}, "freshness"),
        ({"exp": int(START) - 1}, "freshness"),
        ({"exp": None}, "freshness"),
        ({"groups": "support"}, "claims"),
        ({"sub": "spiffe://example.org/x"}, "claims"),
    ],
)
async def test_the_step_that_fails(server: AuthServer, idp: PeopleIssuer, changes: dict[str, Any], step: str) -> None:
    """What is wrong with a token is told at the step that it concerns, with what to do; those before it are well."""
    steps = await tried(idp.id_token(**changes), server)
    assert (step, "failed") == ends(steps)
    assert STEPS[: len(steps)] == [each.name for each in steps]
    assert steps[-1].hint or step == "audience"


async def test_a_key_that_nobody_has(server: AuthServer, idp: PeopleIssuer) -> None:
    """A key ID that is not among the keys, which were fetched just before for this, is said to be none."""
    steps = await tried(idp.id_token({"kid": "x"}), server)
    assert "unavailable" not in steps[-1].told
    assert "cannot be had" not in steps[-1].told


async def test_signature(server: AuthServer, idp: PeopleIssuer) -> None:
    """A token that another key signed, or by an algorithm that is not configured, fails there."""
    other = PeopleIssuer(START, url=server.issuer)
    assert ("signature", "failed") == ends(await tried(other.id_token(), server))
    assert ("signature", "failed") == ends(await tried(idp.id_token({"kid": "x"}), server))
    assert ("keys", "failed") == ends(await tried(idp.id_token(), server, algorithms=["RS256"]))


async def test_no_token(server: AuthServer, idp: PeopleIssuer) -> None:
    """What is no token fails as such."""
    assert idp
    assert ("kind", "failed") == ends(await tried("opaque-8f3c", server))


async def test_presenter(server: AuthServer, idp: PeopleIssuer) -> None:
    """A workload that no table names is told of, and one that is named and not registered as well."""
    assert ("presenter", "failed") == ends(await tried(idp.id_token(), server, presenter=DESK))
    steps = await tried(idp.id_token(), server, registered=False)
    assert "no entry" in steps[STEPS.index("presenter")].hint


async def test_no_such_issuer(server: AuthServer, idp: PeopleIssuer) -> None:
    """A name that the configuration lacks is answered with those that it has."""
    steps = await tried(idp.id_token(), server, name="other")
    assert ("configured", "failed") == ends(steps)
    assert "corp" in steps[-1].hint


@pytest.mark.parametrize(("endpoint", "step"), [("metadata", "metadata"), ("jwks", "keys")])
async def test_issuer_down(server: AuthServer, idp: PeopleIssuer, endpoint: str, step: str) -> None:
    """An issuer that does not answer as it should is told at the step for which it was asked."""
    server.always[endpoint] = status(500)
    assert (step, "failed") == ends(await tried(idp.id_token(), server))


async def test_plain_http_elsewhere(server: AuthServer, idp: PeopleIssuer) -> None:
    """Keys that are said to be where the agent does not go are told with what to set."""
    server.metadata_changes = {"jwks_uri": "https://127.0.0.1:1443/keys"}
    steps = await tried(idp.id_token(), server)
    assert ("keys", "failed") == ends(steps)
    assert "private_networks" in steps[-1].hint


async def test_keys_of_a_file(server: AuthServer, idp: PeopleIssuer, tmp_path: Path) -> None:
    """With keys of a file the issuer is not asked, and a file that is none is told."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(idp.jwks()))
    clock = FakeClock()
    table = PeopleConfig.model_validate({"issuer": server.issuer, "presenters": PRESENTERS, "jwks": str(path)})
    people = People({"corp": table}, clock, lambda _: None)
    checking = PersonDryRun(people, lambda _: True, clock)
    asked = PersonCheck("corp", idp.id_token(), "", CHAT)
    steps = [step async for step in checking.steps(asked)]
    assert ["skipped"] == [step.outcome for step in steps if step.outcome != "ok"]
    assert [] == server.calls("metadata")
    path.write_text("{}")
    steps = [step async for step in checking.steps(asked)]
    assert ("keys", "failed") == ends(steps)


async def test_recheck(server: AuthServer, idp: PeopleIssuer) -> None:
    """Where the issuer is asked whether tokens are active, it is asked last; what it says, or why it cannot be had, is
    told.
    """
    server.script("introspect", status(200, {"active": True, "sub": ALICE}), status(200, {"active": False}))
    server.script("introspect", status(401, {"error": "invalid_client"}))
    steps = await tried(idp.id_token(), server, recheck="30s")
    assert [*STEPS, "recheck"] == [each.name for each in steps]
    assert "ok" == steps[-1].outcome
    dead = await tried(idp.id_token(), server, recheck="30s")
    assert ("recheck", "failed") == ends(dead)
    assert "for others" in dead[-1].hint
    nobody = await tried(idp.id_token(), server, recheck="30s")
    assert ("recheck", "failed") == ends(nobody)
    assert "invalid_client" in nobody[-1].told


OPAQUE = "q3Jv0n4d7f1H8sK2mZ5xR9tYbWcE6uLpAoGiVhNjQwM"
SAID = {
    "active": True,
    "sub": ALICE,
    "aud": "https://chat.example.org",
    "client_id": WEB_CLIENT,
    "token_type": "Bearer",
    "iat": START,
    "exp": START + 300,
}


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({}, ("claims", "ok")),
        ({"active": False}, ("recheck", "failed")),
        ({"active": None}, ("recheck", "failed")),
        ({"token_type": None}, ("kind", "failed")),
        ({"typ": "Refresh"}, ("kind", "failed")),
        ({"aud": "https://another.example.org"}, ("audience", "failed")),
        ({"act": {"sub": "x"}}, ("presenter", "failed")),
        ({"exp": START}, ("freshness", "failed")),
        ({"sub": 7}, ("claims", "failed")),
        ({"iss": "https://another.example.org"}, ("claims", "failed")),
    ],
    ids=str,
)
async def test_opaque(server: AuthServer, idp: PeopleIssuer, changes: dict[str, Any], step: tuple[str, str]) -> None:
    """An access token that is no JWT is asked about, and goes through the steps by what its issuer says of it."""
    server.script("introspect", status(200, {**SAID, **changes}))
    steps = await tried(OPAQUE, server, recheck="30s", opaque=True)
    assert step == ends(steps)
    if not changes:
        assert ["kind", "audience", "presenter", "freshness", "claims"] == [each.name for each in steps[4:]]


async def test_opaque_as_another_kind(server: AuthServer, idp: PeopleIssuer) -> None:
    """Nobody is asked about one that is said to be another kind, or where none are taken."""
    assert ("kind", "failed") == ends(await tried(OPAQUE, server, recheck="30s", opaque=True, token_type=ID_TOKEN))
    assert ("kind", "failed") == ends(await tried(OPAQUE, server, recheck="30s"))
    assert [] == server.calls("introspect")


JAGS = [{**PRESENTERS[0], "id_jag_clients": [JAG_CLIENT]}]


async def test_an_id_jag(server: AuthServer, idp: PeopleIssuer) -> None:
    """An ID-JAG goes through the same steps, and the last tells what may be asked by it at the most. It is not used up."""
    text = idp.id_jag(resource="https://shop.example", scope="a b", cnf={"jkt": "A" * 43})
    for token_type in ("", ID_JAG):
        steps = await tried(text, server, presenters=JAGS, token_type=token_type)
        assert (STEPS, ("claims", "ok")) == ([step.name for step in steps], ends(steps))
        assert "ID-JAG" in steps[STEPS.index("kind")].told
        assert 'resource: "https://shop.example"; scope: "a", "b"; key: a proof' in steps[-1].told
    assert "bounds nothing" in (await tried(idp.id_jag(), server, presenters=JAGS))[-1].told
    assert "scope: none" in (await tried(idp.id_jag(scope=""), server, presenters=JAGS))[-1].told


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"aud": "https://other.example"}, "audience"),
        ({"aud": [OWN_ISSUER, "https://other.example"]}, "audience"),
        ({"client_id": "other"}, "presenter"),
        ({"act": {"sub": "x"}}, "presenter"),
        ({"exp": int(START) + 301}, "freshness"),
        ({"jti": None}, "claims"),
        ({"cnf": {"x5t#S256": "A" * 43}}, "claims"),
        ({"scope": 7}, "claims"),
        ({"nonce": "n"}, "kind"),
    ],
    ids=str,
)
async def test_an_id_jag_that_fails(server: AuthServer, idp: PeopleIssuer, changes: dict[str, Any], step: str) -> None:
    """What is wrong with an ID-JAG is told at the step that it concerns."""
    assert (step, "failed") == ends(await tried(idp.id_jag(**changes), server, presenters=JAGS))


async def test_as_another_kind(server: AuthServer, idp: PeopleIssuer) -> None:
    """An ID-JAG is no ID token, and no ID token is one; a workload whose table has no id_jag_clients brings none."""
    assert ("kind", "failed") == ends(await tried(idp.id_jag(), server, token_type=ID_TOKEN, presenters=JAGS))
    assert ("kind", "failed") == ends(await tried(idp.id_token(), server, token_type=ID_JAG, presenters=JAGS))
    assert ("presenter", "failed") == ends(await tried(idp.id_jag(), server))
