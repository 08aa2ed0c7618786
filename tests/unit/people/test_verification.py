"""verification.py: when a person's token is good, and this workload may bring it; each refusal has its own code."""

import json
import unicodedata
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

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
    WEB_CLIENT,
    PeopleIssuer,
    table,
)
from sojourn.errors import InvalidToken, SojournError
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import PublicKey
from sojourn.limits import PERSON_GROUPS, TOKEN_MAX_BYTES
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.person import Person
from sojourn.people.token_kind import ACCESS_TOKEN, ID_TOKEN
from sojourn.people.verification import parse_unverified_person, verify
from sojourn.spiffe.ids import SpiffeId

CLOCK = FakeClock()
NOW = CLOCK.now()
IDP = PeopleIssuer(NOW.timestamp())
RULES = IssuerRules.of("corp", table())
KEYS = {IDP.kid: PublicKey.from_jwk(IDP.jwk())}


def read(
    text: str,
    token_type: str = ID_TOKEN,
    presenter: SpiffeId = CHAT,
    *,
    after: float = 0,
    rules: IssuerRules = RULES,
    keys: dict[str, PublicKey] = KEYS,
) -> Person:
    unverified = parse_unverified_person(text)
    key = keys.get(unverified.jws.kid or "")
    return verify(unverified, rules, key, token_type, presenter, NOW + timedelta(seconds=after))


def code(text: str, token_type: str = ID_TOKEN, presenter: SpiffeId = CHAT, **more: Any) -> str:
    """With which code, or reason, a token is refused."""
    with pytest.raises(SojournError) as caught:
        read(text, token_type, presenter, **more)
    error = caught.value
    assert isinstance(error, PersonRefused | InvalidToken)
    assert text not in error.public
    assert ALICE not in error.public
    return error.reason_code if isinstance(error, InvalidToken) else error.code


class TestGood:
    def test_id_token(self) -> None:
        """An ID token that was given to the workload's own client says who the person is, and all that policies read."""
        text = IDP.id_token(
            amr=["pwd", "otp"], groups=["support", "staff", "staff"], department="refunds", level=3, staff=True
        )
        person = read(text)
        assert Person(
            issuer="corp",
            url=ISSUER,
            subject=ALICE,
            issued_at=IDP.at,
            expires_at=IDP.at + 300,
            ends_at=IDP.at + 300,
            session="s1",
            auth_time=IDP.at - 60,
            acr="1",
            amr=("pwd", "otp"),
            groups=("staff", "support"),
            claims={"department": "refunds", "level": 3, "staff": True},
        ) == person  # fmt: skip

    def test_prefix(self) -> None:
        """The prefix of the issuer stands before the subject where a service reads it, and nowhere else."""
        person = read(IDP.id_token(), rules=replace(RULES, prefix="corp|"))
        assert (ALICE, f"corp|{ALICE}") == (person.subject, person.told().sub)
        assert "malformed" == code(IDP.id_token(sub="x" * 250), rules=replace(RULES, prefix="corp|x"))

    def test_access_token(self) -> None:
        """An access token that the workload receives, from a client that is listed for it, says the same."""
        person = read(IDP.access_token(), ACCESS_TOKEN)
        assert (ALICE, "s1", ("staff", "support")) == (person.subject, person.session, person.groups)

    @pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt"])
    def test_access_token_of_its_own_type(self, typ: str) -> None:
        """An access token by RFC 9068 needs no other word that it is one."""
        text = IDP.access_token({"typ": typ}, typ=None, scope=None, client_id=WEB_CLIENT, azp=None)
        assert ALICE == read(text, ACCESS_TOKEN).subject

    @pytest.mark.parametrize("name", ["azp", "client_id", "appid", "cid"])
    def test_by_whichever_name_of_the_client(self, name: str) -> None:
        """Issuers name the client that an access token was given to in four ways; each will do."""
        text = IDP.access_token(**{"azp": None, name: WEB_CLIENT})
        assert ALICE == read(text, ACCESS_TOKEN).subject

    @pytest.mark.parametrize("algorithm", ["ES256", "RS256", "PS256"])
    def test_each_algorithm(self, algorithm: str) -> None:
        """Tokens are signed by ES256, RS256 or PS256, and by another only if it is refused."""
        idp = PeopleIssuer(NOW.timestamp(), algorithm=algorithm)
        keys = {idp.kid: PublicKey.from_jwk(idp.jwk())}
        assert ALICE == read(idp.id_token(), keys=keys).subject
        others = IssuerRules.of("corp", table(algorithms=sorted({"ES256", "RS256", "PS256"} - {algorithm})))
        assert "bad_algorithm" == code(idp.id_token(), keys=keys, rules=others)

    def test_little_said(self) -> None:
        """A token that says nothing but who it is of, and for how long, is of that person with nothing known of them."""
        claims = {"sid": None, "auth_time": None, "acr": None, "groups": None, "azp": None, "typ": None, "nonce": None}
        person = read(IDP.id_token({"typ": None}, **claims))
        assert ("", 0, "", (), (), {}) == (
            person.session, person.auth_time, person.acr, person.amr, person.groups, dict(person.claims)
        )  # fmt: skip

    def test_headers_that_are_not_known(self) -> None:
        """A header that says nothing of how to read the token is passed over, such as Entra's `x5t`."""
        assert ALICE == read(IDP.sign_oddly(IDP.id_claims(), {"x5t": "abc", "pi.atm": "1"})).subject


