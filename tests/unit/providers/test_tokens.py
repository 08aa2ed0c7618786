"""What a token endpoint answers is read strictly: a token that is not what was asked for is not used."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from fakes.mints import part
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import SojournError
from sojourn.limits import PROVIDER_RETRY_AFTER_MAX_SECONDS, PROVIDER_TOKEN_MAX_SECONDS, TOKEN_MAX_BYTES
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import HttpResponse
from sojourn.providers.provider import NOT_OAUTH
from sojourn.providers.tokens import TYPE_PREFIX, Expected, Granted, Unfit, read_token, refusal, unverified_claims

NOW = datetime(2030, 1, 1, tzinfo=UTC)
GOOD = {"access_token": "opaque-1", "token_type": "Bearer", "expires_in": 300}


def answer(status: int = 200, body: object = None, **headers: str) -> HttpResponse:
    return HttpResponse(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def read(expected: Expected | None = None, **changes: Any) -> Granted:
    body = {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}
    return read_token(
        answer(200, body), expected or Expected(), step="exchange", asked_at=NOW, now=NOW, hints=lambda *_: ""
    )


def jwt(**claims: object) -> str:
    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2ln"


def failed(status: int, body: object = b"", **headers: str) -> ProviderRefused | ProviderUnavailable:
    return refusal(answer(status, body, **headers), step="exchange", now=NOW, hints=lambda error, _: f"hint {error}")


class TestReadToken:
    def test_good(self) -> None:
        """A bearer token is good from when it was asked for, for as long as the answer says."""
        found = read(token_type="bEARER", scope="a b")
        assert ("opaque-1", "Bearer", NOW + timedelta(seconds=300)) == (found.token, found.token_type, found.expires_at)
        assert {"scope": "a b"} == found.public()

    @pytest.mark.parametrize(
        "lasts", [..., None, 0, -1, "300", 300.5, True, PROVIDER_TOKEN_MAX_SECONDS + 1, [300], 10**30]
    )
    def test_life_unknown(self, lasts: object) -> None:
        """A token that is good for nobody knows how long is not used, and is to be taken back."""
        with pytest.raises(Unfit) as unfit:
            read(expires_in=lasts)
        assert ("opaque-1",) == unfit.value.tokens

    @pytest.mark.parametrize("kind", [..., None, "DPoP", "mac", "N_A", "", 1])
    def test_no_bearer_token(self, kind: object) -> None:
        """A token that needs a proof, or of a type that is not known, is not used."""
        with pytest.raises(Unfit):
            read(token_type=kind)

    @pytest.mark.parametrize("token", ["a b", "a\nb", "tok\u00e9n", "a\x00", "=", "a" * (TOKEN_MAX_BYTES + 1)])
    def test_no_token(self, token: str) -> None:
        """What no header can carry, and what is too large, is no token, and is to be taken back."""
        with pytest.raises(Unfit) as unfit:
            read(access_token=token)
        assert (token,) == unfit.value.tokens

    @pytest.mark.parametrize("token", ["", None, 7, ...])
    def test_none_at_all(self, token: object) -> None:
        """An answer that says yes and has none may have given one that nobody knows."""
        with pytest.raises(ProviderUnavailable) as unavailable:
            read(access_token=token)
        assert unavailable.value.sent

    def test_earlier_of_two_ends(self) -> None:
        """Of a JWT's `exp` and the answer's `expires_in` the earlier counts."""
        early, late = (int((NOW + timedelta(seconds=each)).timestamp()) for each in (60, 3600))
        assert NOW + timedelta(seconds=60) == read(access_token=jwt(exp=early)).expires_at
        assert NOW + timedelta(seconds=300) == read(access_token=jwt(exp=late)).expires_at

    @pytest.mark.parametrize("exp", [0, -(10**30), 1.5])
    def test_over_already(self, exp: float) -> None:
        """A JWT that has ended is not handed out."""
        with pytest.raises(Unfit, match="over already"):
            read(access_token=jwt(exp=exp))

    @pytest.mark.parametrize("exp", [10**30, True, "soon", None])
    def test_odd_exp(self, exp: object) -> None:
        """An `exp` that is no time says nothing: the answer's own counts."""
        assert NOW + timedelta(seconds=300) == read(access_token=jwt(exp=exp)).expires_at

    def test_scope(self) -> None:
        """Scope as asked for or less is good; more is not, and the token is taken back."""
        expected = Expected("a b", frozenset({"a", "b"}))
        assert "a" == read(expected, scope="a").scope
        assert "a b" == read(expected).scope
        with pytest.raises(Unfit, match="more scope") as unfit:
            read(expected, scope="a admin")
        assert "tolerated_scopes" in unfit.value.hint
        with pytest.raises(Unfit):
            read(expected, scope=["a"])

    def test_issued_type(self) -> None:
        """A token of another type than was asked for is not used."""
        id_token = TYPE_PREFIX + "id_token"
        found = read(Expected(issued_type=id_token, bearer=False), issued_token_type=id_token, token_type="N_A")
        assert (NOT_OAUTH, id_token) == (found.token_type, found.issued_type)
        for expected in (Expected(), Expected(issued_type=id_token, bearer=False)):
            with pytest.raises(Unfit, match="issued_token_type"):
                read(expected, issued_token_type=TYPE_PREFIX + "refresh_token")

    def test_refresh_token_is_taken_back_too(self) -> None:
        """A refresh token that comes along is known, so that it is ended with the rest."""
        assert "r" == read(refresh_token="r").refresh_token
        with pytest.raises(Unfit) as unfit:
            read(refresh_token="r", token_type="x")
        assert ("opaque-1", "r") == unfit.value.tokens

    def test_nothing_shown(self) -> None:
        """Neither what was read nor what was refused shows a token."""
        found = read(access_token="opaque-secret", refresh_token="refresh-secret")
        assert "secret" not in repr(found)
        with pytest.raises(Unfit) as unfit:
            read(access_token="opaque-secret", expires_in=0)
        assert "secret" not in repr(unfit.value) + unfit.value.public + unfit.value.detail

    @given(
        st.binary(max_size=200)
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda each: (
                st.lists(each)
                | st.dictionaries(st.sampled_from(["access_token", "token_type", "expires_in", "scope", "x"]), each)
            ),
        )
    )
    def test_ours_or_nothing(self, body: object) -> None:
        """Whatever is answered, it is a token or an error of ours."""
        try:
            read_token(answer(200, body), Expected(), step="s", asked_at=NOW, now=NOW, hints=lambda *_: "")
        except SojournError:
            return

    @given(st.text(max_size=80) | st.tuples(*3 * [st.text("ab_-.=", max_size=9)]).map(".".join))
    def test_claims_of_anything(self, token: str) -> None:
        """Reading what a token says of itself never raises."""
        assert isinstance(unverified_claims(token), dict)


