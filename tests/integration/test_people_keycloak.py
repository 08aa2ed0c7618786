"""What a real Keycloak says of people: in its tokens, when they leave, and to those who ask whether a token is still good."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fakes.authorities import authority_in
from harness.keycloak import BundleServer, Running, running_keycloak
from harness.loginform import PeopleFailed, read_claims, read_part, send
from harness.peoplekeycloak import APP, DEPARTMENT, INTROSPECTOR, NODE, SERVICE, LoggedIn, LogoutReceiver, PeopleRealm
from sojourn.errors import InvalidToken
from sojourn.errors.people import PersonRefused
from sojourn.people.service import People
from sojourn.people.token_kind import ACCESS_TOKEN, ID_TOKEN
from sojourn.runtime.clock import SystemClock
from sojourn.settings.people import PeopleConfig
from sojourn.spiffe.ids import SpiffeId

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]
CHECKER = SpiffeId.parse("spiffe://example.org/sojourn")
STRANGER = SpiffeId.parse("spiffe://example.org/stranger")
NONCE = "Zm9yIGEgcGVyc29uIHdobyBhZ3JlZXMgdG8gdGhpcw0"  # 43 characters: as long as a SHA-256 in base64url
QUIET_SECONDS = 3.0  # for what must not be heard; what is, is heard in far less


@pytest.fixture(scope="module")
def keycloak() -> Running:
    return running_keycloak()


@pytest.fixture(scope="module")
def receiver() -> Iterator[LogoutReceiver]:
    with LogoutReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def people(keycloak: Running, receiver: LogoutReceiver) -> Iterator[PeopleRealm]:
    with keycloak.realm(token_seconds=300) as realm:
        people = PeopleRealm(realm)
        people.make(logout_url=receiver.url)
        yield people


class TestTokens:
    def test_each_kind(self, people: PeopleRealm) -> None:
        """ID, access and refresh token have one header `typ`; which one it is stands in the claim `typ`."""
        alice = people.login("alice")
        found = [alice.id_token, alice.access_token, alice.refresh_token]
        assert ["JWT"] * 3 == [read_part(each, 0)["typ"] for each in found]
        assert ["ID", "Bearer", "Refresh"] == [read_claims(each)["typ"] for each in found]

    def test_whose(self, people: PeopleRealm) -> None:
        """The ID token is for the application alone; the access token for services, and `azp` names the application."""
        alice = people.login("alice")
        access = read_claims(alice.access_token)
        assert (APP, APP) == (alice.claims["aud"], alice.claims["azp"])
        assert {SERVICE, INTROSPECTOR} <= set(access["aud"])
        assert APP not in access["aud"]
        assert APP == access["azp"]
        assert people.realm.issuer == alice.claims["iss"] == access["iss"]
        assert alice.subject == access["sub"]

    def test_session(self, people: PeopleRealm) -> None:
        """Both say the session, when the person logged in, and by which level."""
        alice = people.login("alice")
        for each in (alice.claims, read_claims(alice.access_token)):
            assert alice.session == each["sid"]
            assert ("silver", True) == (each["acr"], each["auth_time"] <= each["iat"])

    def test_two_people(self, people: PeopleRealm) -> None:
        """Two people have each their own subject, groups by their paths, and department."""
        alice, bob = people.login("alice"), people.login("bob")
        assert alice.subject != bob.subject
        assert {"/support", "/refunds"} == set(alice.claims["groups"])
        assert ["/support"] == read_claims(bob.access_token)["groups"]
        assert ("north", "south") == (alice.claims["department"], bob.claims["department"])

    def test_wrong_password(self, people: PeopleRealm) -> None:
        """The form is the real one: who gives another's password does not get in."""
        with pytest.raises(PeopleFailed, match="no login"):
            people.login("alice", password=people.passwords["bob"])

    def test_level(self, people: PeopleRealm) -> None:
        """A higher level in a browser that has a session is the same session, with the higher `acr`."""
        alice = people.login("alice")
        again = people.login("alice", alice.browser, acr_values="gold")
        assert ("silver", "gold") == (alice.claims["acr"], again.claims["acr"])
        assert (alice.session, alice.subject) == (again.session, again.subject)

    def test_lightweight(self, keycloak: Running) -> None:
        """A lightweight access token tells of the person only at introspection; the ID token is as ever."""
        with keycloak.realm() as realm:
            people = PeopleRealm(realm)
            people.make(lightweight=True)
            bob = people.login("bob")
            access = read_claims(bob.access_token)
            assert bob.subject == bob.claims["sub"]
            assert not {"groups", "department", "aud"} & set(access)
            assert ["/support"] == people.introspect(bob.access_token)["groups"]