class TestKeycloak:
    """Tokens in the form of Keycloak 26.7.3."""

    COMMON: ClassVar[dict[str, Any]] = {
        "jti": "onrtac:63482a18-3331-471b-e330-697fd092186a",
        "sub": "d05facbd-6f46-4c50-ab58-f2e4100ce002",
        "azp": CHAT_CLIENT,
        "sid": "8UVr6sZpXW2WKm-SY7rR_Xr5",
        "acr": "silver",
        "groups": ["/refunds", "/support"],
        "preferred_username": "alice",
        "email": "alice@example.org",
    }
    FORWARDED: ClassVar[dict[str, Any]] = {
        "presenters": [
            {"workloads": [str(CHAT)], "access_token_audiences": ["orders"], "authorized_parties": [CHAT_CLIENT]}
        ]
    }

    def test_id_token(self) -> None:
        """An ID token of a login has the person, the session, the level and the groups."""
        claims = {
            **self.COMMON,
            "typ": "ID",
            "aud": CHAT_CLIENT,
            "at_hash": "xoZV6veLYtE6o4nEEp88Rw",
            "email_verified": True,
        }
        person = read(IDP.sign({"iss": ISSUER, "iat": IDP.at, "exp": IDP.at + 300, "auth_time": IDP.at - 1, **claims}))
        assert ("silver", (), ("refunds", "support"), self.COMMON["sid"]) == (
            person.acr, person.amr, person.groups, person.session
        )  # fmt: skip

    def test_access_token(self) -> None:
        """An access token names the application as its client and not in its audience, where its resources are."""
        claims = {**self.COMMON, "typ": "Bearer", "aud": ["orders", "account"], "scope": "openid profile email"}
        text = IDP.sign({"iss": ISSUER, "iat": IDP.at, "exp": IDP.at + 300, **claims})
        assert "wrong_presenter" == code(text, ACCESS_TOKEN)
        rules = IssuerRules.of("corp", table(**self.FORWARDED))
        assert self.COMMON["sub"] == read(text, ACCESS_TOKEN, rules=rules).subject

    def test_lightweight_access_token(self) -> None:
        """An access token that says neither whose it is nor what it is for is refused, whatever is listed."""
        claims = {"typ": "Bearer", "azp": CHAT_CLIENT, "sid": "S3lkhzFrHlTtWiwquNh4SpeT", "scope": "openid"}
        text = IDP.sign({"iss": ISSUER, "iat": IDP.at, "exp": IDP.at + 300, **claims})
        rules = IssuerRules.of("corp", table(**self.FORWARDED))
        assert "wrong_presenter" == code(text, ACCESS_TOKEN, rules=rules)

    def test_refresh_token(self) -> None:
        """A refresh token is refused by its algorithm, a shared secret, and by what it says it is."""
        claims = {**self.COMMON, "typ": "Refresh", "aud": ISSUER}
        whole = {"iss": ISSUER, "iat": IDP.at, "exp": IDP.at + 300, **claims}
        assert "bad_algorithm" == code(IDP.sign_oddly(whole, {"alg": "HS512"}))
        assert "wrong_kind" == code(IDP.sign(whole))

    def test_service_account(self) -> None:
        """The token of a client's own account is of no person."""
        claims = {**self.COMMON, "typ": "Bearer", "aud": "orders", "preferred_username": "service-account-chat-app"}
        text = IDP.sign({"iss": ISSUER, "iat": IDP.at, "exp": IDP.at + 300, **claims})
        assert "wrong_kind" == code(text, ACCESS_TOKEN, rules=IssuerRules.of("corp", table(**self.FORWARDED)))


