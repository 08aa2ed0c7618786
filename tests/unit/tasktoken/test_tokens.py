"""tokens.py: which task tokens are good. Everything else is refused, with a code that says why."""

import base64
import json
from datetime import timedelta

import pytest
from fakes.tasktokens import (
    CLAIMS,
    DB,
    DETAIL,
    ISSUER,
    KEY,
    NOW,
    OTHER,
    SECONDS,
    TASK,
    WEB,
    issue,
    refusal,
    token,
    verify,
    with_header,
)
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidToken
from sojourn.jose.jws import parse_unverified
from sojourn.jose.signatures import Signatures
from sojourn.limits import TOKEN_SKEW_SECONDS
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken import tokens
from sojourn.tasktoken.sender_constraint import JKT, Binding, Proven
from sojourn.tasktoken.task_claim import TaskClaim

OPS, DESK = (SpiffeId.parse(f"spiffe://example.org/{name}") for name in ("ops", "desk"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


class TestVerify:
    def test_good(self):
        """A good token gives its ID, resource, actions, task and end."""
        read = verify(token())
        expected = (WEB, DB, ("read", "write"), "t1", "report", 3, NOW + timedelta(seconds=60))
        assert expected == (
            read.spiffe_id,
            read.resource,
            read.actions,
            read.task_id,
            read.task_type,
            read.task_version,
            read.expires_at,
        )
        claims = CLAIMS
        assert claims == read.claims

    @pytest.mark.parametrize(
        "typ", ["", "JWT", "JOSE", "AT+JWT", "at+jwt ", "application/at+jwt", "dpop+jwt", "logout+jwt"]
    )
    def test_other_types(self, typ):
        """A token of another type is no task token."""
        expected = "wrong_type"
        assert expected == refusal(token(typ=typ))

    def test_type_absent(self):
        """A token without type is no task token (RFC 9068 4)."""
        expected = "wrong_type"
        assert expected == refusal(with_header({"alg": "ES256", "kid": "k1"}))

    @pytest.mark.parametrize("name", ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "cty"])
    def test_other_headers(self, name):
        """A header beyond alg, kid and typ is refused though it is signed."""
        expected = "malformed"
        assert expected == refusal(with_header({"alg": "ES256", "kid": "k1", "typ": "at+jwt", name: "x"}))

    @pytest.mark.parametrize("kid", ["", "K1", "k", "k11", "k1\0", "../k1", "k" * 300])
    def test_kid(self, kid):
        """The key is found by its exact id."""
        expected = "unknown_key"
        assert expected == refusal(with_header({"alg": "ES256", "kid": kid, "typ": "at+jwt"}))

    def test_kid_absent(self):
        """A token without key id is refused, also if there is just one key."""
        expected = "unknown_key"
        assert expected == refusal(with_header({"alg": "ES256", "typ": "at+jwt"}))

    def test_no_key(self):
        """With no key nothing verifies."""
        expected = "unknown_key"
        assert expected == refusal(token(), keys={})

    def test_retired_key(self):
        """A token of a key that is there no more is refused, though another has its id."""
        expected = "bad_signature"
        assert expected == refusal(token(), keys={"k1": OTHER.public})

    def test_signature_is_judged_before_claims(self):
        """An unsigned token learns nothing of issuer, audience and times."""
        expected = "bad_signature"
        assert expected == refusal(token({"iss": "x", "aud": "x", "exp": 1}, key=OTHER))

    @pytest.mark.parametrize(
        "issuer",
        [
            ISSUER + "/",
            ISSUER.upper(),
            ISSUER[:-1],
            ISSUER + ".evil",
            "https://agent.example.org@evil",
            "",
            None,
            [ISSUER],
            {ISSUER: 1},
            1,
        ],
        ids=repr,
    )
    def test_issuer(self, issuer):
        """A token of another issuer is refused; issuers are compared byte for byte (CVE-2024-53861)."""
        expected = "wrong_issuer"
        assert expected == refusal(token({"iss": issuer}))

    @pytest.mark.parametrize(
        "audience",
        [
            pytest.param(DB + "/", id="trailing-slash"),
            pytest.param(DB.upper(), id="case"),
            pytest.param(DB[:-1], id="prefix"),
            pytest.param(DB + "x", id="longer"),
            pytest.param(f" {DB}", id="space"),
            pytest.param([DB, "https://other.example"], id="mine-among-others"),
            pytest.param([DB, DB], id="mine-twice"),
            pytest.param([], id="empty-list"),
            pytest.param("https://other.example", id="other"),
        ],
    )
    def test_audience(self, audience):
        """A token for anything but my one audience is refused."""
        expected = "wrong_audience"
        assert expected == refusal(token({"aud": audience}))

    @pytest.mark.parametrize("value", [None, True, 1, {}, "", [""], [1], [[DB]]], ids=repr)
    def test_audience_types(self, value):
        """An audience of a wrong type is refused."""
        expected = "malformed"
        assert expected == refusal(token({"aud": value}))

    def test_audience_as_list_of_one(self):
        """A list of just my audience is good (RFC 7519 4.1.3)."""
        expected = DB
        assert expected == str(verify(token({"aud": [DB]})).resource)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            pytest.param({"exp": SECONDS + 1}, None, id="exp-next-second"),
            pytest.param({"exp": SECONDS}, "expired", id="exp-now"),
            pytest.param({"exp": SECONDS - 1}, "expired", id="exp-past"),
            pytest.param({"exp": 0}, "expired", id="exp-zero"),
            pytest.param({"exp": SECONDS + 0.5}, None, id="exp-fraction"),
            pytest.param({"iat": SECONDS + TOKEN_SKEW_SECONDS}, None, id="iat-at-the-skew"),
            pytest.param({"iat": SECONDS + TOKEN_SKEW_SECONDS + 1}, "not_yet_valid", id="iat-past-the-skew"),
            pytest.param({"nbf": SECONDS + TOKEN_SKEW_SECONDS}, None, id="nbf-at-the-skew"),
            pytest.param({"nbf": SECONDS + TOKEN_SKEW_SECONDS + 1}, "not_yet_valid", id="nbf-past-the-skew"),
            pytest.param({"iat": 0}, None, id="iat-long-ago"),
        ],
    )
    def test_times(self, changes, reason):
        """The end has no leeway; the begin has TOKEN_SKEW_SECONDS."""
        if reason is None:
            expected = WEB
            assert expected == verify(token(changes)).spiffe_id
        else:
            assert reason == refusal(token(changes))

    def test_end_comes_with_time(self):
        """The same token is good until its last second has passed."""
        text = token()
        expected = WEB
        assert expected == verify(text, now=NOW + timedelta(seconds=59)).spiffe_id
        expected = "expired"
        assert expected == refusal(text, now=NOW + timedelta(seconds=60))

    @pytest.mark.parametrize("expires", [253_402_300_799, 253_402_300_800, 10**12, 2**53])
    def test_far_expiry(self, expires):
        """A token that ends beyond the calendar is read or refused without a foreign error."""
        try:
            year = verify(token({"exp": expires})).expires_at.year
        except InvalidToken:
            return
        expected = 9999
        assert expected == year

    @pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat", "authorization_details", "task"])
    def test_claim_absent(self, name):
        """A token without one of the claims that are read is refused."""
        with pytest.raises(InvalidToken):
            verify(token(without=name))

    @pytest.mark.parametrize("name", ["nbf", "jti", "client_id"])
    def test_claim_not_read(self, name):
        """A token without nbf, or what nobody here reads, is good."""
        expected = WEB
        assert expected == verify(token(without=name)).spiffe_id

    @pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat", "nbf", "authorization_details", "task"])
    @pytest.mark.parametrize(
        "value",
        [None, True, False, -1, 10**400, "", "canary", str(SECONDS), [], [1], {}, {"a": 1}],
        ids=lambda value: repr(value)[:12],
    )
    def test_claim_types(self, name, value):
        """A token one of whose claims has a wrong type or range is refused."""
        with pytest.raises(InvalidToken):
            verify(token({name: value}))

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"id": None}, id="id-null"),
            pytest.param({"id": 1}, id="id-number"),
            pytest.param({"id": ["t1"]}, id="id-list"),
            pytest.param({"type": None}, id="type-null"),
            pytest.param({"type": "other"}, id="type-of-another"),
            pytest.param({"type": "Report"}, id="type-case"),
            pytest.param({"ver": None}, id="version-null"),
            pytest.param({"ver": "3"}, id="version-string"),
            pytest.param({"ver": 3.0}, id="version-fraction"),
            pytest.param({"ver": True}, id="version-true"),
        ],
    )
    def test_task(self, change):
        """A token whose task has one fault is refused."""
        expected = "malformed"
        assert expected == refusal(token({"task": {**TASK, **change}}))

    @pytest.mark.parametrize("name", ["id", "type", "ver"])
    def test_task_member_missing(self, name):
        """A token whose task lacks id, type or version is refused."""
        expected = "malformed"
        assert expected == refusal(token({"task": {key: value for key, value in TASK.items() if key != name}}))

    @pytest.mark.parametrize(
        ("task", "expected"),
        [
            (TASK, "normal"),
            ({**TASK, "class": "high"}, "high"),
            ({name: value for name, value in TASK.items() if name != "class"}, "high"),
            *(
                ({**TASK, "class": value}, "high")
                for value in (None, "", "Normal", "low", "normal ", 1, ["normal"], {})
            ),
        ],
    )
    def test_class(self, task, expected):
        """A token is of the class `normal` if it says exactly that, and of the class `high` whatever else it says."""
        assert expected == verify(token({"task": task})).task_class

    @pytest.mark.parametrize(
        "details",
        [
            pytest.param([], id="none"),
            pytest.param([{**DETAIL, "locations": ["https://other.example"]}], id="other-location"),
            pytest.param([{**DETAIL, "locations": [DB, "https://other.example"]}], id="two-locations"),
            pytest.param([DETAIL, {**DETAIL, "locations": ["https://other.example"]}], id="two-elements"),
            pytest.param([{**DETAIL, "type": "other"}], id="other-type"),
            pytest.param([DETAIL, {**DETAIL, "type": "other"}], id="two-types"),
            pytest.param([{**DETAIL, "actions": []}], id="no-action"),
            pytest.param([{**DETAIL, "actions": ["*"]}], id="star"),
            pytest.param([{**DETAIL, "privileges": ["admin"]}], id="unknown-member"),
            pytest.param([[]], id="list-in-list"),
            pytest.param(["read"], id="string-element"),
        ],
    )
    def test_authorization(self, details):
        """A token whose authorization is not for just its audience and task is refused."""
        expected = "malformed"
        assert expected == refusal(token({"authorization_details": details}))

    @pytest.mark.parametrize(
        "subject", ["", "web", "spiffe://EXAMPLE.org/web", "spiffe://example.org/web\n", "https://a/b"]
    )
    def test_subject(self, subject):
        """A token whose subject is no SPIFFE ID is refused."""
        expected = "malformed"
        assert expected == refusal(token({"sub": subject}))

    @pytest.mark.parametrize("value", [{"jkt": "x"}, {}, None, "x"], ids=repr)
    def test_bound_token(self, value):
        """A token that is bound to a key is refused, because nothing here checks possession."""
        expected = "unproved_binding"
        assert expected == refusal(token({"cnf": value}))

    def test_duplicate_members(self):
        """A token that says a thing twice is refused."""
        text = json.dumps(CLAIMS)[:-1] + f', "exp": {SECONDS + 10**6}' + "}"
        parts = (b'{"alg":"ES256","kid":"k1","typ":"at+jwt"}', text.encode())
        signed = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
        expected = "malformed"
        assert expected == refusal(f"{signed}.AAAA")

    def test_public_text_is_short(self):
        """What a hostile token says does not make an error's public text long."""
        with pytest.raises(InvalidToken) as caught:
            verify(token(typ="t" * 8_000))
        assert len(caught.value.public) <= 1024

    @examples(200)
    @given(st.text())
    def test_any_text(self, text):
        """No text that we did not sign is a task token, and none lets a foreign error out."""
        with pytest.raises(InvalidToken):
            verify(text)

    @examples(300)
    @given(
        st.dictionaries(st.sampled_from(sorted(CLAIMS)), json_values, max_size=3),
        st.dictionaries(st.sampled_from(sorted(TASK)), json_values, max_size=2),
        st.dictionaries(st.sampled_from([*sorted(DETAIL), "x"]), json_values, max_size=2),
    )
    def test_any_claims(self, claims, task, detail):
        """Any claims that are signed by the right key are a task token for my audience, or InvalidToken."""
        base = {"task": {**TASK, **task}, "authorization_details": [{**DETAIL, **detail}]}
        try:
            read = verify(token({**base, **claims}))
        except InvalidToken:
            return
        resource = DB
        assert resource == read.resource
        assert read.actions


