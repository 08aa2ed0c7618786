"""id_jag.py: when an ID-JAG is good, for which client, and what may be asked by it; each refusal has its own code."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.people import (
    ALICE,
    CHAT,
    CHAT_CLIENT,
    CHAT_URL,
    DESK,
    DESK_CLIENT,
    ISSUER,
    JAG_CLIENT,
    OWN_ISSUER,
    WEB_CLIENT,
    PeopleIssuer,
    table,
)
from fakes.task_types import TICKETS, WIKI
from sojourn.errors import InvalidToken
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import PublicKey
from sojourn.limits import ID_JAG_MAX_SECONDS
from sojourn.people.id_jag import IdJag, verify_id_jag
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.person import Person
from sojourn.people.token_kind import ID_TOKEN
from sojourn.people.verification import parse_unverified_person, verify
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Authority, Details, Grant

NOW = FakeClock().now()
IDP = PeopleIssuer(NOW.timestamp())
RULES = IssuerRules.of("corp", table())
KEYS = {IDP.kid: PublicKey.from_jwk(IDP.jwk())}
JKT = "A" * 43


def read(
    text: str,
    *clients: SpiffeId,
    after: float = 0,
    rules: IssuerRules = RULES,
    keys: dict[str, PublicKey] = KEYS,
    own: str = OWN_ISSUER,
) -> IdJag:
    unverified = parse_unverified_person(text)
    key = keys.get(unverified.jws.kid or "")
    return verify_id_jag(unverified, rules, key, own, clients or (CHAT,), NOW + timedelta(seconds=after))


def code(text: str, *clients: SpiffeId, **more: Any) -> str:
    """With which code, or reason, one is refused."""
    with pytest.raises((PersonRefused, InvalidToken)) as caught:
        read(text, *clients, **more)
    error = caught.value
    assert text not in error.public
    assert ALICE not in error.public
    return error.reason_code if isinstance(error, InvalidToken) else error.code


class TestGood:
    def test_least(self) -> None:
        """One that says no more than it must is of that person, for that client, and bounds nothing."""
        jag = read(IDP.id_jag(jti="j7", auth_time=None, acr=None, groups=None))
        assert ("corp", ISSUER, ALICE, "", "", 0) == (
            jag.person.issuer, jag.person.url, jag.person.subject, jag.person.session, jag.person.key,
            jag.person.auth_time,
        )  # fmt: skip
        assert ((CHAT,), "j7", None, None, None) == (jag.presenters, jag.jti, jag.resources, jag.scope, jag.details)

    def test_all(self) -> None:
        """It may say what a login says, and what may be asked by it at the most, for which key."""
        details = [{"type": "triage", "actions": ["ticket:read"], "locations": [TICKETS], "params": {"ticket": "7"}}]
        jag = read(
            IDP.id_jag(
                aud=[OWN_ISSUER],
                sid="s9",
                amr=["pwd"],
                resource=[TICKETS, WIKI],
                scope="ticket:read  page:read",
                authorization_details=details,
                cnf={"jkt": JKT},
                department="toys",
            )
        )
        person = jag.person
        assert ("s9", IDP.at - 60, "1", ("pwd",), JKT, {"department": "toys"}) == (
            person.session, person.auth_time, person.acr, person.amr, person.key, dict(person.claims)
        )  # fmt: skip
        assert ((TICKETS, WIKI), frozenset({"ticket:read", "page:read"})) == (jag.resources, jag.scope)
        wanted = Authority((Grant(TICKETS, ("ticket:read",)),))
        assert Details("triage", wanted, {"ticket": "7"}, "") == jag.details

    def test_read_again(self) -> None:
        """The person is the same when they are read from a task's record, with the key that theirs are bound to."""
        person = read(IDP.id_jag(cnf={"jkt": JKT})).person
        assert JKT == person.key
        assert person == Person.read(json.loads(json.dumps(person.document())))

    def test_no_longer_than_it_says(self) -> None:
        """Where tasks outlive tokens, and where tokens are asked about, one by an ID-JAG ends with it, and is not."""
        rules = replace(RULES, ends_with_session=True, recheck=30.0)
        person = read(IDP.id_jag(), rules=rules).person
        assert (person.expires_at, False) == (person.ends_at, person.rechecked)

    @pytest.mark.parametrize(("said", "expected"), [(TICKETS, (TICKETS,)), ([TICKETS], (TICKETS,)), ([], ())])
    def test_resource(self, said: Any, expected: tuple[str, ...]) -> None:
        """A resource is one or a list; an empty list is none at all, and not any."""
        assert expected == read(IDP.id_jag(resource=said)).resources

    def test_an_empty_scope(self) -> None:
        """An empty scope is no action at all, and not all."""
        assert frozenset() == read(IDP.id_jag(scope="")).scope


