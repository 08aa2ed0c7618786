"""checks.py: whether a good token is for what is asked."""

from datetime import UTC, datetime, timedelta

import pytest
from fakes.task_room import ISSUER, KEY
from fakes.task_types import TICKETS, TRIAGE
from sojourn.errors.oauth import ActionNotAllowed, ParamNotBound, WrongParams
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken import checks, tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.task_claim import TaskClaim

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DIGEST = "a" * 43
PARAMS = {"ticket": "T-1", "level": 42, "urgent": True}


def token(*, bind=None, **changes):
    return tokens.issue(
        KEY,
        issuer=ISSUER,
        spiffe_id=SpiffeId.parse(TRIAGE),
        grant=Grant(TICKETS, ("ticket:read",)),
        task=TaskClaim("tsk_1", "triage", 1, "normal", bind or {}),
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=1),
        **changes,
    )


class TestAction:
    def test_allowed(self):
        """An action that the token has is let through, and another is refused by name."""
        checks.check_action(token(), "ticket:read")
        with pytest.raises(ActionNotAllowed, match="'ticket:write'"):
            checks.check_action(token(), "ticket:write")


class TestParams:
    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"other": "x"},
            PARAMS,
            {"ticket": "T-1"},
            {"level": 42},
            {"level": "42"},
            {"urgent": True},
            {"urgent": "true"},
        ],
    )
    def test_the_same(self, given):
        """A request with the task's values is let through, typed or as text, and with parameters that it has not."""
        checks.check_params(token(params=PARAMS), given)

    @pytest.mark.parametrize(
        "given",
        [
            {"ticket": "T-2"},
            {"ticket": "t-1"},
            {"ticket": 1},
            {"level": 43},
            {"level": "042"},
            {"level": 42.0},
            {"level": True},
            {"urgent": False},
            {"urgent": "True"},
            {"urgent": 1},
            {"urgent": None},
            {"other": "x", "level": 1},
        ],
        ids=repr,
    )
    def test_another(self, given):
        """A parameter with another value, or of another type, is refused by name."""
        with pytest.raises(WrongParams, match=f"another '{[*given][-1]}'"):
            checks.check_params(token(params=PARAMS), given)


class TestStated:
    @pytest.mark.parametrize("stated", [[], ["T-1"], ["T-1", "T-1"]])
    def test_the_same(self, stated):
        """A request that states the task's value, however often, or nothing, is let through."""
        checks.check_stated("ticket", "T-1", stated)

    @pytest.mark.parametrize("stated", [["T-2"], ["T-1", "T-2"], ["T-2", "T-1"], [None]])
    def test_another(self, stated):
        """A request that states another value is refused, also beside the task's."""
        with pytest.raises(WrongParams, match="another 'ticket'"):
            checks.check_stated("ticket", "T-1", stated)


class TestConcerning:
    BOUND = token(params=PARAMS, bind={"ticket:read": ("ticket", "level")})

    def test_what_concerns_the_action(self):
        """Of an action those parameters are compared that concern it, and all of one of which nothing is said."""
        checks.check_concerning(self.BOUND, "ticket:read", {"ticket": "T-1", "level": 42})
        checks.check_concerning(self.BOUND, "ticket:read", {"ticket": "T-1", "level": 42, "urgent": False})
        with pytest.raises(ParamNotBound, match="'urgent'"):
            checks.check_concerning(self.BOUND, "ticket:write", {"ticket": "T-1", "level": 42})

    def test_what_is_missing(self):
        """A parameter that concerns the action and is not given is refused, unless the request does not have it."""
        with pytest.raises(ParamNotBound, match="'level' is compared with nothing"):
            checks.check_concerning(self.BOUND, "ticket:read", {"ticket": "T-1"})
        checks.check_concerning(self.BOUND, "ticket:read", {"ticket": "T-1"}, ["level"])
        with pytest.raises(ParamNotBound, match="'ticket'"):
            checks.check_concerning(self.BOUND, "ticket:read", {}, ["level"])

    def test_another(self):
        """A value that is not the task's is refused by the parameter's name."""
        with pytest.raises(WrongParams, match="another 'level'"):
            checks.check_concerning(self.BOUND, "ticket:read", {"ticket": "T-1", "level": 43})


class TestDigest:
    def test_of_one_request(self):
        """A token for one request is good for that, and one for any request for any."""
        checks.check_digest(token(params_digest=DIGEST), DIGEST)
        checks.check_digest(token(), "")
        checks.check_digest(token(), DIGEST)

    @pytest.mark.parametrize("digest", ["b" * 43, DIGEST + "a", DIGEST[1:], "\u00e4", "\ud800", "?" * 43])
    def test_of_another(self, digest):
        """It is refused for every other digest, whatever characters that has."""
        with pytest.raises(WrongParams, match="another request"):
            checks.check_digest(token(params_digest=DIGEST), digest)

    def test_unknown(self):
        """It is refused where the digest is not known."""
        with pytest.raises(WrongParams, match="not known here"):
            checks.check_digest(token(params_digest=DIGEST), "")
