"""jws.py: what counts as a time and as an audience in the claims of a token."""

import math

import pytest
from fakes.tokenforge import (
    FREELY,
    json_values,
)
from hypothesis import given
from sojourn.errors import InvalidToken
from sojourn.jose.jws import (
    audiences,
    numeric_date,
)


class TestNumericDate:
    @pytest.mark.parametrize("value", [0, 1, 1.5, 1_893_456_000, 2**53, 0.0, float(2**53)])
    def test_good(self, value):
        """A number from 0 to 2**53 is a date."""
        assert float(value) == numeric_date({"exp": value}, "exp")

    def test_absent(self):
        """A claim that is absent is no date."""
        assert numeric_date({"iat": 1}, "exp") is None

    @pytest.mark.parametrize(
        "value",
        [
            *(
                None,
                True,
                False,
                "",
                "1",
                "1893456000",
                "1e9",
                [],
                [1],
                {},
                {"a": 1},
                -1,
                -0.5,
                2**53 + 1,
                1e17,
                10**400,
            ),
            *(-(10**400), math.nan, math.inf, -math.inf),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_bad(self, value):
        """Any other type or range is refused, null and truth values among them."""
        with pytest.raises(InvalidToken) as caught:
            numeric_date({"exp": value}, "exp")
        expected = "malformed"
        assert expected == caught.value.reason_code

    @FREELY
    @given(json_values)
    def test_any_json(self, value):
        """Any JSON value is a finite number in range, or InvalidToken."""
        try:
            date = numeric_date({"exp": value}, "exp")
        except InvalidToken:
            return
        assert isinstance(date, float)
        assert 0 <= date <= 2**53
        assert not isinstance(value, bool)


class TestAudiences:
    @pytest.mark.parametrize(
        ("claims", "expected"),
        [
            pytest.param({}, (), id="absent"),
            pytest.param({"aud": []}, (), id="empty-list"),
            pytest.param({"aud": "a"}, ("a",), id="string"),
            pytest.param({"aud": ["a"]}, ("a",), id="list-of-one"),
            pytest.param({"aud": ["b", "a"]}, ("b", "a"), id="list-in-its-order"),
            pytest.param({"aud": " A/\u00e4 "}, (" A/\u00e4 ",), id="byte-for-byte"),
        ],
    )
    def test_good(self, claims, expected):
        """The audience is a string or a list of strings, taken as it stands."""
        assert expected == audiences(claims)

    @pytest.mark.parametrize(
        "value",
        [None, True, 1, 1.5, {}, {"a": 1}, "", [""], ["a", ""], [None], ["a", 1], [["a"]], [{}]],
        ids=repr,
    )
    def test_bad(self, value):
        """Any other type, and the empty string, is refused."""
        with pytest.raises(InvalidToken) as caught:
            audiences({"aud": value})
        expected = "malformed"
        assert expected == caught.value.reason_code

    @FREELY
    @given(json_values)
    def test_any_json(self, value):
        """Any JSON value is a tuple of texts that are not empty, or InvalidToken."""
        try:
            named = audiences({"aud": value})
        except InvalidToken:
            return
        assert all(isinstance(each, str) and each for each in named)
