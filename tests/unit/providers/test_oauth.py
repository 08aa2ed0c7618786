"""What the OAuth providers ask for, on a stand-in server: parameters, client authentication, and what a task type says."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fakes.mints import SPIFFE_ID, FakeMint, wanted
from harness.authserver import AuthServer, changed, drop, held, refuse, status
from sojourn.errors import InvalidInput
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.loader import load_providers
from sojourn.providers.provider import ACCESS_TOKEN, Ended, Obtained, Provider, Step

URN = "urn:ietf:params:oauth:"
EXCHANGE = f"{URN}grant-type:token-exchange"
ACTIONS = ("orders:list", "orders:read")
SCOPES = {"orders:read": ["read"], "orders:list": ["read", "list"]}


@pytest.fixture
def server() -> Iterator[AuthServer]:
    with AuthServer(path="/realms/x") as server:
        yield server


def provider(server: AuthServer, kind: str = "oidc", **more: Any) -> Provider:
    table = {"kind": kind, "issuer": server.issuer, "plain_http": True, **more}
    return load_providers({"corp": table})["corp"]


async def obtain(made: Provider, ask: object = None, *actions: str, mint: FakeMint | None = None) -> Obtained:
    read = made.read_ask({} if ask is None else ask, ACTIONS)
    try:
        return await made.exchange(wanted(read, *(actions or ACTIONS)), mint or FakeMint())
    finally:
        await made.close()


def ended(obtained: Obtained) -> Ended:
    return Ended("task_1", SPIFFE_ID, "r", None, obtained.handle, obtained.public, obtained.expires_at)


async def checked(made: Provider, ask: object = None) -> list[Step]:
    read = made.read_ask({} if ask is None else ask, ACTIONS)
    steps = [step async for step in made.check(wanted(read, *ACTIONS), FakeMint())]
    await made.close()
    return steps


class TestOidc:
    async def test_asks(self, server: AuthServer) -> None:
        """The JWT-SVID is the subject token, for the issuer; the task's resource is asked for if nothing else is."""
        await obtain(provider(server))
        (call,) = server.calls("token")
        assert {"grant_type", "subject_token", "subject_token_type", "resource"} == set(call.form)
        assert (EXCHANGE, f"{URN}token-type:jwt") == (call.form["grant_type"], call.form["subject_token_type"])
        assert "https://orders.example.org" == call.form["resource"]
        subject = call.claims["subject_token"]
        assert (server.issuer, str(SPIFFE_ID)) == (subject["aud"], subject["sub"])

    async def test_asks_as_told(self, server: AuthServer) -> None:
        """Audience, scope of the actions asked for, and token type are those of the task type."""
        ask = {"audience": "orders", "scopes": SCOPES, "requested_token_type": "access_token"}
        await obtain(provider(server), ask, "orders:read")
        (call,) = server.calls("token")
        assert ("orders", "read", ACCESS_TOKEN) == tuple(
            call.form[name] for name in ("audience", "scope", "requested_token_type")
        )
        assert "resource" not in call.form

    @pytest.mark.parametrize("auth", ["jwt-bearer", "jwt-spiffe"])
    async def test_client(self, server: AuthServer, auth: str) -> None:
        """A client that shows who it is does so by a JWT-SVID of its own, for the issuer or as the table says."""
        mint = FakeMint()
        await obtain(provider(server, client_auth=auth, client_id="c", assertion_audience="aud:x"), mint=mint)
        (call,) = server.calls("token")
        assert (f"{URN}client-assertion-type:{auth}", "c") == (
            call.form["client_assertion_type"],
            call.form["client_id"],
        )
        assert "aud:x" == call.claims["client_assertion"]["aud"]
        assert 2 == len(set(mint.minted))

    async def test_without_metadata(self, server: AuthServer) -> None:
        """With the endpoint set, metadata are not asked for."""
        await obtain(provider(server, token_endpoint=server.token_endpoint))
        assert [] == server.calls("metadata")

    async def test_revoked(self, server: AuthServer) -> None:
        """What was obtained is revoked, with a refresh token that came along."""
        server.script("token", changed(refresh_token="refresh-1"))
        made = provider(server)
        obtained = await obtain(made)
        await made.take_back(ended(obtained), FakeMint())
        await made.close()
        assert not server.active(obtained.token)
        assert ["refresh-1", obtained.token] == [call.form["token"] for call in server.calls("revoke")]

    async def test_of_another_issuer(self, server: AuthServer) -> None:
        """A token of another issuer, which the provider was before, is not shown to this one, nor said to be revoked."""
        made = provider(server)
        obtained = await obtain(made)
        before = replace(ended(obtained), public={"issuer": "https://before.example.org"})
        with pytest.raises(ProviderRefused, match=r"https://before\.example\.org gave it"):
            await made.take_back(before, FakeMint())
        await made.close()
        assert [] == server.calls("revoke")

    async def test_lost(self, server: AuthServer) -> None:
        """Of a token whose answer was lost nothing can be taken back, and that is said."""
        made = provider(server)
        server.script("token", drop)
        with pytest.raises(ProviderUnavailable) as lost:
            await obtain(made)
        assert lost.value.sent
        with pytest.raises(ProviderRefused, match="lost"):
            await made.take_back(Ended("t", SPIFFE_ID, "r", None, {}, {}, wanted(None).ends), FakeMint())

    async def test_cannot_revoke(self, server: AuthServer) -> None:
        """A server without revocation endpoint never will; one that does not know the client now may, later."""
        made = provider(server)
        obtained = await obtain(made)
        for deed, error in (
            (refuse("unsupported_token_type"), ProviderRefused),
            (refuse("invalid_client", code=401), ProviderUnavailable),
            (status(503), ProviderUnavailable),
        ):
            server.script("revoke", deed)
            with pytest.raises(error):
                await made.take_back(ended(obtained), FakeMint())
        await made.close()
        server.metadata_changes = {"revocation_endpoint": None}
        other = provider(server)
        with pytest.raises(ProviderRefused, match="no revocation endpoint"):
            await other.take_back(ended(obtained), FakeMint())
        await other.close()

    @pytest.mark.parametrize(
        ("deeds", "error"),
        [
            ([refuse("unsupported_token_type")], ProviderRefused),
            ([status(503)], ProviderUnavailable),
            ([status(503), refuse("unsupported_token_type")], ProviderUnavailable),
        ],
    )
    async def test_each_is_revoked(self, server: AuthServer, deeds: list[Any], error: type[Exception]) -> None:
        """A refresh token that the server does not revoke leaves no access token behind; what may yet come is told."""
        server.script("token", changed(refresh_token="refresh"))
        made = provider(server)
        obtained = await obtain(made)
        server.script("revoke", *deeds)
        with pytest.raises(error):
            await made.take_back(ended(obtained), FakeMint())
        assert ["refresh", obtained.token] == [call.form["token"] for call in server.calls("revoke")]
        await made.close()

    @pytest.mark.parametrize(
        "members", [{"scope": "read admin"}, {"expires_in": None}, {"token_type": "DPoP"}, {"expires_in": "300"}]
    )
    async def test_unfit_is_revoked(self, server: AuthServer, members: dict[str, object]) -> None:
        """A token that is more than was asked for, or not to be used, is revoked at once and handed to nobody."""
        server.script("token", changed(**members))
        with pytest.raises(ProviderRefused):
            await obtain(provider(server), {"scopes": SCOPES}, "orders:read")
        (token,) = server.given()
        assert not server.active(token)

    async def test_tolerated_scope(self, server: AuthServer) -> None:
        """A scope that the server adds unasked is taken where the task type tolerates it."""
        server.scope = "read profile"
        obtained = await obtain(provider(server), {"scopes": SCOPES, "tolerated_scopes": ["profile"]}, "orders:read")
        assert "read profile" == obtained.public["scope"]


