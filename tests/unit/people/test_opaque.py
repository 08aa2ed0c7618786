"""opaque.py: access tokens that say nothing themselves are taken by what their issuer says of them, by the same rules."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.people import ALICE, CHAT, CHAT_URL, DESK, TABLE, WEB_CLIENT, table
from fakes.persons import refused
from harness.authserver import AuthServer, Deed, drop, refuse, slow, status
from pydantic import TypeAdapter, ValidationError
from sojourn.errors import InvalidToken, LimitExceeded
from sojourn.errors.people import PersonRefused
from sojourn.limits import OPAQUE_TOKENS_PER_SECOND
from sojourn.people.opaque import is_opaque
from sojourn.people.person import Person
from sojourn.people.service import People
from sojourn.people.token_kind import ACCESS_TOKEN, ID_TOKEN
from sojourn.settings.people import People as Tables
from sojourn.settings.people import PeopleConfig
from structlog.testing import capture_logs

AT = int(FakeClock().now().timestamp())
TEXT = "q3Jv0n4d7f1H8sK2mZ5xR9tYbWcE6uLpAoGiVhNjQwM"
SAID = {
    "active": True,
    "sub": ALICE,
    "aud": CHAT_URL,
    "client_id": WEB_CLIENT,
    "iat": AT,
    "exp": AT + 300,
    "token_type": "Bearer",
    "scope": "openid orders.read",
}
OPAQUE = {"recheck": "30s", "opaque": True}


async def mint(audience: str, *, algorithm: str = "ES256", claims: Any = None) -> str:
    return f"svid.for.{audience}.{algorithm}.{claims}"


async def own_mint(audience: str, **options: Any) -> str:
    return f"own.{await mint(audience, **options)}"


class Asking(People):
    """People whose one issuer is asked. `active` are the texts that it has said to be active."""

    def __init__(self, server: AuthServer, clock: FakeClock, **more: Any) -> None:
        said = {**TABLE, "issuer": server.issuer, "plain_http": True, "timeout": "3s", **OPAQUE, **more}
        tables = {"corp": PeopleConfig.model_validate(said)}
        super().__init__(tables, clock, self.look, mint, own_mint=own_mint)
        self.active: list[tuple[str, str]] = []
        self.ended = False
        self.on_active = lambda _issuer, _person, text, presenter, _since: self.active.append((text, presenter))

    def look(self, _person: Person) -> None:
        if self.ended:
            raise PersonRefused("session_ended", "it has ended")

    async def bring(self, text: str = TEXT, kind: str = ACCESS_TOKEN, who: Any = CHAT) -> Person:
        return await self.verify(text, kind, who)


def says(**changes: Any) -> Deed:
    """The issuer's answer, with changes; what is changed to None is left out."""
    return status(200, {name: value for name, value in {**SAID, **changes}.items() if value is not None})


@pytest.fixture
async def people(server: AuthServer, clock: FakeClock) -> AsyncIterator[Asking]:
    made = Asking(server, clock)
    server.always["introspect"] = says()
    yield made
    await made.close()


async def test_whose_it_is(people: Asking, server: AuthServer) -> None:
    """The person is who the issuer says, as of a JWT; the token is asked about as the agent, and watched from then on."""
    server.always["introspect"] = says(iss=server.issuer, sid="s1", groups=["support"], token_type="bearer")
    person = await people.bring()
    assert (ALICE, "corp", server.issuer, "s1", ("support",), True) == (
        person.subject,
        person.issuer,
        person.url,
        person.session,
        person.groups,
        person.rechecked,
    )
    assert (AT, AT + 300, AT + 300) == (person.issued_at, person.expires_at, person.ends_at)
    (call,) = server.calls("introspect")
    assert (TEXT, await mint(server.issuer)) == (call.form["token"], call.form["client_assertion"])
    assert [(TEXT, str(CHAT))] == people.active
    assert [] == server.calls("jwks")