class TestShape:
    @pytest.mark.parametrize(
        "header",
        [
            {"crit": ["exp"], "exp": 1},
            {"jku": "https://evil.example/keys"},
            {"jwk": {"kty": "EC"}},
            {"x5c": ["MII"]},
            {"x5u": "https://evil.example/chain"},
            {"zip": "DEF"},
            {"cty": "JWT"},
            {"crit": ["urn:sojourn:jose:asks"], "urn:sojourn:jose:asks": True, "typ": "at+jwt"},
        ],
    )
    def test_headers_that_would_be_followed(self, header: dict[str, Any]) -> None:
        """A header that is critical, or names a key or where one is, is refused before anything else is looked at."""
        assert "malformed" == code(IDP.sign_oddly(IDP.id_claims(), header))

    def test_size(self) -> None:
        """A token of more than 16 KiB is not read."""
        assert "malformed" == code(IDP.id_token(pad="x" * TOKEN_MAX_BYTES))

    @pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c.d", "e30.e30.", "e30.e30.e30"])
    def test_no_token(self, text: str) -> None:
        """What is no compact JWS is malformed."""
        with pytest.raises(InvalidToken):
            parse_unverified_person(text)

    @pytest.mark.parametrize("alg", ["none", "HS256", "ES384", "RS512"])
    def test_algorithms(self, alg: str) -> None:
        """No signature, a shared secret and algorithms that are not configured are refused."""
        assert "bad_algorithm" == code(IDP.sign_oddly(IDP.id_claims(), {"alg": alg}))

    def test_issuer(self) -> None:
        """A token without an issuer is of none that is known; one with a slash more is of another."""
        for issuer in (None, 7, ISSUER + "/", ISSUER.upper(), "https://idp.example.net/realms/corp2"):
            claims = {**IDP.id_claims(), "iss": issuer}
            claims = claims if issuer is not None else {name: claims[name] for name in claims if name != "iss"}
            assert "unknown_issuer" == code(IDP.sign(claims))

    def test_another_key(self) -> None:
        """A signature of another key is not good, also with the ID of a good one; an unknown ID is an unknown key."""
        other = PeopleIssuer(NOW.timestamp())
        assert "bad_signature" == code(other.id_token())
        assert "unknown_key" == code(IDP.id_token({"kid": "k2"}))
        assert "unknown_key" == code(IDP.sign_oddly(IDP.id_claims(), {"kid": None}))

    def test_changed(self) -> None:
        """A token whose claims were changed is refused."""
        head, _, sign = IDP.id_token().split(".")
        _, body, _ = IDP.id_token(sub="bob").split(".")
        assert "bad_signature" == code(f"{head}.{body}.{sign}")


