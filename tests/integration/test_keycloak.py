"""The provider kind `keycloak` on a real Keycloak: what it gives, how it ends, and what is said when it refuses."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes.authorities import authority_in
from fakes.mints import wanted
from harness.keycloak import BundleServer, Realm, Running, running_keycloak
from sojourn.authority.embedded_ca import JWT, EmbeddedAuthority
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.loader import load_providers
from sojourn.providers.provider import Ended, Mint, Obtained, Provider, Step
from sojourn.runtime.clock import SystemClock
from sojourn.spiffe.ids import SpiffeId

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]
AGENT, SERVICE = SpiffeId.parse("spiffe://example.org/orders"), SpiffeId.parse("spiffe://example.org/orders-service")
STRANGER = SpiffeId.parse("spiffe://example.org/stranger")
ACTIONS = ("orders:list", "orders:read")
ASK = {"audience": "orders", "scopes": {"orders:read": ["orders.read"], "orders:list": ["orders.read", "orders.list"]}}


@dataclass
class Place:
    """A realm that trusts an authority, and a provider that asks it."""

    realm: Realm
    authority: EmbeddedAuthority
    bundles: BundleServer
    provider: Provider

    def mint(self, spiffe_id: SpiffeId = AGENT) -> Mint:
        async def mint(audience: str, *, algorithm: str = "ES256", claims: object = None) -> str:
            ttl = timedelta(seconds=60)
            assert algorithm == "ES256"
            assert claims is None
            return self.authority.issue_assertion(spiffe_id, audience, ttl, issuer="https://sojourn.example.org").token

        return mint

    async def obtain(self, *actions: str, ask: object = None) -> Obtained:
        read = self.provider.read_ask(ASK if ask is None else ask, ACTIONS)
        return await self.provider.exchange(wanted(read, *(actions or ACTIONS)), self.mint())

    async def end(self, obtained: Obtained) -> None:
        ended = Ended("task_1", AGENT, "r", None, obtained.handle, obtained.public, obtained.expires_at)
        await self.provider.take_back(ended, self.mint())

    async def is_active(self, token: str) -> bool:
        """What introspection tells the service that the token is for."""
        http = self.provider.http
        form = {"token": token, "client_assertion": await self.mint(SERVICE)(self.realm.issuer)}
        form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
        answer = await http.post_form(
            f"{self.realm.issuer}/protocol/openid-connect/token/introspect", form, step="introspect"
        )
        assert 200 == answer.status, answer.body
        return bool(answer.json("introspect")["active"])

    async def check(self, ask: object = None, spiffe_id: SpiffeId = AGENT) -> list[Step]:
        read = self.provider.read_ask(ASK if ask is None else ask, ACTIONS)
        return [step async for step in self.provider.check(wanted(read, *ACTIONS), self.mint(spiffe_id))]


@pytest.fixture(scope="session")
def keycloak() -> Running:
    return running_keycloak()


@pytest.fixture
def realm(keycloak: Running) -> Iterator[Realm]:
    with keycloak.realm() as realm:
        yield realm


@pytest.fixture
async def place(realm: Realm, tmp_path: Path) -> AsyncIterator[Place]:
    authority = authority_in(tmp_path / "keys", SystemClock())
    with BundleServer(lambda: json.dumps(authority.bundle.document()).encode()) as bundles:
        realm.trust("example.org", bundles.url)
        realm.service("orders", str(SERVICE))
        realm.service("billing")
        realm.workload("agent", str(AGENT), ["orders"], ["orders.read", "orders.list"])
        table = {"kind": "keycloak", "issuer": realm.issuer, "plain_http": True, "timeout": "30s"}
        provider = load_providers({"corp": table})["corp"]
        yield Place(realm, authority, bundles, provider)
        await provider.close()


def claims(token: str) -> dict[str, object]:
    value: dict[str, object] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return value


class TestExchange:
    async def test_both_calls(self, place: Place) -> None:
        """A workload's JWT-SVID becomes a token for the service, with the scopes of the actions, that it accepts."""
        before = datetime.now(UTC)
        obtained = await place.obtain()
        found = claims(obtained.token)
        assert ("orders", "agent", place.realm.issuer) == (found["aud"], found["azp"], found["iss"])
        assert {"orders.read", "orders.list"} == set(str(found["scope"]).split())
        assert timedelta(seconds=115) < obtained.expires_at - before <= timedelta(seconds=121)
        assert await place.is_active(obtained.token)

    async def test_narrower(self, place: Place) -> None:
        """A task that asks for one action has the scopes of that action, and no others."""
        obtained = await place.obtain("orders:read")
        assert "orders.read" == claims(obtained.token)["scope"]
        assert "orders.read" == obtained.public["scope"]

    async def test_without_an_audience(self, place: Place) -> None:
        """Where no audience is asked for, one call is enough: the token is the workload's own client's."""
        obtained = await place.obtain(ask={"scopes": {each: ["orders.read"] for each in ACTIONS}})
        assert "orders.read" == claims(obtained.token)["scope"]
        assert ["access_token"] == list(obtained.handle)

    async def test_each_its_own(self, place: Place) -> None:
        """No two exchanges give the same token, and the end of one is not the other's."""
        first, second = await place.obtain(), await place.obtain()
        assert first.token != second.token
        await place.end(first)
        assert [False, True] == [await place.is_active(each.token) for each in (first, second)]

    async def test_over_https(self, keycloak: Running, tmp_path: Path) -> None:
        """Over TLS it is asked as well, at an address that is allowed and with an authority of one's own."""
        authority = authority_in(tmp_path / "keys", SystemClock())
        with (
            keycloak.realm(secure=True) as realm,
            BundleServer(lambda: json.dumps(authority.bundle.document()).encode()) as bundles,
        ):
            realm.trust("example.org", bundles.url)
            realm.service("orders", str(SERVICE))
            realm.workload("agent", str(AGENT), ["orders"], ["orders.read", "orders.list"])
            table = {
                "kind": "keycloak",
                "issuer": realm.issuer,
                "ca": keycloak.ca,
                "private_networks": ["127.0.0.1/32"],
            }
            place = Place(realm, authority, bundles, load_providers({"corp": table})["corp"])
            steps = await place.check()
            await place.provider.close()
        assert {"ok"} == {step.outcome for step in steps}
        assert ["configuration", "address", "tls", "metadata", "endpoint", "trust", "exchange", "revoke"] == [
            step.name for step in steps
        ]