class TestBearer:
    async def test_grant(self, server: AuthServer) -> None:
        """The grant that is sent is the agent's JWT-SVID."""
        await obtain(provider(server, "bearer"), {"scopes": SCOPES}, "orders:list")
        (call,) = server.calls("token")
        assert {"grant_type", "assertion", "scope"} == set(call.form)
        assert (f"{URN}grant-type:jwt-bearer", "list read") == (call.form["grant_type"], call.form["scope"])
        assert server.issuer == call.claims["assertion"]["aud"]

    async def test_client_credentials(self, server: AuthServer) -> None:
        """The JWT-SVID says who the client is, and nothing else is shown."""
        made = provider(server, "bearer", grant="client_credentials", client_auth="jwt-bearer", client_id="c")
        await obtain(made, {"audience": "orders"})
        (call,) = server.calls("token")
        assert {"grant_type", "client_id", "client_assertion", "client_assertion_type", "audience"} == set(call.form)


class TestKeycloak:
    async def test_first_is_revoked_if_the_second_fails(self, server: AuthServer) -> None:
        """If there is no token for the audience, the one that was to be exchanged for it is not left behind."""
        server.script("token", lambda _: True, refuse("invalid_client", "Audience not found"))
        with pytest.raises(ProviderRefused) as refused:
            await obtain(provider(server, "keycloak"), {"audience": "orders"})
        assert "invalid_target" == refused.value.said
        (first,) = server.given()
        assert not server.active(first)

    async def test_first_is_revoked_if_the_call_is_given_up(self, server: AuthServer) -> None:
        """The token that was to be exchanged for another is not left behind if nobody waits any more."""
        until = threading.Event()
        server.script("token", lambda _: True, held(until))
        made = provider(server, "keycloak")
        asking = asyncio.create_task(made.exchange(wanted(made.read_ask({"audience": "orders"}, ())), FakeMint()))
        while len(server.calls("token")) < 2:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await made.close()
        assert not server.active(server.given()[0])
        until.set()

    async def test_both_are_revoked(self, server: AuthServer) -> None:
        """The end takes both tokens back: the one that was exchanged, and the one it was made of."""
        made = provider(server, "keycloak")
        obtained = await obtain(made, {"audience": "orders"})
        assert [True, True] == [server.active(each) for each in server.given()]
        await made.take_back(ended(obtained), FakeMint())
        await made.close()
        assert [False, False] == [server.active(each) for each in server.given()]


