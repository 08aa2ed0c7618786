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
    NOW,
    OTHER,
    SECONDS,
    TASK,
    WEB,
    refusal,
    token,
    verify,
    with_header,
)
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidToken
from sojourn.limits import TOKEN_SKEW_SECONDS

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
