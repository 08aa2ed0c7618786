"""security_events.py: when a security event token is good (RFC 8417, SSF 1.0). One fault a case."""

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fakes.jws import joined
from fakes.signed_events import AUDIENCE, IDP, claims, issuer_key, risk, signed
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import RSAKey
from sojourn.errors import InvalidEvent
from sojourn.jose.jws import PublicKey
from sojourn.limits import EVENTS_PER_SIGNAL, JWT_LEEWAY_SECONDS, SIGNAL_JTI_MAX
from sojourn.ssf.security_events import ALGORITHMS, Rules, parse_unverified_event, verify

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
AT = NOW.timestamp()
RULES = Rules(IDP, AUDIENCE, 600)
KEY, OTHER = issuer_key(), issuer_key("k2")
KEYS = {"k1": KEY.public}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def read(token, keys=KEYS, rules=RULES):
    return verify(parse_unverified_event(token), rules, keys, NOW)


def refusal(token, keys=KEYS):
    """The RFC 8935 code by which a token is refused."""
    with pytest.raises(InvalidEvent) as caught:
        read(token, keys)
    return caught.value.err


def payload(text):
    return joined({"alg": "ES256", "kid": "k1", "typ": "secevent+jwt"}, text.encode(), KEY)


class TestGood:
    def test_is_read(self):
        """A good token gives its issuer, its time, its events, and digests by which it is known again."""
        event = read(signed(KEY, AT))
        assert (IDP, NOW, risk()) == (event.issuer, event.issued_at, event.events)
        assert {64} == {len(event.id), len(event.digest)}

    @pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE]])
    def test_audience_is_one(self, audience):
        """`aud` may be a text or a list of one."""
        assert read(signed(KEY, AT, aud=audience)).issuer == IDP

    def test_is_known_by_issuer_and_jti(self):
        """Two tokens with one jti have one id, with or without the same claims; another issuer's has another."""
        first, second = (read(signed(KEY, AT, jti="x", events=risk(level))) for level in ("HIGH", "LOW"))
        other = read(signed(KEY, AT, jti="x", iss="https://b/"), rules=Rules("https://b/", AUDIENCE, 600))
        assert first.id == second.id != other.id
        assert first.digest != second.digest

    @pytest.mark.parametrize("at", [AT - 600, AT + JWT_LEEWAY_SECONDS, AT - 0.5])
    def test_times_at_the_edge(self, at):
        """An event of the greatest age and one ahead by the allowed skew are good."""
        assert read(KEY.sign({**claims(AT), "iat": at}, typ="secevent+jwt")).issued_at.timestamp() == at

    @pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
    def test_rsa(self, algorithm):
        """RSA signatures of both kinds are good."""
        key = RSAKey.import_key(rsa.generate_private_key(65537, 2048))
        header = {"alg": algorithm, "kid": "r", "typ": "secevent+jwt"}
        token = jws.serialize_compact(header, json.dumps(claims(AT)), key, algorithms=[algorithm])
        public = PublicKey.from_jwk({**key.as_dict(private=False), "kid": "r"})
        assert read(token, {"r": public}).issuer == IDP

    def test_unknown_claims_and_events_are_no_fault(self):
        """What transmitters say beside is passed over."""
        event = read(signed(KEY, AT, txn="t", toe=1, events={"https://example.net/new": {}, **risk()}))
        assert 2 == len(event.events)


class TestEnvelope:
    @pytest.mark.parametrize("typ", ["JWT", "at+jwt", "SECEVENT+JWT", "application/secevent+jwt", "secevent+jwt ", ""])
    def test_other_types_are_refused(self, typ):
        """A token of any other type is no event, spelt otherwise too."""
        assert "invalid_request" == refusal(signed(KEY, AT, typ=typ))

    def test_no_type_is_refused(self):
        """A token without a type is no event."""
        assert "invalid_request" == refusal(joined({"alg": "ES256", "kid": "k1"}, json.dumps(claims(AT)).encode(), KEY))

    @pytest.mark.parametrize("algorithm", ["none", "HS256", "ES512", "RS384", "RS512", "PS384", "PS512", "ES256K"])
    def test_other_algorithms_are_refused(self, algorithm):
        """An algorithm out of the closed list is refused whatever the signature is."""
        assert algorithm not in ALGORITHMS
        header = {"alg": algorithm, "kid": "k1", "typ": "secevent+jwt"}
        assert "invalid_key" == refusal(joined(header, json.dumps(claims(AT)).encode(), KEY))

    @pytest.mark.parametrize("header", [{"crit": ["b64"]}, {"jwk": {}}, {"jku": "https://x/"}, {"x5u": "https://x/"}])
    def test_other_headers_are_refused(self, header):
        """No header may bring a key along, or ask for what is not understood."""
        made = {"alg": "ES256", "kid": "k1", "typ": "secevent+jwt", **header}
        assert "invalid_request" == refusal(joined(made, json.dumps(claims(AT)).encode(), KEY))

    @pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d", "{}", "é.e.e"])
    def test_what_is_no_jws_is_refused(self, text):
        """What is not a compact JWS is refused."""
        assert "invalid_request" == refusal(text)

    def test_duplicate_members_are_refused(self):
        """A member that is there twice is refused, at the top and within."""
        text = json.dumps(claims(AT))
        assert "invalid_request" == refusal(payload(text[:-1] + ',"aud":"x"}'))
        assert "invalid_request" == refusal(payload(text.replace('"principal"', '"current_level":"LOW","principal"')))

    def test_deep_nesting_is_refused(self):
        """Claims nested deeper than anything good is are refused."""
        nested = '{"a":' * 40 + "1" + "}" * 40
        text = json.dumps(claims(AT))[:-1] + f',"deep":{nested}}}'
        assert "invalid_request" == refusal(payload(text))

    def test_deep_nesting_at_the_edge_of_the_size(self):
        """The deepest nesting that fits the size limit is refused in good order."""
        assert "invalid_request" == refusal(payload('{"a":' * 1_900 + "1" + "}" * 1_900))