class TestIdJag:
    async def test_two_servers(self, server: AuthServer) -> None:
        """The JWT-SVID goes to the identity provider, its assertion to the resource's server, and nothing else there."""
        with AuthServer(path="/idp") as idp:
            made = provider(server, "id-jag", idp_issuer=idp.issuer)
            obtained = await obtain(made, {"scopes": SCOPES}, "orders:read")
            (first,), (second,) = idp.calls("token"), server.calls("token")
            assert (f"{URN}token-type:id-jag", server.issuer) == (
                first.form["requested_token_type"],
                first.form["audience"],
            )
            assert idp.issuer == first.claims["subject_token"]["aud"]
            assert [second.form["assertion"]] == idp.given()
            assert {"grant_type", "assertion", "scope"} == set(second.form)
            assert [obtained.token] == server.given()

    @pytest.mark.parametrize(
        "assertion",
        [
            "eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJAIn0.c2ln",
            "eyJ0eXAiOiJvYXV0aC1pZC1qYWcrand0In0.eyJhdWQiOiJodHRwczovL2V2aWwuZXhhbXBsZSJ9.c2ln",
            "opaque",
        ],
    )
    async def test_other_assertions(self, server: AuthServer, assertion: str) -> None:
        """An assertion of another type, or for another server, goes nowhere."""
        with AuthServer() as idp:
            idp.script("token", changed(access_token=assertion))
            with pytest.raises(ProviderRefused, match="assertion"):
                await obtain(provider(server, "id-jag", idp_issuer=idp.issuer))
        assert [] == server.calls("token")


class TestAsk:
    @pytest.mark.parametrize(
        ("ask", "key"),
        [
            ({"audiense": "x"}, "audiense"),
            ({"audience": ""}, "audience"),
            ({"audience": "a\nb"}, "audience"),
            ({"resource": "orders"}, "resource"),
            ({"resource": "https://a/#b"}, "resource"),
            ({"scopes": {"orders:read": ["a"]}}, "orders:list"),
            ({"scopes": {**SCOPES, "orders:delete": ["a"]}}, "orders:delete"),
            ({"scopes": {**SCOPES, "orders:read": ["a b"]}}, "scopes"),
            ({"scopes": {**SCOPES, "orders:read": ['a"']}}, "scopes"),
            ({"scopes": {**SCOPES, "orders:read": "read"}}, "scopes"),
            ({"tolerated_scopes": ["a"]}, "tolerated_scopes"),
            ({"requested_token_type": "refresh_token"}, "requested_token_type"),
        ],
    )
    def test_wrong(self, server: AuthServer, ask: dict[str, object], key: str) -> None:
        """What a task type asks with is checked when it is read, and the key is named."""
        with pytest.raises(InvalidInput, match=key):
            provider(server).read_ask(ask, ACTIONS)

    def test_described(self, server: AuthServer) -> None:
        """Programs are told whose tokens they get, and for whom."""
        made = provider(server)
        assert {"issuer": server.issuer, "audience": "orders"} == made.describe(
            made.read_ask({"audience": "orders"}, ())
        )