async def test_asked_each_time(people: Asking, server: AuthServer) -> None:
    """Each that is brought is asked about: what the issuer has ended in between is refused."""
    await people.bring()
    server.always["introspect"] = status(200, {"active": False})
    with refused("not_active"):
        await people.bring()
    assert 2 == len(server.calls("introspect"))


async def test_by_the_agents_own_name(server: AuthServer, clock: FakeClock) -> None:
    """To an issuer that wants its client's name as `iss`, too, the agent shows a JWT-SVID that has its own there."""
    people = Asking(server, clock, client_auth="private_key_jwt")
    server.always["introspect"] = says()
    try:
        await people.bring()
    finally:
        await people.close()
    (call,) = server.calls("introspect")
    assert await own_mint(server.issuer) == call.form["client_assertion"]
    assert call.form["client_assertion_type"].endswith(":jwt-bearer")


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("unknown_issuer", {"iss": "https://elsewhere.example.org"}),
        ("unknown_issuer", {"iss": ["x"]}),
        ("wrong_presenter", {"aud": "https://another.example.org"}),
        ("wrong_presenter", {"aud": None}),
        ("wrong_presenter", {"client_id": "another-web"}),
        ("wrong_presenter", {"client_id": None}),
        ("wrong_presenter", {"azp": "another-web"}),
        ("wrong_presenter", {"may_act": {"sub": "another"}}),
        ("has_actor", {"act": {"sub": "another"}}),
        ("bound_elsewhere", {"cnf": {"jkt": "x"}}),
        ("bound_elsewhere", {"cnf": {}}),
        ("bound_elsewhere", {"token_type": "DPoP"}),
        ("wrong_kind", {"token_type": None}),
        ("wrong_kind", {"token_type": "N_A"}),
        ("wrong_kind", {"token_type": ["Bearer"]}),
        ("wrong_kind", {"typ": "Refresh"}),
        ("wrong_kind", {"typ": "ID"}),
        ("wrong_kind", {"token_use": "refresh_token"}),
        ("wrong_kind", {"events": {}}),
        ("wrong_kind", {"sub": WEB_CLIENT}),
        ("too_old", {"iat": AT - 601}),
        ("too_old", {"exp": AT + 3_601}),
        ("not_in_scope", {"authorization_details": [{"type": "payment"}]}),
        ("malformed", {"sub": None}),
        ("malformed", {"sub": 7}),
        ("malformed", {"exp": None}),
        ("malformed", {"iat": None}),
        ("malformed", {"exp": "soon"}),
        ("malformed", {"groups": {"support": True}}),
        ("expired", {"exp": AT}),
        ("not_yet_valid", {"nbf": AT + 120}),
    ],
    ids=str,
)
async def test_refused(people: Asking, server: AuthServer, code: str, changes: dict[str, Any]) -> None:
    """What is missing, too much, too old, for another or of another kind in the answer is refused as in a JWT; a refresh
    token, of which no type is said, is none.
    """
    server.always["introspect"] = says(**changes)
    with pytest.raises((PersonRefused, InvalidToken)) as caught:
        await people.bring()
    error = caught.value
    assert code == (error.reason_code if isinstance(error, InvalidToken) else error.code)
    assert [] == people.active
    assert TEXT not in error.public


async def test_scopes(server: AuthServer, clock: FakeClock) -> None:
    """Its scope lets be done what the table maps it to, and no more."""
    people = Asking(server, clock, scopes={"orders.read": ["order:read"]})
    try:
        for scope, may in (("openid orders.read", ("order:read",)), ("openid", ()), (None, ())):
            server.always["introspect"] = says(scope=scope)
            assert may == (await people.bring()).may
    finally:
        await people.close()


async def test_ended(people: Asking) -> None:
    """Who has logged out begins nothing by it."""
    people.ended = True
    with refused("session_ended"):
        await people.bring()
    assert [] == people.active