class TestKeys:
    def test_forged(self):
        """A signature by another key with the same kid is not the issuer's."""
        assert "authentication_failed" == refusal(signed(issuer_key("k1"), AT))

    def test_changed(self):
        """Claims that were changed after signing are refused."""
        header, _, signature = signed(KEY, AT).split(".")
        other = signed(KEY, AT, events=risk("LOW")).split(".")[1]
        assert "authentication_failed" == refusal(f"{header}.{other}.{signature}")

    def test_unknown_key(self):
        """A kid that the issuer does not have is refused, and so is none."""
        assert "invalid_key" == refusal(signed(OTHER, AT))
        header = {"alg": "ES256", "typ": "secevent+jwt"}
        assert "invalid_key" == refusal(joined(header, json.dumps(claims(AT)).encode(), KEY))

    def test_key_of_another_kind(self):
        """An EC signature is not checked with an RSA key, nor with one that is for another algorithm."""
        short = rsa.generate_private_key(65537, 2048).public_key()
        assert "invalid_key" == refusal(signed(KEY, AT), {"k1": PublicKey.from_key("k1", short)})
        bound = PublicKey.from_jwk({**KEY.public.jwk, "alg": "ES384"})
        assert "invalid_key" == refusal(signed(KEY, AT), {"k1": bound})

    def test_rules_of_another_issuer(self):
        """A token is checked by its own issuer's rules only."""
        with pytest.raises(InvalidEvent) as caught:
            read(signed(KEY, AT), rules=Rules("https://b/", AUDIENCE, 600))
        assert "invalid_issuer" == caught.value.err


class TestClaims:
    @pytest.mark.parametrize("name", ["sub", "exp"])
    @pytest.mark.parametrize("value", [None, "x", AT + 60, {}])
    def test_claims_that_must_be_absent(self, name, value):
        """`sub` and `exp` make it no event, whatever they hold."""
        token = KEY.sign({**claims(AT), name: value}, typ="secevent+jwt")
        assert "invalid_request" == refusal(token)

    @pytest.mark.parametrize("audience", [None, "https://other", [], [AUDIENCE, "https://other"], [AUDIENCE, AUDIENCE]])
    def test_wrong_audience(self, audience):
        """What is for nobody, for others, or for others too, is not for us."""
        assert "invalid_audience" == refusal(signed(KEY, AT, aud=audience))

    @pytest.mark.parametrize("issuer", [None, 7, "", ["https://idp.example.net/"]])
    def test_no_issuer(self, issuer):
        """A token without an issuer has nobody's keys."""
        assert "invalid_issuer" == refusal(signed(KEY, AT, iss=issuer))

    @pytest.mark.parametrize(
        "issuer", ["https://idp.example.net", "https://IDP.example.net/", "http://idp.example.net/"]
    )
    def test_issuers_are_compared_byte_for_byte(self, issuer):
        """An issuer that looks like a known one is another."""
        assert "invalid_issuer" == refusal(signed(KEY, AT, iss=issuer))

    @pytest.mark.parametrize("jti", [None, "", 7, "x" * (SIGNAL_JTI_MAX + 1), ["x"]])
    def test_jti(self, jti):
        """Without a usable jti an event could not be told from another."""
        assert "invalid_request" == refusal(signed(KEY, AT, jti=jti))

    @pytest.mark.parametrize("at", [AT - 601, AT + JWT_LEEWAY_SECONDS + 1, 0, 2**53, -1, 2**60, "1", None, True])
    def test_iat(self, at):
        """What is too old, from the future, or without a time is refused."""
        token = KEY.sign({**claims(AT), "iat": at}, typ="secevent+jwt")
        assert "invalid_request" == refusal(token)

    @pytest.mark.parametrize(
        "events",
        [None, [], {}, "x", ["https://x"], {"https://x": None}, {"https://x": []}, {f"e{n}": {} for n in range(21)}],
    )
    def test_events(self, events):
        """`events` is an object of at least one object and not too many."""
        assert 21 > EVENTS_PER_SIGNAL
        assert "invalid_request" == refusal(signed(KEY, AT, events=events))

    @given(st.dictionaries(st.sampled_from([*claims(AT), "sub", "exp", "x"]), json_values, max_size=4))
    @examples(300)
    def test_ours_or_nothing(self, changes):
        """Whatever a signed token claims, it is good or refused by an error of ours."""
        token = KEY.sign({**claims(AT), **changes}, typ="secevent+jwt")
        try:
            event = read(token)
        except InvalidEvent:
            return
        assert event.issuer == IDP
        assert {"sub", "exp"}.isdisjoint(changes)