class TestForUs:
    @pytest.mark.parametrize(
        "aud",
        [
            None,
            "https://other.example.org",
            [OWN_ISSUER, "https://other.example.org"],
            [OWN_ISSUER, OWN_ISSUER],
            [],
            OWN_ISSUER + "/",
            OWN_ISSUER + "/token",
            OWN_ISSUER.upper(),
            "spiffe://example.org",
            ISSUER,
        ],
    )
    def test_for_another(self, aud: Any) -> None:
        """One for another authorization server, or for others too, is not for us: our issuer's name alone counts."""
        assert "wrong_audience" == code(IDP.id_jag(aud=aud))

    @pytest.mark.parametrize("aud", [None, [], "a"])
    def test_where_we_have_no_name(self, aud: Any) -> None:
        """Where there is nothing to compare with, none is for us."""
        assert "wrong_audience" == code(IDP.id_jag(aud=aud), own="")


class TestClient:
    def test_by_its_own_name(self) -> None:
        """The SPIFFE ID of the client, where its workload takes ID-JAGs, is as good as what the issuer calls it."""
        assert (CHAT,) == read(IDP.id_jag(client_id=str(CHAT))).presenters

    def test_of_a_client_with_several(self) -> None:
        """Of a client with several identities those may bring it to which it was given, and no others."""
        assert (CHAT,) == read(IDP.id_jag(), DESK, CHAT).presenters

    @pytest.mark.parametrize(
        "client", [None, "", "other", CHAT_CLIENT, CHAT_URL, WEB_CLIENT, str(DESK), [JAG_CLIENT], 1]
    )
    def test_of_another(self, client: Any) -> None:
        """One that was given to another client, or does not say to which, is refused: what the workload is called at
        its issuer is not what it is called here.
        """
        assert "wrong_presenter" == code(IDP.id_jag(client_id=client))

    def test_azp_is_no_client(self) -> None:
        """No other claim says which client it is for."""
        assert "wrong_presenter" == code(IDP.id_jag(client_id=None, azp=JAG_CLIENT))

    @pytest.mark.parametrize("client", [JAG_CLIENT, DESK_CLIENT, str(DESK), str(CHAT)])
    def test_where_none_are_taken(self, client: str) -> None:
        """A workload whose table has no id_jag_clients brings none, by whatever name."""
        assert "wrong_presenter" == code(IDP.id_jag(client_id=client), DESK)

    def test_nobody(self) -> None:
        """A workload that no table names brings none."""
        other = SpiffeId.parse("spiffe://example.org/other")
        assert "wrong_presenter" == code(IDP.id_jag(client_id=str(other)), other)

    def test_no_other_of_the_same_table(self) -> None:
        """Where two workloads share a table and what the issuer calls them, the SPIFFE ID of each is its own."""
        both = {"workloads": [str(CHAT), str(DESK)], "id_jag_clients": ["app", str(CHAT), str(DESK)]}
        rules = IssuerRules.of("corp", table(presenters=[both]))
        for each, other in ((CHAT, DESK), (DESK, CHAT)):
            assert (each,) == read(IDP.id_jag(client_id=str(each)), each, other, rules=rules).presenters
            assert "wrong_presenter" == code(IDP.id_jag(client_id=str(other)), each, rules=rules)
            assert (each,) == read(IDP.id_jag(client_id="app"), each, rules=rules).presenters

    @pytest.mark.parametrize(
        "may_act", [{"client_id": "other"}, {"sub": str(DESK)}, {}, None, {"sub": str(CHAT), "iss": "https://x"}]
    )
    def test_may_act_that_names_another(self, may_act: Any) -> None:
        """Whom the issuer lets act is the client, or it is refused."""
        claims = {**IDP.id_jag_claims(), "may_act": may_act}
        assert "wrong_presenter" == code(IDP.sign(claims, {"typ": "oauth-id-jag+jwt"}))

    @pytest.mark.parametrize("name", [str(CHAT), JAG_CLIENT, CHAT_CLIENT])
    def test_may_act(self, name: str) -> None:
        """It may name the workload by its SPIFFE ID, as a client here, or as one of the issuer's."""
        assert (CHAT,) == read(IDP.id_jag(may_act={"sub": name})).presenters

    def test_a_name_of_here_there(self) -> None:
        """In an ID token the name of a client here says nobody: it may be another's at the issuer."""
        unverified = parse_unverified_person(IDP.id_token(may_act={"client_id": JAG_CLIENT}))
        with pytest.raises(PersonRefused) as caught:
            verify(unverified, RULES, KEYS[IDP.kid], ID_TOKEN, CHAT, NOW)
        assert "wrong_presenter" == caught.value.code