class TestTimes:
    def test_end(self) -> None:
        """The end has no leeway: in its second a token has expired."""
        text = IDP.id_token(exp=IDP.at + 20)
        assert read(text, after=19.9)
        assert "expired" == code(text, after=20)

    @pytest.mark.parametrize("claim", ["iat", "exp"])
    def test_must_be_there(self, claim: str) -> None:
        """A token without iat or exp is malformed, and so is one in which they are no numbers."""
        assert "malformed" == code(IDP.id_token(**{claim: None}))
        assert "malformed" == code(IDP.id_token(**{claim: "1"}))
        assert "malformed" == code(IDP.id_token(**{claim: True}))

    @pytest.mark.parametrize("claim", ["iat", "nbf"])
    def test_clock_ahead(self, claim: str) -> None:
        """An issuer's clock may be a minute ahead, and no more: a token of later is not good yet."""
        assert read(IDP.id_token(**{claim: IDP.at + 60}))
        assert "not_yet_valid" == code(IDP.id_token(**{claim: IDP.at + 61}))

    def test_longest(self) -> None:
        """A token that lives for longer than is configured is refused, however fresh."""
        assert read(IDP.id_token(exp=IDP.at + 3600))
        assert "too_old" == code(IDP.id_token(exp=IDP.at + 3601))

    def test_fresh(self) -> None:
        """A token that was issued longer ago than is configured begins no task."""
        text = IDP.id_token(exp=IDP.at + 3600)
        assert read(text, after=600)
        assert "too_old" == code(text, after=601)

    def test_ends_with_the_token(self) -> None:
        """Tasks live by a token until it expires, and no longer than a session may since the person logged in."""
        assert IDP.at + 300 == read(IDP.id_token()).ends_at
        short = replace(RULES, session_longest=120)
        assert IDP.at - 60 + 120 == read(IDP.id_token(), rules=short).ends_at
        assert IDP.at + 120 == read(IDP.id_token(auth_time=None), rules=short).ends_at

    def test_ends_with_the_session(self) -> None:
        """Where tasks outlive the token, they live until the longest that a session may, counted from the login."""
        found = read(IDP.id_token(), rules=replace(RULES, ends_with_session=True))
        assert (IDP.at + 300, IDP.at - 60 + 12 * 3600) == (found.expires_at, found.ends_at)
        assert IDP.at + 300 == found.by_token_alone().ends_at

    def test_no_session_named(self) -> None:
        """By a token that names no session tasks end with it: its logout could not be told from that of another."""
        assert IDP.at + 300 == read(IDP.id_token(sid=None), rules=replace(RULES, ends_with_session=True)).ends_at

    @pytest.mark.parametrize("ends_with_session", [True, False])
    def test_logged_in_too_long_ago(self, ends_with_session: bool) -> None:
        """Who logged in longer ago than a session may last begins nothing, by however fresh a token."""
        rules = replace(RULES, session_longest=3600, ends_with_session=ends_with_session)
        assert read(IDP.id_token(auth_time=IDP.at - 3599), rules=rules)
        assert "too_old" == code(IDP.id_token(auth_time=IDP.at - 3600), rules=rules)