class TestVerified:
    """The same tokens, as the agent verifies them."""

    @pytest.fixture
    async def verifier(self, people: PeopleRealm) -> AsyncIterator[People]:
        presenter = {
            "workloads": [str(CHECKER)],
            "id_token_audiences": [APP],
            "access_token_audiences": [SERVICE],
            "authorized_parties": [APP],
        }
        said = {"issuer": people.realm.issuer, "plain_http": True, "claims": [DEPARTMENT], "presenters": [presenter]}
        made = People({"corp": PeopleConfig.model_validate(said)}, SystemClock(), lambda _: None)
        yield made
        await made.close()

    async def test_whose(self, people: PeopleRealm, verifier: People) -> None:
        """ID and access token of one login are the same person, in the same session, with the same groups."""
        alice = await asyncio.to_thread(people.login, "alice")
        by_id = await verifier.verify(alice.id_token, ID_TOKEN, CHECKER)
        by_access = await verifier.verify(alice.access_token, ACCESS_TOKEN, CHECKER)
        for person in (by_id, by_access):
            assert (alice.subject, alice.session, "silver") == (person.subject, person.session, person.acr)
            assert (("refunds", "support"), {DEPARTMENT: "north"}) == (person.groups, dict(person.claims))
        assert by_id.is_same(by_access)

    async def test_two_people(self, people: PeopleRealm, verifier: People) -> None:
        """Two people who log in are two."""
        alice, bob = [await asyncio.to_thread(people.login, name) for name in ("alice", "bob")]
        found = [await verifier.verify(each.id_token, ID_TOKEN, CHECKER) for each in (alice, bob)]
        assert not found[0].is_same(found[1])
        assert [("refunds", "support"), ("support",)] == [each.groups for each in found]

    async def test_refused(self, people: PeopleRealm, verifier: People, receiver: LogoutReceiver) -> None:
        """Each token as another, the refresh token, the logout token, and any of them from another workload."""
        alice = await asyncio.to_thread(people.login, "alice")
        before = len(receiver.heard)
        await asyncio.to_thread(people.logout, alice)
        async with asyncio.timeout(30):
            while len(receiver.heard) == before:
                await asyncio.sleep(0.05)
        refused = [
            (alice.id_token, ACCESS_TOKEN, CHECKER, "wrong_kind"),
            (alice.access_token, ID_TOKEN, CHECKER, "wrong_kind"),
            (alice.refresh_token, ID_TOKEN, CHECKER, "bad_algorithm"),
            (receiver.heard[-1].token, ID_TOKEN, CHECKER, "wrong_kind"),
            (alice.id_token, ID_TOKEN, STRANGER, "wrong_presenter"),
            (alice.access_token, ACCESS_TOKEN, STRANGER, "wrong_presenter"),
        ]
        for text, token_type, presenter, code in refused:
            with pytest.raises((PersonRefused, InvalidToken)) as caught:
                await verifier.verify(text, token_type, presenter)
            assert code in {caught.value.code, getattr(caught.value, "reason_code", "")}

    async def test_lightweight(self, keycloak: Running) -> None:
        """A lightweight access token is of nobody that could be told, and for nothing; its ID token is good."""
        with keycloak.realm() as realm:
            people = PeopleRealm(realm)
            await asyncio.to_thread(people.make, lightweight=True)
            bob = await asyncio.to_thread(people.login, "bob")
            presenter = {"workloads": [str(CHECKER)], "id_token_audiences": [APP]}
            said = {"issuer": realm.issuer, "plain_http": True, "presenters": [presenter]}
            verifier = People({"corp": PeopleConfig.model_validate(said)}, SystemClock(), lambda _: None)
            assert bob.subject == (await verifier.verify(bob.id_token, ID_TOKEN, CHECKER)).subject
            with pytest.raises(PersonRefused) as caught:
                await verifier.verify(bob.access_token, ACCESS_TOKEN, CHECKER)
            assert "wrong_presenter" == caught.value.code
            await verifier.close()