class TestEnd:
    async def test_recalled(self, place: Place) -> None:
        """What is taken back is inactive at introspection, and so is the token that was only needed to get it."""
        obtained = await place.obtain()
        first = obtained.handle["first_token"]
        assert await place.is_active(obtained.token)
        # To the client that it was given to, Keycloak does not say that it is good: a check must not read that as an end.
        assert not await place.provider.server.is_active(obtained.token, place.mint())
        await place.end(obtained)
        assert not await place.is_active(obtained.token)
        with pytest.raises(ProviderRefused, match="Invalid token"):
            await place.provider.server.token(
                {
                    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                    "subject_token": first,
                    "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
                    "audience": "orders",
                },
                place.mint(),
                place.provider.expected(wanted(place.provider.read_ask(ASK, ACTIONS), *ACTIONS)),
                step="exchange",
            )

    async def test_again(self, place: Place) -> None:
        """It may be taken back twice."""
        obtained = await place.obtain()
        await place.end(obtained)
        await place.end(obtained)
        assert not await place.is_active(obtained.token)

    async def test_not_while_the_client_is_disabled(self, place: Place) -> None:
        """A client that is disabled cannot revoke, and its tokens come back with it: so it is tried again, and then is."""
        obtained = await place.obtain()
        place.realm.change_client("agent", enabled=False)
        with pytest.raises(ProviderUnavailable, match="invalid_client"):
            await place.end(obtained)
        place.realm.change_client("agent", enabled=True)
        assert await place.is_active(obtained.token)
        await place.end(obtained)
        assert not await place.is_active(obtained.token)


class TestOwner:
    async def test_again(self, place: Place) -> None:
        """The owner's program, run again for another service, adds to what there is, and takes nothing away."""
        place.realm.service("orders")
        place.realm.workload("agent", str(AGENT), ["billing"], ["billing.read"])
        billing = {"audience": "billing", "scopes": {each: ["billing.read"] for each in ACTIONS}}
        assert "billing" == claims((await place.obtain(ask=billing)).token)["aud"]
        assert await place.is_active((await place.obtain()).token)