class TestRefusal:
    @pytest.mark.parametrize(
        "error",
        [
            "invalid_client",
            "invalid_grant",
            "unauthorized_client",
            "invalid_scope",
            "invalid_target",
            "access_denied",
            "whatever",
        ],
    )
    def test_no(self, error: str) -> None:
        """What OAuth calls an error is a no, with its code and what to do."""
        found = failed(400, {"error": error, "error_description": "because"})
        assert isinstance(found, ProviderRefused)
        assert ("exchange", error, f"hint {error}") == (found.step, found.said, found.hint)
        assert "because" in found.public

    @pytest.mark.parametrize(
        ("status", "body", "sent"),
        [
            (500, b"", True),
            (502, b"<html>", True),
            (503, {"error": "temporarily_unavailable"}, False),
            (400, {"error": "temporarily_unavailable"}, False),
            (400, {"error": "slow_down"}, False),
            (429, {"error": "invalid_request"}, False),
            (404, b"", False),
            (403, b"<html>", False),
            (400, {"error": 1}, False),
            (400, [], False),
            (201, GOOD, True),
        ],
    )
    def test_not_now(self, status: int, body: object, sent: bool) -> None:
        """A server that has trouble, or is none, may do it later."""
        found = failed(status, body)
        assert isinstance(found, ProviderUnavailable)
        assert sent is found.sent

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("7", 7),
            ("0", 0),
            ("-5", 0),
            ("x", 0),
            ("99999999999999", 0),
            ("999999", PROVIDER_RETRY_AFTER_MAX_SECONDS),
            (format_datetime(NOW + timedelta(seconds=9), usegmt=True), 9),
            (format_datetime(NOW - timedelta(seconds=9), usegmt=True), 0),
        ],
    )
    def test_retry_after(self, text: str, seconds: float) -> None:
        """A token endpoint that names a time is asked again then, within limits."""
        found = failed(503, **{"retry-after": text})
        assert isinstance(found, ProviderUnavailable)
        assert seconds == found.retry_after

    @pytest.mark.parametrize(("status", "sent"), [(201, True), (204, True), (404, False), (401, False)])
    def test_a_success_that_is_none(self, status: int, sent: bool) -> None:
        """Where the answer is a success, but not the one of OAuth, something may have been given all the same."""
        found = failed(status, b"<html>")
        assert isinstance(found, ProviderUnavailable)
        assert sent == found.sent

    def test_no_tokens_told(self) -> None:
        """What a provider says is told without what could be a token, on one short line."""
        token = jwt(sub="x" * 80)
        found = failed(401, {"error": "invalid_client", "error_description": f"bad\n\x1b[1m {token} " + "very " * 200})
        assert token.split(".")[1] not in found.public
        assert "\n" not in found.public
        assert "\x1b" not in found.public
        assert len(found.public) < 400

    def test_clocks(self) -> None:
        """If its clock is far from ours, that is said: nothing else would explain the refusal."""
        date = format_datetime(NOW + timedelta(minutes=10), usegmt=True)
        assert "its clock is 600 s ahead of ours" in failed(401, {"error": "invalid_client"}, date=date).public
        date = format_datetime(NOW + timedelta(seconds=10), usegmt=True)
        assert "clock" not in failed(401, {"error": "invalid_client"}, date=date).public