class TestReadIssued:
    """What the issuer reads of a token of its own, whatever has become of it."""

    def read(self, text, **changes):
        return tokens.read_issued(text, **{"keys": {"k1": KEY.public}, "issuer": ISSUER, "now": NOW, **changes})

    def test_whatever_has_become_of_it(self):
        """A token that is over, or bound to a key that nobody has shown, is read with all that it says."""
        issued = issue(binding=Binding("jkt", "a" * 43), actors=(OPS,), params={"n": 1}, params_digest="b" * 43)
        read = self.read(issued.token, now=NOW + timedelta(days=1))
        assert issued == read
        assert read.expires_at.tzinfo is NOW.tzinfo

    def test_once_parsed(self):
        """A token that was parsed before is read as its text is."""
        issued = issue()
        assert issued == self.read(parse_unverified(issued.token))

    @pytest.mark.parametrize("audience", [[], [DB, DB + "/2"], [DB, DB]])
    def test_audiences(self, audience):
        """A token for several audiences, or for none, is none of ours."""
        with pytest.raises(InvalidToken) as refused:
            self.read(token({"aud": audience}))
        assert "malformed" == refused.value.reason_code

    def test_of_another(self):
        """A token of another key or issuer is not read."""
        for text, changes, code in (
            (token(key=OTHER), {}, "bad_signature"),
            (token(), {"issuer": "https://other.example"}, "wrong_issuer"),
            (token(), {"keys": {}}, "unknown_key"),
        ):
            with pytest.raises(InvalidToken) as refused:
                self.read(text, **changes)
            assert code == refused.value.reason_code

    def test_a_signature_that_was_made_here(self):
        """Where signatures are kept, one that was checked before is not checked again, and another one is."""
        signatures = Signatures(10)
        issued = issue()
        signatures.made(issued.token, KEY.public)
        assert issued == self.read(issued.token, signatures=signatures)
        with pytest.raises(InvalidToken):
            self.read(token(key=OTHER), signatures=signatures)


