"""introspection.py: what an issuer says of a person's token, asked as the agent itself."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.people import ALICE, CHAT, CHAT_ALONE, PeopleIssuer
from fakes.persons import refused
from harness.authserver import AuthServer, Deed, drop, huge, redirect, refuse, slow, status
from sojourn.errors import InvalidToken
from sojourn.errors.people import PersonRefused
from sojourn.people.person import Person
from sojourn.people.service import People
from sojourn.people.token_kind import ID_TOKEN
from sojourn.settings.people import PeopleConfig
from structlog.testing import capture_logs


async def mint(audience: str, *, algorithm: str = "ES256", claims: Any = None) -> str:
    return f"svid.for.{audience}.{algorithm}.{claims}"


def active(**claims: Any) -> Deed:
    """The issuer says that whatever it is asked about is active, and this of it."""
    return status(200, {"active": True, **claims})


class Asking(People):
    """People whose one issuer is asked. `active` are the texts that it has said to be active."""

    def __init__(self, server: AuthServer, clock: FakeClock, **more: Any) -> None:
        said = {
            "issuer": server.issuer,
            "presenters": CHAT_ALONE,
            "plain_http": True,
            "timeout": "3s",
            "recheck": "30s",
        }
        super().__init__({"corp": PeopleConfig.model_validate({**said, **more})}, clock, self.look, mint)
        self.active: list[tuple[str, str]] = []
        self.looked = 0
        self.ended = False
        self.on_active = lambda _issuer, _person, text, presenter, _since: self.active.append((text, presenter))

    def look(self, _person: Person) -> None:
        self.looked += 1
        if self.ended and self.looked > 1:
            raise PersonRefused("session_ended", "it has ended meanwhile")

    async def bring(self, text: str) -> Person:
        return await self.verify(text, ID_TOKEN, CHAT)


@pytest.fixture
async def people(server: AuthServer, clock: FakeClock) -> AsyncIterator[Asking]:
    made = Asking(server, clock)
    yield made
    await made.close()


async def test_active(people: Asking, server: AuthServer, idp: PeopleIssuer) -> None:
    """The issuer is asked about the very token when it is brought, by a JWT-SVID for it, without a hint of its type."""
    text = idp.id_token()
    server.always["introspect"] = active(sub=ALICE, aud=["something", "else"], sid="s1", iss=server.issuer)
    assert ALICE == (await people.bring(text)).subject
    (call,) = server.calls("introspect")
    assert {
        "token": text,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
        "client_assertion": await mint(server.issuer),
    } == call.form
    assert [(text, str(CHAT))] == people.active
    assert 1 == len(server.calls("metadata"))  # for its keys and its endpoint alike


async def test_as_another_client(server: AuthServer, idp: PeopleIssuer, clock: FakeClock) -> None:
    """The agent calls itself what the configuration says, and authenticates as that says."""
    people = Asking(server, clock, client_id="node-7", client_auth="jwt-bearer")
    server.always["introspect"] = active(sub=ALICE)
    try:
        await people.bring(idp.id_token())
    finally:
        await people.close()
    (call,) = server.calls("introspect")
    assert "node-7" == call.form["client_id"]
    assert call.form["client_assertion_type"].endswith(":jwt-bearer")


async def test_not_active(people: Asking, server: AuthServer, idp: PeopleIssuer) -> None:
    """A token that is not active is refused when it is brought, and nobody is told that it is."""
    server.always["introspect"] = status(200, {"active": False})
    with refused("not_active") as raised:
        await people.bring(idp.id_token())
    assert "tells this agent nothing" in raised.value.public
    assert [] == people.active


async def test_not_asked_about_a_bad_one(people: Asking, server: AuthServer, idp: PeopleIssuer) -> None:
    """About a token that the issuer did not make for this workload nobody is asked: no stranger has the agent ask."""
    with refused("wrong_presenter"):
        await people.bring(idp.id_token(aud="another"))
    with pytest.raises(InvalidToken):
        await people.bring(idp.id_token()[:-8] + "AAAAAAAA")
    assert [] == server.calls("introspect")


@pytest.mark.parametrize("claims", [
    {"sub": "b0b"}, {"sub": None}, {}, {"exp": 1}, {"sub": ALICE, "sid": "s2"},
    {"sub": ALICE, "iss": "https://elsewhere.example.org"},
], ids=str)  # fmt: skip
async def test_of_another(people: Asking, server: AuthServer, idp: PeopleIssuer, claims: dict[str, Any]) -> None:
    """An answer that names another person, session or issuer, or nobody, says nothing of the token."""
    server.always["introspect"] = active(**claims)
    with refused("issuer_unavailable"):
        await people.bring(idp.id_token())
    assert [] == people.active


@pytest.mark.full
@pytest.mark.parametrize("deed", [
    status(200, {}), status(200, {"active": "true"}), status(200, {"active": 1}), status(200, []), status(200, b"x"),
    status(200, b'{"active":true,"active":true}'), refuse("invalid_client", code=401), status(403), status(500), drop,
    huge, redirect("http://127.0.0.1:9/"), slow(5),
], ids=range(13))  # fmt: skip
async def test_no_answer(people: Asking, server: AuthServer, idp: PeopleIssuer, deed: Deed) -> None:
    """What is no answer is no yes: nothing begins, and the log says why, without the token."""
    server.always["introspect"] = deed
    text = idp.id_token()
    with capture_logs() as logs, refused("issuer_unavailable") as raised:
        await people.bring(text)
    assert [] == people.active
    (told,) = [each for each in logs if each["event"] == "person_not_rechecked"]
    assert "corp" == told["issuer"]
    assert text not in f"{told}{raised.value.public}{raised.value.detail}"


async def test_without_an_endpoint(people: Asking, server: AuthServer, idp: PeopleIssuer) -> None:
    """An issuer whose metadata name no endpoint for it cannot be asked, and its tokens are not taken."""
    server.metadata_changes["introspection_endpoint"] = None
    with refused("issuer_unavailable") as raised:
        await people.bring(idp.id_token())
    assert "introspection_endpoint" in raised.value.detail


async def test_ended_meanwhile(people: Asking, server: AuthServer, idp: PeopleIssuer) -> None:
    """Whose session ended while the issuer was asked is refused."""
    server.always["introspect"] = active(sub=ALICE)
    people.ended = True
    with refused("session_ended"):
        await people.bring(idp.id_token())
    assert ([], 2) == (people.active, people.looked)