class TestRefusals:
    """What fails says which step, and what to set where."""

    @pytest.mark.parametrize(
        ("audience", "hint"), [("billing", "audience mapper"), ("nobody", "must be the client id of a client")]
    )
    async def test_wrong_audience(self, place: Place, audience: str, hint: str) -> None:
        """An audience that the client may not have, or that there is none of, is refused in the exchange."""
        ask = {**ASK, "audience": audience}
        with pytest.raises(ProviderRefused) as refused:
            await place.obtain(ask=ask)
        assert ("exchange", "invalid_target") == (refused.value.step, refused.value.said)
        steps = await place.check(ask)
        assert [("trust", "ok"), ("exchange", "failed")] == [(step.name, step.outcome) for step in steps[-2:]]
        assert hint in steps[-1].hint

    async def test_unknown_scope(self, place: Place) -> None:
        """A scope that the client has not is refused, and the hint says where to add it."""
        with pytest.raises(ProviderRefused) as refused:
            await place.obtain(ask={**ASK, "scopes": {each: ["nope"] for each in ACTIONS}})
        assert "invalid_scope" == refused.value.said
        assert "optional client scopes" in refused.value.hint

    async def test_unknown_client(self, place: Place) -> None:
        """A SPIFFE ID that no client has is refused at the first call, in the step `trust`."""
        steps = await place.check(spiffe_id=STRANGER)
        assert ("trust", "failed") == (steps[-1].name, steps[-1].outcome)
        assert "Signed JWT - Federated" in steps[-1].hint

    async def test_disabled_client(self, place: Place) -> None:
        """A client that is disabled has no tokens any more."""
        await place.obtain()
        place.realm.change_client("agent", enabled=False)
        with pytest.raises(ProviderRefused, match="invalid_client"):
            await place.obtain()

    async def test_exchange_switched_off(self, place: Place) -> None:
        """Where the client may not exchange, the hint names the switch; the token of the first call is revoked."""
        attributes = {"jwt.credential.issuer": "spiffe", "jwt.credential.sub": str(AGENT)}
        place.realm.change_client("agent", attributes={**attributes, "standard.token.exchange.enabled": "false"})
        with pytest.raises(ProviderRefused) as refused:
            await place.obtain()
        assert "Standard Token Exchange" in refused.value.hint

    async def test_unreachable_bundle(self, realm: Realm, tmp_path: Path) -> None:
        """A realm that cannot fetch our keys says no more than that the client is invalid; the hint says what to look at."""
        authority = authority_in(tmp_path / "keys", SystemClock())
        with BundleServer(lambda: b"{}") as gone:
            pass
        realm.trust("example.org", gone.url)
        realm.workload("agent", str(AGENT), [])
        provider = load_providers(
            {"c": {"kind": "keycloak", "issuer": realm.issuer, "plain_http": True, "timeout": "30s"}}
        )["c"]
        steps = await Place(realm, authority, gone, provider).check()
        await provider.close()
        assert ("trust", "failed") == (steps[-1].name, steps[-1].outcome)
        assert "bundle endpoint" in steps[-1].hint

    async def test_no_such_realm(self, place: Place) -> None:
        """A realm that is not there fails at its metadata."""
        table = {"kind": "keycloak", "issuer": f"{place.realm.base}/realms/none", "plain_http": True}
        other = load_providers({"c": table})["c"]
        steps = [step async for step in other.check(None, place.mint())]
        await other.close()
        assert ("metadata", "failed") == (steps[-1].name, steps[-1].outcome)
        assert "404" in steps[-1].told

    async def test_lifetime_is_told(self, place: Place) -> None:
        """A check says by how much the realm's tokens outlive the task, and what to do about it."""
        steps = {step.name: step for step in await place.check()}
        assert "longer than the task" in steps["exchange"].told
        assert "less than the task" in steps["exchange"].hint
        assert ("ok", "the token is revoked") == (steps["revoke"].outcome, steps["revoke"].told)


class TestKeys:
    async def test_rotated(self, place: Place) -> None:
        """Keys that are published before they sign are known to Keycloak when they do, over its cache of our bundle."""
        await place.obtain()
        prepared = place.authority.prepare(JWT)
        await place.authority.activate(JWT, prepared.id)
        fetched = place.bundles.fetched

        async def again() -> bool:
            try:
                await place.obtain()
            except ProviderRefused:
                return False
            return True

        ends = datetime.now(UTC) + timedelta(seconds=60)
        while not await again():
            assert datetime.now(UTC) < ends, "Keycloak did not fetch the new key"
        assert place.bundles.fetched > fetched

    async def test_taken_from_the_bundle(self, place: Place, tmp_path: Path) -> None:
        """A key that never was in the bundle is refused, whatever it says of itself."""
        other = authority_in(tmp_path / "others", SystemClock())
        place.authority = other
        with pytest.raises(ProviderRefused, match="invalid_client"):
            await place.obtain()