@pytest.mark.full
@pytest.mark.parametrize(
    "deed", [status(500), status(401), refuse("invalid_client"), drop, slow(5), status(200, {}), status(200, b"{"),
             status(200, {"active": "true"}), status(200, b'{"active": true, "active": true}')],
)  # fmt: skip
async def test_no_answer(people: Asking, server: AuthServer, deed: Deed) -> None:
    """An issuer that does not say is believed nothing, and nothing of the token is in the log."""
    server.always["introspect"] = deed
    with capture_logs() as lines, refused("issuer_unavailable"):
        await people.bring()
    assert TEXT not in str(lines)


async def test_whose_may_be_asked_about(people: Asking, server: AuthServer) -> None:
    """A workload that receives no access tokens has nobody asked; nor is what is said to be an ID token a question."""
    with refused("wrong_presenter"):
        await people.bring(who=DESK)
    with pytest.raises(InvalidToken):
        await people.bring(kind=ID_TOKEN)
    assert [] == server.calls("introspect")


async def test_made_up_ones(people: Asking, server: AuthServer) -> None:
    """A workload that makes up tokens has the issuer asked so often a second, and no more."""
    server.always["introspect"] = status(200, {"active": False})
    for number in range(OPAQUE_TOKENS_PER_SECOND):
        with refused("not_active"):
            await people.bring(f"{TEXT}{number}")
    with pytest.raises(LimitExceeded):
        await people.bring(TEXT)
    assert OPAQUE_TOKENS_PER_SECOND == len(server.calls("introspect"))


async def test_where_they_are_not_taken(server: AuthServer, clock: FakeClock) -> None:
    """Without `opaque` nobody is asked about what is no JWT: it is malformed."""
    people = Asking(server, clock, opaque=False)
    try:
        with pytest.raises(InvalidToken) as caught:
            await people.bring()
        assert "malformed" == caught.value.reason_code
        assert not people.may_be_opaque(TEXT)
    finally:
        await people.close()
    assert [] == server.calls("introspect")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (TEXT, True),
        ("a" * 22, True),
        ("ya29.a0AfB_byC-x~+/9876543==", True),
        ("a" * 4_096, True),
        ("", False),
        ("a" * 21, False),
        ("a" * 4_097, False),
        ("a.b.c" + "d" * 20, False),
        ("a" * 10 + ".b.c.d.e" + "a" * 10, False),
        (TEXT + "\n", False),
        (TEXT + " ", False),
        ("=" * 22, False),
        ("ä" * 22, False),
    ],
)
def test_which_text_may_be_one(text: str, fits: bool) -> None:
    """It has the characters of a bearer token, cannot be guessed, and looks like no JWT."""
    assert fits == is_opaque(text)


class TestConfiguration:
    @pytest.mark.parametrize("changes", [{"opaque": True}, {**OPAQUE, "presenters": [TABLE["presenters"][1]]}])
    def test_mistakes(self, changes: dict[str, Any]) -> None:
        """Without an issuer to ask, or a workload that receives access tokens, it cannot be meant."""
        with pytest.raises(ValidationError, match="opaque needs recheck"):
            table(**changes)

    def test_one_issuer_to_ask(self) -> None:
        """No workload may bring opaque tokens of two issuers: one would be shown the other's. Where the second takes
        none that are opaque, or has another workload, it is in order.
        """
        tables = TypeAdapter(Tables)
        one = {**TABLE, **OPAQUE, "prefix": "a|"}
        other = {**one, "issuer": "https://b.example.net", "prefix": "b|"}
        with pytest.raises(ValidationError, match="may bring opaque tokens of 'a' and of 'b'"):
            tables.validate_python({"a": one, "b": other})
        apart = [{**TABLE["presenters"][0], "workloads": [str(DESK)]}]
        for good in ({**other, "opaque": False}, {**other, "presenters": apart}):
            assert {"a", "b"} == set(tables.validate_python({"a": one, "b": good}))