class TestRefused:
    def test_an_actor(self) -> None:
        """One by which somebody acts already is refused: the chain would be lost."""
        assert "has_actor" == code(IDP.id_jag(act={"sub": "x"}))
        claims = {**IDP.id_jag_claims(), "act": None}
        assert "has_actor" == code(IDP.sign(claims, {"typ": "oauth-id-jag+jwt"}))

    @pytest.mark.parametrize(
        "cnf",
        [
            {},
            {"x5t#S256": JKT},
            {"jkt": JKT, "x5t#S256": JKT},
            {"jkt": JKT, "jwk": {}},
            {"jkt": JKT[1:]},
            {"jkt": JKT + "="},
            {"jkt": ""},
            {"jkt": None},
            {"jkt": [JKT]},
            {"jwk": {"kty": "EC"}},
            {"kid": "k"},
            JKT,
            [{"jkt": JKT}],
            False,
        ],
    )
    def test_bound_in_another_way(self, cnf: Any) -> None:
        """One that is bound to anything but the thumbprint of a key cannot be shown here."""
        assert "bound_elsewhere" == code(IDP.id_jag(cnf=cnf))

    def test_bound_to_null(self) -> None:
        """A `cnf` of null binds, to what nobody knows."""
        claims = {**IDP.id_jag_claims(), "cnf": None}
        assert "bound_elsewhere" == code(IDP.sign(claims, {"typ": "oauth-id-jag+jwt"}))

    @pytest.mark.parametrize("jti", [None, "", 7, ["j"], "j" * 256, "j\n"])
    def test_jti(self, jti: Any) -> None:
        """One that could not be known again is refused."""
        assert "malformed" == code(IDP.id_jag(jti=jti))

    def test_life(self) -> None:
        """It lives for five minutes at the most, however long the issuer's other tokens may."""
        assert read(IDP.id_jag(exp=IDP.at + ID_JAG_MAX_SECONDS))
        assert "too_old" == code(IDP.id_jag(exp=IDP.at + ID_JAG_MAX_SECONDS + 1))
        assert "too_old" == code(IDP.id_jag(iat=IDP.at - 250, exp=IDP.at + 51))
        rules = IssuerRules.of("corp", table(longest=timedelta(minutes=2)))
        assert "too_old" == code(IDP.id_jag(exp=IDP.at + 121), rules=rules)

    @pytest.mark.parametrize(
        ("claims", "expected"),
        [
            ({"iat": None}, "malformed"),
            ({"exp": None}, "malformed"),
            ({"exp": "x"}, "malformed"),
            ({"iat": IDP.at + 3600, "exp": IDP.at + 3700}, "not_yet_valid"),
            ({"nbf": IDP.at + 3600}, "not_yet_valid"),
            ({"iat": IDP.at - 300, "exp": IDP.at}, "expired"),
            ({"sub": None}, "malformed"),
            ({"sub": str(CHAT)}, "malformed"),
            ({"sub": JAG_CLIENT}, "wrong_kind"),
            ({"sub": "a\n"}, "malformed"),
            ({"resource": 7}, "malformed"),
            ({"resource": [TICKETS, 7]}, "malformed"),
            ({"resource": ""}, "malformed"),
            ({"resource": ["https://a"] * 1000}, "malformed"),
            ({"scope": ["ticket:read"]}, "malformed"),
            ({"authorization_details": []}, "malformed"),
            ({"authorization_details": {}}, "malformed"),
            (
                {"authorization_details": [{"type": "triage", "actions": ["a"], "locations": [TICKETS], "x": 1}]},
                "malformed",
            ),
            ({"auth_time": IDP.at + 3600}, "malformed"),
            ({"iss": ISSUER + "/"}, "unknown_issuer"),
        ],
        ids=str,
    )
    def test_claims(self, claims: dict[str, Any], expected: str) -> None:
        """What is not whole, not of now or not of a person is refused, and so are bounds that cannot be read."""
        assert expected == code(IDP.id_jag(**claims))

    @pytest.mark.parametrize(
        "claims",
        [
            {"tenant": "acme"},
            {"tenant": ""},
            {"sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "b0b"}},
            {"sub_id": {"format": "iss_sub", "iss": "https://x", "sub": ALICE}},
            {"sub_id": {"format": "email", "email": "a@example.org"}},
            {"sub_id": []},
        ],
        ids=str,
    )
    def test_of_a_part_of_the_issuer(self, claims: dict[str, Any]) -> None:
        """Where `iss` and `sub` alone do not say who it is, as with tenants that have the same names, it is of nobody."""
        assert "unknown_issuer" == code(IDP.id_jag(**claims))

    def test_the_same_in_other_words(self) -> None:
        """A `sub_id` that says what `iss` and `sub` do changes nothing, and what we call the person is not asked for."""
        own = {"format": "iss_sub", "iss": ISSUER, "sub": ALICE}
        assert ALICE == read(IDP.id_jag(sub_id=own, aud_sub="someone-else", email="a@example.org")).person.subject

    def test_for_a_tenant(self) -> None:
        """One for a tenant of ours is for none that there is."""
        assert "wrong_audience" == code(IDP.id_jag(aud_tenant="acme"))

    @pytest.mark.parametrize("name", ["tenant", "sub_id", "aud_tenant"])
    def test_null_of_somebody(self, name: str) -> None:
        """A claim of null that would say of whom, or for whom, it is refused too."""
        claims = {**IDP.id_jag_claims(), name: None}
        assert code(IDP.sign(claims, {"typ": "oauth-id-jag+jwt"})) in {"unknown_issuer", "wrong_audience"}

    @pytest.mark.parametrize("name", ["resource", "scope", "authorization_details", "jti", "exp", "sid"])
    def test_null(self, name: str) -> None:
        """A claim of null is not one that is left out."""
        assert "malformed" == code(IDP.sign({**IDP.id_jag_claims(), name: None}, {"typ": "oauth-id-jag+jwt"}))

    def test_key_of_another_issuer(self) -> None:
        """The key of one issuer signs nothing for another."""
        other = PeopleIssuer(NOW.timestamp(), url=ISSUER, kid=IDP.kid)
        assert "bad_signature" == code(other.id_jag())
        assert "unknown_key" == code(PeopleIssuer(NOW.timestamp(), kid="k2").id_jag())

    def test_another_algorithm(self) -> None:
        """An algorithm that the issuer does not sign by is refused, whoever has its key."""
        rules = IssuerRules.of("corp", table(algorithms=["RS256"]))
        assert "bad_algorithm" == code(IDP.id_jag(), rules=rules)