class TestPresenter:
    """Confused deputies: whose token a workload may bring."""

    def test_of_another_app(self) -> None:
        """An ID token of app A, brought by the workload of app B, is refused, and so the other way round."""
        assert "wrong_presenter" == code(IDP.id_token(), presenter=DESK)
        assert "wrong_presenter" == code(IDP.id_token(aud=DESK_CLIENT, azp=DESK_CLIENT), presenter=CHAT)
        assert read(IDP.id_token(aud=DESK_CLIENT, azp=DESK_CLIENT), presenter=DESK)

    def test_of_nobody(self) -> None:
        """A workload that no table names brings no token of the issuer."""
        assert "wrong_presenter" == code(IDP.id_token(), presenter=SpiffeId.parse("spiffe://example.org/agent/other"))

    def test_lists_are_not_mixed(self) -> None:
        """Of two tables of one workload each is judged as a whole: audience of one and client of the other is refused."""
        two = [
            {"workloads": [str(CHAT)], "access_token_audiences": [CHAT_URL], "authorized_parties": ["a"]},
            {"workloads": [str(CHAT)], "access_token_audiences": ["https://b"], "authorized_parties": [WEB_CLIENT]},
        ]
        rules = IssuerRules.of("corp", table(presenters=two))
        assert "wrong_presenter" == code(IDP.access_token(), ACCESS_TOKEN, rules=rules)
        assert read(IDP.access_token(azp="a"), ACCESS_TOKEN, rules=rules)

    @pytest.mark.parametrize(
        "aud", [[CHAT_CLIENT, "other"], [CHAT_CLIENT, DESK_CLIENT], [], ["other"], None, CHAT_CLIENT + " ", CHAT_URL]
    )
    def test_audiences_of_an_id_token(self, aud: object) -> None:
        """An ID token is for exactly one client, which is the workload's."""
        assert "wrong_presenter" == code(IDP.id_token(aud=aud))

    def test_list_of_one(self) -> None:
        """A list of just the client is the client."""
        assert read(IDP.id_token(aud=[CHAT_CLIENT]))

    @pytest.mark.parametrize("azp", ["other", "", 7, [CHAT_CLIENT], WEB_CLIENT])
    def test_azp_of_an_id_token(self, azp: object) -> None:
        """An ID token whose `azp` is not its audience is refused; one without it is good."""
        assert "wrong_presenter" == code(IDP.id_token(azp=azp))
        assert read(IDP.id_token(azp=None))

    @pytest.mark.parametrize(
        "changes",
        [
            {"azp": None},
            {"azp": "other"},
            {"azp": CHAT_CLIENT},
            {"azp": [WEB_CLIENT]},
            {"client_id": "other"},
            {"azp": None, "client_id": "other"},
            {"azp": None, "appid": "", "cid": WEB_CLIENT},
            {"aud": "https://orders.example.org"},
            {"aud": ["account"]},
            {"aud": None},
            {"aud": CHAT_CLIENT},
        ],
    )
    def test_access_tokens_for_others(self, changes: dict[str, Any]) -> None:
        """An access token for something else, of a client that is not listed, or of one that it does not name."""
        assert "wrong_presenter" == code(IDP.access_token(**changes), ACCESS_TOKEN)

    def test_the_resource_itself(self) -> None:
        """A resource that received a person's access token may not bring it, unless it is listed for that."""
        text = IDP.access_token(aud="https://orders.example.org")
        assert "wrong_presenter" == code(text, ACCESS_TOKEN, DESK)

    @pytest.mark.parametrize(
        "may_act", [{"sub": str(CHAT)}, {"sub": CHAT_CLIENT, "iss": ISSUER}, {"client_id": CHAT_CLIENT}]
    )
    def test_may_act_that_names_it(self, may_act: object) -> None:
        """A token that says who may act for the person is taken from the workload that it names."""
        assert read(IDP.id_token(may_act=may_act))

    @pytest.mark.parametrize(
        "may_act",
        [
            {"sub": str(DESK)},
            {"sub": "other"},
            {"sub": DESK_CLIENT},
            {"sub": CHAT_CLIENT, "iss": "https://evil.example"},
            {"sub": str(CHAT), "client_id": "other"},
            {"sub": str(CHAT), "email": "x@example.org"},
            {"iss": ISSUER},
            {},
            [],
            "x",
            {"sub": [str(CHAT)]},
            {"sub": WEB_CLIENT},
        ],
    )
    def test_may_act_that_names_another(self, may_act: object) -> None:
        """A token that names another, nobody or more than is understood is refused, though it has no actor token."""
        assert "wrong_presenter" == code(IDP.id_token(may_act=may_act))
        assert "wrong_presenter" == code(IDP.access_token(may_act=may_act), ACCESS_TOKEN)

    def test_may_act_of_null(self) -> None:
        """A `may_act` that is null names nobody."""
        assert "wrong_presenter" == code(IDP.sign({**IDP.id_claims(), "may_act": None}))

    @pytest.mark.parametrize("value", [{"sub": "client-7"}, None, {}, "x"])
    def test_actor(self, value: object) -> None:
        """A token for which somebody acts already is refused: the chain would be lost."""
        assert "has_actor" == code(IDP.sign({**IDP.id_claims(), "act": value}))

    @pytest.mark.parametrize("value", [{"jkt": "x"}, None, {}, {"x5t#S256": "x"}])
    def test_bound(self, value: object) -> None:
        """A token that is bound to a key which is not shown here is refused."""
        assert "bound_elsewhere" == code(IDP.sign({**IDP.access_claims(), "cnf": value}), ACCESS_TOKEN)