class TestAgreement:
    def test_nonce(self, people: PeopleRealm) -> None:
        """A nonce as long as a digest comes back in the ID token as it was sent, and in no access token."""
        alice = people.login("alice", nonce=NONCE)
        assert NONCE == alice.claims["nonce"]
        assert "nonce" not in read_claims(alice.access_token)

    @pytest.mark.parametrize("asked", [{"max_age": "0"}, {"prompt": "login"}], ids=["max_age", "prompt"])
    def test_anew(self, people: PeopleRealm, asked: dict[str, str]) -> None:
        """Who is asked to log in anew, does, in the session of before, and `auth_time` says so."""
        alice = people.login("alice")
        time.sleep(1.1)  # the times are in whole seconds
        assert people.login("alice", alice.browser).claims["auth_time"] == alice.claims["auth_time"]
        again = people.login("alice", alice.browser, **asked)
        assert again.claims["auth_time"] > alice.claims["auth_time"]
        assert alice.session == again.session


def _log_out(people: PeopleRealm, who: LoggedIn) -> None:
    people.logout(who)


def _end_session(people: PeopleRealm, who: LoggedIn) -> None:
    people.end_session(who.session)


def _everywhere(people: PeopleRealm, who: LoggedIn) -> None:
    people.log_out_everywhere(who.name)


def _disable(people: PeopleRealm, who: LoggedIn) -> None:
    people.enable(who.name, enabled=False)


def _reset_password(people: PeopleRealm, who: LoggedIn) -> None:
    people.reset_password(who.name)


class TestLogout:
    """What a person's leaving tells the application (OpenID Connect Back-Channel Logout)."""

    @pytest.fixture(autouse=True)
    def _quiet(self, people: PeopleRealm, receiver: LogoutReceiver) -> Iterator[None]:
        people.log_out_everywhere("alice")  # sessions that other tests left are not heard of here
        people.log_out_everywhere("bob")
        receiver.heard.clear()
        yield
        people.enable("alice", enabled=True)

    @pytest.mark.parametrize("act", [_log_out, _end_session, _everywhere])
    def test_heard(
        self, people: PeopleRealm, receiver: LogoutReceiver, act: Callable[[PeopleRealm, LoggedIn], None]
    ) -> None:
        """Who logs out, or is logged out by an admin, is told of once, by session and subject, in a logout token."""
        alice = people.login("alice")
        act(people, alice)
        (heard,) = receiver.wait(1)
        assert "logout+jwt" == heard.header["typ"]
        assert (alice.session, alice.subject, APP) == tuple(heard.claims[each] for each in ("sid", "sub", "aud"))
        assert {"http://schemas.openid.net/event/backchannel-logout": {}} == heard.claims["events"]
        assert {"iss", "iat", "exp", "jti", "typ"} == set(heard.claims) - {"sid", "sub", "aud", "events"}
        assert (120, "Logout") == (heard.claims["exp"] - heard.claims["iat"], heard.claims["typ"])

    @pytest.mark.parametrize(("act", "active"), [(_disable, False), (_reset_password, True)])
    def test_not_heard(
        self,
        people: PeopleRealm,
        receiver: LogoutReceiver,
        act: Callable[[PeopleRealm, LoggedIn], None],
        active: bool,
    ) -> None:
        """Of a user who is disabled nothing is told, and only introspection says it; a new password ends nothing."""
        alice = people.login("alice")
        act(people, alice)
        assert [] == receiver.wait(1, seconds=QUIET_SECONDS)
        assert active is people.introspect(alice.access_token)["active"]

    def test_other_people(self, people: PeopleRealm, receiver: LogoutReceiver) -> None:
        """One person's logout is neither the other's, nor of the same person's session in another browser."""
        alice, again, bob = people.login("alice"), people.login("alice"), people.login("bob")
        people.logout(alice)
        assert [alice.session] == [each.claims["sid"] for each in receiver.wait(1)]
        found = [people.introspect(each.access_token)["active"] for each in (alice, again, bob)]
        assert [False, True, True] == found

    def test_told_once(self, people: PeopleRealm, receiver: LogoutReceiver) -> None:
        """A logout that the application did not take is not told again: the session is over all the same."""
        alice = people.login("alice")
        receiver.status = 500
        try:
            people.end_session(alice.session)
            receiver.wait(2, seconds=QUIET_SECONDS)
        finally:
            receiver.status = 200
        assert 1 == len(receiver.heard)
        assert not people.introspect(alice.access_token)["active"]


