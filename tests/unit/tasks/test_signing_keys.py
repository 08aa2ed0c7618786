"""Keys that sign task tokens: their lives, and who knows them when."""

import json

import pytest
from fakes.clock import FakeClock
from sojourn.limits import TOKEN_KEY_AHEAD_SECONDS, TOKEN_KEY_SECONDS, TOKEN_SKEW_SECONDS, TOKEN_TTL_MAX_SECONDS
from sojourn.runtime.clock import Alarms
from sojourn.tasks.signing_keys import TokenKeys

LAST_SECONDS = TOKEN_TTL_MAX_SECONDS + TOKEN_SKEW_SECONDS


class Bench:
    """Keys under a clock that a test sets."""

    def __init__(self, life_seconds=TOKEN_KEY_SECONDS):
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)
        self.keys = TokenKeys(self.alarms, life_seconds)

    def advance(self, seconds):
        self.clock.advance(seconds)
        self.alarms.ring_due()


@pytest.fixture
def bench():
    return Bench()


class TestLife:
    def test_published_before_it_signs(self, bench):
        """The next key is published a minute before it signs."""
        first = bench.keys.active
        bench.advance(TOKEN_KEY_SECONDS - TOKEN_KEY_AHEAD_SECONDS - 1)
        assert [first.kid] == list(bench.keys.published)
        bench.advance(1)
        assert (2, first) == (len(bench.keys.published), bench.keys.active)
        (following,) = set(bench.keys.published) - {first.kid}
        bench.advance(TOKEN_KEY_AHEAD_SECONDS - 1)
        assert first is bench.keys.active
        bench.advance(1)
        assert following == bench.keys.active.kid

    def test_stays_until_its_last_token_has_ended(self, bench):
        """An old key is published until a token that it signed last has ended, and no longer."""
        first = bench.keys.active.kid
        bench.advance(TOKEN_KEY_SECONDS - TOKEN_KEY_AHEAD_SECONDS)
        bench.advance(TOKEN_KEY_AHEAD_SECONDS)
        bench.advance(LAST_SECONDS - 1)
        assert first in bench.keys.published
        bench.advance(1)
        assert [bench.keys.active.kid] == list(bench.keys.published)

    def test_after_a_long_sleep(self, bench):
        """A machine that slept for days has the next key published for a minute before it signs, all the same."""
        first = bench.keys.active
        bench.advance(10 * TOKEN_KEY_SECONDS)
        assert (2, first) == (len(bench.keys.published), bench.keys.active)
        bench.advance(TOKEN_KEY_AHEAD_SECONDS)
        assert first is not bench.keys.active

    def test_the_wall_clock(self, bench):
        """A step of the wall clock changes nothing."""
        first = bench.keys.active
        bench.clock.step_wall(30 * TOKEN_KEY_SECONDS)
        bench.alarms.ring_due()
        assert ([first.kid], first) == (list(bench.keys.published), bench.keys.active)

    def test_a_short_life(self):
        """With a life of ten seconds a key is known for five before it signs, and old ones do not pile up."""
        bench = Bench(10)
        seen = set()
        for _ in range(400):
            before = set(bench.keys.published)
            bench.advance(1)
            assert bench.keys.active.kid in before
            seen.add(bench.keys.active.kid)
            assert len(bench.keys.published) <= LAST_SECONDS / 10 + 3
        assert len(seen) == 41

    def test_each_key_is_new(self, bench):
        """No two keys have the same name or the same point."""
        found = {}
        for _ in range(5):
            found |= bench.keys.published
            bench.advance(TOKEN_KEY_SECONDS)
            bench.advance(TOKEN_KEY_AHEAD_SECONDS)
        assert len(found) == len({key.thumbprint for key in found.values()}) >= 5


class TestTold:
    def test_of_each_change(self, bench):
        """Whoever asked is told when a key is published and when one goes, with the set as it is then."""
        told = []
        bench.keys.on_change(lambda: told.append(len(bench.keys.published)))
        for seconds in (TOKEN_KEY_SECONDS - TOKEN_KEY_AHEAD_SECONDS, TOKEN_KEY_AHEAD_SECONDS, LAST_SECONDS):
            bench.advance(seconds)
        assert [2, 1] == told

    def test_the_jwk_set(self, bench):
        """The JWK Set has the published keys and no private member."""
        bench.advance(TOKEN_KEY_SECONDS - TOKEN_KEY_AHEAD_SECONDS)
        keys = json.loads(bench.keys.jwks)["keys"]
        assert set(bench.keys.published) == {key["kid"] for key in keys}
        assert all({"kid", "kty", "crv", "x", "y"} == set(key) for key in keys)