class TestSubject:
    @pytest.mark.parametrize(
        "sub",
        [
            None,
            "",
            7,
            ["alice"],
            "spiffe://example.org/agent/chat",
            "SPIFFE://example.org/x",
            "a" * 256,
            "a" * 4096,
            "a\x00b",
            "a\nb",
            "\u202ealice",
            "ali\u200bce",
            unicodedata.normalize("NFD", "zoë"),
        ],
    )
    def test_odd_ones(self, sub: object) -> None:
        """A subject that is empty, long, hidden, spelled in another form, or looks like a workload's is refused."""
        claims = {**IDP.id_claims(), "sub": sub}
        assert "malformed" == code(IDP.sign(claims if sub is not None else IDP.id_claims(sub=None)))

    def test_other_letters(self) -> None:
        """A subject in any script is kept byte for byte."""
        assert "zoë|7" == read(IDP.id_token(sub="zoë|7")).subject

    def test_same_subject_at_two_issuers(self) -> None:
        """The same `sub` at another issuer is another person."""
        other = PeopleIssuer(NOW.timestamp(), url="https://partner.example.com")
        rules = IssuerRules.of("partner", table(issuer=other.url))
        theirs = read(other.id_token(), rules=rules, keys={other.kid: PublicKey.from_jwk(other.jwk())})
        assert not theirs.is_same(read(IDP.id_token()))
        assert "partner|" + ALICE == theirs.name

    def test_key_of_another_issuer(self) -> None:
        """A token that names one issuer and is signed by another's key is refused, also under the same key ID."""
        other = PeopleIssuer(NOW.timestamp(), url="https://partner.example.com")
        assert "bad_signature" == code(other.id_token(iss=ISSUER))

    @pytest.mark.parametrize(
        "changes",
        [
            {"sid": ""},
            {"sid": "a" * 256},
            {"sid": 7},
            {"acr": 1},
            {"acr": "a\n"},
            {"amr": "pwd"},
            {"amr": [1]},
            {"amr": ["x"] * 21},
            {"auth_time": "1"},
            {"auth_time": IDP.at + 61},
            {"department": ["refunds"]},
            {"department": {"name": "refunds"}},
            {"department": "a" * 1025},
            {"level": 1.5},
            {"level": 2**63},
        ],
    )
    def test_claims_of_wrong_types(self, changes: dict[str, Any]) -> None:
        """A claim that policies would read and that is not what it should be is a refusal, never left out."""
        assert "malformed" == code(IDP.id_token(**changes))


class TestGroups:
    """Escalation by groups."""

    @pytest.mark.parametrize(
        "groups", [{"support": True}, "support", [["support"]], ["a", 7], [""], ["a\n"], [None], 7]
    )
    def test_no_list_of_texts(self, groups: object) -> None:
        """A group claim that is no list of texts is refused."""
        assert "malformed" == code(IDP.id_token(groups=groups))

    def test_null(self) -> None:
        """A group claim of null is no empty list."""
        assert "malformed" == code(IDP.sign({**IDP.id_claims(), "groups": None}))

    def test_ten_thousand(self) -> None:
        """Ten thousand groups are refused, and as many as the limit are taken."""
        many = [f"{number:x}" for number in range(10_000)]
        assert "malformed" == code(IDP.id_token(groups=many))
        assert "malformed" == code(IDP.id_token(groups=many[: PERSON_GROUPS + 1]))
        assert tuple(sorted(many[:PERSON_GROUPS])) == read(IDP.id_token(groups=many[:PERSON_GROUPS])).groups

    def test_elsewhere(self) -> None:
        """Groups that did not fit, and are to be asked for elsewhere, are not the same as none."""
        text = IDP.id_token(
            groups=None, _claim_names={"groups": "src1"}, _claim_sources={"src1": {"endpoint": "https://x"}}
        )
        assert "malformed" == code(text)
        assert () == read(IDP.id_token(groups=None, _claim_names={"photo": "src1"})).groups

    def test_paths(self) -> None:
        """The slash with which Keycloak's paths begin is left out, once; a group that has no name is refused."""
        assert ("refunds", "support/night", "x/") == read(
            IDP.id_token(groups=["/support/night", "refunds", "/x/"])
        ).groups
        assert "malformed" == code(IDP.id_token(groups=["/"]))

    def test_only_the_claim_that_is_named(self) -> None:
        """Groups come of the claim that the configuration names, and of no other."""
        rules = IssuerRules.of("corp", table(groups="roles"))
        assert ("admin",) == read(IDP.id_token(roles=["admin"]), rules=rules).groups


def test_numbers_that_are_texts_apart() -> None:
    """A claim that is true and one that is 1 are told apart in what is kept of a person."""
    person = read(IDP.id_token(staff=True, level=1))
    again = Person.read(json.loads(json.dumps(person.document())))
    assert (True, int) == (again.claims["staff"] is True, type(again.claims["level"]))