@pytest.fixture
def svid(people: PeopleRealm, tmp_path: Path) -> Iterator[Callable[[SpiffeId], dict[str, str]]]:
    """By SPIFFE ID: how its workload authenticates to Keycloak, by a JWT-SVID."""
    authority = authority_in(tmp_path / "keys", SystemClock())
    audience, issuer = people.realm.issuer, "https://sojourn.example.org"

    def form(spiffe_id: SpiffeId) -> dict[str, str]:
        token = authority.issue_assertion(spiffe_id, audience, timedelta(seconds=60), issuer=issuer).token
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
        return {"client_assertion_type": kind, "client_assertion": token}

    with BundleServer(lambda: json.dumps(authority.bundle.document()).encode()) as bundles:
        people.realm.trust("example.org", bundles.url)
        people.realm.service(NODE, str(CHECKER))
        yield form


class TestIntrospection:
    """What a node's agent learns of a person's token, which knows nothing but its own JWT-SVID."""

    def _active(self, people: PeopleRealm, token: str, form: dict[str, str]) -> bool:
        answer, _ = send("POST", f"{people.protocol}/token/introspect", form={"token": token, **form})
        assert 200 == answer.status, answer.text
        return bool(answer.json()["active"])

    def test_by_svid(self, people: PeopleRealm, svid: Callable[[SpiffeId], dict[str, str]]) -> None:
        """Of an access token that has it in its audience it hears that it is good, and that it is not after a logout."""
        alice = people.login("alice")
        assert self._active(people, alice.access_token, svid(CHECKER))
        people.logout(alice)
        assert not self._active(people, alice.access_token, svid(CHECKER))

    def test_disabled(self, people: PeopleRealm, svid: Callable[[SpiffeId], dict[str, str]]) -> None:
        """The token of somebody who is disabled is not good, and is again once they are enabled."""
        bob = people.login("bob")
        people.enable("bob", enabled=False)
        try:
            assert not self._active(people, bob.access_token, svid(CHECKER))
        finally:
            people.enable("bob", enabled=True)
        assert self._active(people, bob.access_token, svid(CHECKER))

    def test_of_others(self, people: PeopleRealm, svid: Callable[[SpiffeId], dict[str, str]]) -> None:
        """Of what is not for it, such as an ID token, it hears what it hears of a dead one, unless its client may know."""
        alice = people.login("alice")
        people.realm.service("stranger", str(STRANGER))
        assert not self._active(people, alice.access_token, svid(STRANGER))
        assert not self._active(people, alice.id_token, svid(CHECKER))
        people.let_introspect("stranger")
        assert self._active(people, alice.access_token, svid(STRANGER))
        assert self._active(people, alice.id_token, svid(STRANGER))