class TestCheck:
    async def test_good(self, server: AuthServer) -> None:
        """Every step of a good provider is told, and nothing is left behind."""
        steps = await checked(provider(server, client_auth="jwt-spiffe"))
        assert ["configuration", "address", "tls", "metadata", "endpoint", "trust", "exchange", "revoke"] == [
            step.name for step in steps
        ]
        assert {"ok", "skipped"} == {step.outcome for step in steps}
        assert [False] == [server.active(each) for each in server.given()]

    async def test_nobody_to_exchange_for(self, server: AuthServer) -> None:
        """Without a task type the exchange is skipped, and all before it is tried."""
        made = provider(server)
        steps = [step async for step in made.check(None, FakeMint())]
        await made.close()
        assert ("exchange", "skipped") == (steps[-1].name, steps[-1].outcome)
        assert [] == server.given()

    @pytest.mark.parametrize(
        ("endpoint", "deed", "step"),
        [
            ("metadata", status(200, b"<html>"), "metadata"),
            ("metadata", changed(issuer="https://evil.example"), "metadata"),
            ("metadata", changed(grant_types_supported=["password"]), "metadata"),
            ("token", status(404), "endpoint"),
            ("token", status(200, {"access_token": "x"}), "endpoint"),
            ("token", status(500), "endpoint"),
        ],
    )
    async def test_first_that_fails(self, server: AuthServer, endpoint: str, deed: Any, step: str) -> None:
        """A check ends with the step that fails."""
        server.script(endpoint, deed)
        steps = await checked(provider(server))
        assert (step, "failed") == (steps[-1].name, steps[-1].outcome)
        assert {"failed"} != {each.outcome for each in steps[:-1]}

    @pytest.mark.parametrize(
        ("deed", "step"),
        [
            (refuse("invalid_client", code=401), "trust"),
            (refuse("invalid_grant"), "trust"),
            (refuse("invalid_target"), "exchange"),
            (refuse("unauthorized_client"), "exchange"),
            (status(503), "exchange"),
        ],
    )
    async def test_exchange_that_fails(self, server: AuthServer, deed: Any, step: str) -> None:
        """Whether it does not trust our keys, or will not do what is asked, is told apart; both say what to set."""
        server.script("token", lambda _: True, deed)
        steps = await checked(provider(server))
        assert (step, "failed") == (steps[-1].name, steps[-1].outcome)

    @pytest.mark.parametrize(("tells", "told"), [(True, "and introspection says so"), (False, "the token is revoked")])
    async def test_introspection(self, server: AuthServer, tells: bool, told: str) -> None:
        """That introspection confirms the end is said only if it knew of the token before."""
        if not tells:
            server.always["introspect"] = status(200, {"active": False})
        steps = await checked(provider(server, client_auth="jwt-spiffe"))
        assert steps[-1].told.endswith(told)

    async def test_revocation_that_is_none(self, server: AuthServer) -> None:
        """A server that says that it revoked, and did not, is found out by introspection."""
        server.script("revoke", status(200))
        steps = await checked(provider(server, client_auth="jwt-spiffe"))
        assert ("revoke", "failed") == (steps[-1].name, steps[-1].outcome)

    async def test_clock(self, server: AuthServer) -> None:
        """A clock that is ten minutes off is found before anything is exchanged."""
        server.clock_off = -600
        steps = await checked(provider(server))
        assert ("clock", "failed") == (steps[-1].name, steps[-1].outcome)
        assert "behind" in steps[-1].told
