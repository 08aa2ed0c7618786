"""times.py: tokens end by the wall clock and by one that only goes on, whichever is sooner."""

import pytest
from sojourn.errors import InvalidToken
from sojourn.jose.jws import VerifiedClaims
from sojourn.limits import TOKEN_SKEW_SECONDS
from sojourn.tasktoken.times import check_times, issued_at, steady_origin

WALL, STEADY = 1_900_000_000, 500_000
ORIGIN = 7_648_429  # of the boot `a`


def claims(at=STEADY, **changes):
    return VerifiedClaims({"iat": WALL, "nbf": WALL, "exp": WALL + 60, "task": {"id": "t", "at": at}, **changes})


def judged(token, *, wall=WALL, steady=STEADY, late=0.0):
    try:
        check_times(token, wall, steady, late)
    except InvalidToken as error:
        return error.reason_code
    return ""


class TestSteady:
    @pytest.mark.parametrize(("age", "expected"), [(0, ""), (59.9, ""), (60, "expired"), (3_600, "expired")])
    def test_the_wall_clock_was_set_back(self, age, expected):
        """A token has ended when it has lived for as long as it was issued for, however the wall clock was set."""
        for back in (0, age, age + TOKEN_SKEW_SECONDS):
            assert expected == judged(claims(), wall=WALL + age - back, steady=STEADY + age)

    def test_the_wall_clock_was_set_ahead(self):
        """A token that is over by the wall clock is over, though it has lived for a moment."""
        assert "expired" == judged(claims(), wall=WALL + 60, steady=STEADY + 1)

    def test_late(self):
        """Who may hear of a token a moment after its end may so by both clocks."""
        assert "" == judged(claims(), wall=WALL + 62, steady=STEADY + 62, late=3)
        assert "expired" == judged(claims(), wall=WALL, steady=STEADY + 63, late=3)

    @pytest.mark.parametrize("reads", [0, STEADY - TOKEN_SKEW_SECONDS, STEADY + 60, STEADY + 10**9])
    def test_of_another_boot(self, reads):
        """A token that is of another time by the steady clock, as one of another boot of the machine, has ended."""
        assert "expired" == judged(claims(), steady=reads)

    @pytest.mark.parametrize("steady", [None, STEADY + 10**9])
    def test_not_said(self, steady):
        """Without a time by the steady clock, in the token or known to its reader, the wall clock alone counts."""
        token = claims() if steady is None else claims(task={"id": "t"})
        assert "" == judged(token, steady=steady)
        assert "expired" == judged(token, wall=WALL + 60, steady=steady)

    @pytest.mark.parametrize("fraction", [0.0, 0.25, 0.999])
    def test_issued_within_a_second(self, fraction):
        """A token ends by both clocks at the same moment, wherever in a second it was issued."""
        token = claims(issued_at(STEADY + fraction, WALL + fraction))
        for age, expected in ((fraction, ""), (59.99, ""), (60.002, "expired")):
            assert expected == judged(token, wall=WALL, steady=STEADY + age)


class TestOrigin:
    def test_of_each_boot_another(self):
        """The steady clock begins elsewhere in each boot, at the same place in one, and does not tell how long it is up."""
        assert steady_origin("a") == steady_origin("a") != steady_origin("b")
        assert steady_origin("a") > 10_000

    def test_it_is_far_enough_from_any_other(self):
        """Where the clock begins is a number of 31 bits, which a token can have with milliseconds."""
        assert all(0 <= steady_origin(str(boot)) < 2**31 for boot in range(100))

    def test_it_stays(self):
        """In which way it is made of the boot never changes: tokens of before an upgrade go by it."""
        assert ORIGIN == steady_origin("a")


class TestIssued:
    def test_milliseconds(self):
        """The steady time in a token has milliseconds and no more, and is never before the clock began."""
        assert (STEADY + 0.123, 0.0) == (issued_at(STEADY + 0.1234567, WALL), issued_at(0.2, WALL + 0.5))