class TestThatComesBack:
    """A token that comes back is not read again, and is checked as if it had not come before."""

    def test_as_it_was_read(self):
        """It says what it said, and to another audience nothing."""
        signatures, text = Signatures(read=1), token()
        first, again = (self.verified(signatures, text) for _ in range(2))
        assert first is again
        with pytest.raises(InvalidToken) as refused:
            self.verified(signatures, text, audience="https://other.example")
        assert "wrong_audience" == refused.value.reason_code

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"now": NOW + timedelta(hours=1)}, "expired"),
            ({"now": NOW - timedelta(hours=1)}, "not_yet_valid"),
            ({"keys": {}}, "unknown_key"),
            ({"keys": {"k1": OTHER.public}}, "bad_signature"),
            ({"issuer": "https://other.example"}, "wrong_issuer"),
        ],
    )
    def test_checked_each_time(self, changes, code):
        """Its times, its key and its issuer are looked at each time."""
        signatures, text = Signatures(read=1), token()
        self.verified(signatures, text)
        with pytest.raises(InvalidToken) as refused:
            self.verified(signatures, text, **changes)
        assert code == refused.value.reason_code

    def test_the_sender_each_time(self):
        """Whether its sender holds what it is bound to is looked at each time."""
        signatures, bound = Signatures(read=1), Binding(JKT, "c" * 43)
        text = issue(binding=bound).token
        assert bound == self.verified(signatures, text, proven=Proven(jkt="c" * 43)).binding
        with pytest.raises(InvalidToken):
            self.verified(signatures, text)

    @staticmethod
    def verified(signatures, text, **changes):
        asked = {"keys": {KEY.kid: KEY.public}, "issuer": ISSUER, "audience": None, "now": NOW, **changes}
        return tokens.verify(signatures.parse_unverified(text), signatures=signatures, **asked)


class TestExpired:
    @pytest.mark.parametrize(("after", "steady", "over"), [(59, 1_059, False), (60, 1_059, True), (1, 1_060, True)])
    def test_by_either_clock(self, after, steady, over):
        """A token's time is up as soon as it is by one of the clocks."""
        issued = issue(steady=1_000.0)
        assert over is tokens.has_expired(issued, NOW + timedelta(seconds=after), steady)

    def test_not_yet(self):
        """A token that is of a time to come is none yet."""
        assert tokens.has_expired(issue(), NOW - timedelta(days=1), None)


class TestConcerning:
    def test_what_is_compared(self):
        """Of an action those parameters are told that concern it, and all of one of which the type says nothing."""
        issued = issue(params={"a": "1", "b": "2"}, task=TaskClaim("t1", "report", 3, "normal", {"read": ("b",)}))
        assert ({"b": "2"}, {"a": "1", "b": "2"}) == (issued.concerning("read"), issued.concerning("write"))


class TestActors:
    def test_nested(self):
        """Who acts stands outermost, each who acted before within the next (RFC 8693, 4.1), and is read so."""
        issued = issue(actors=(OPS, DESK))
        assert {"sub": str(OPS), "act": {"sub": str(DESK)}} == issued.claims["act"]
        assert (OPS, DESK) == verify(issued.token).actors
