"""dpop_replays.py: each DPoP proof once, whatever the clocks do."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from sojourn.errors import LimitExceeded
from sojourn.errors.oauth import InvalidProof, NonceNeeded
from sojourn.limits import DPOP_AGE_SECONDS, DPOP_NONCE_SECONDS, DPOP_SKEW_SECONDS
from sojourn.tasktoken import dpop_replays
from sojourn.tasktoken.dpop import Proof
from sojourn.tasktoken.dpop_replays import Replays

REMEMBERED_SECONDS = max(DPOP_AGE_SECONDS + 2 * DPOP_SKEW_SECONDS, 2 * DPOP_NONCE_SECONDS) + 1


@pytest.fixture
def seen(clock):
    """A memory that is a while old."""
    made = Replays(clock.now, clock.boot)
    clock.advance(300)
    return made


def proof(clock, jti="j", *, jkt="key", age=0.0, nonce=None):
    return Proof(jkt, jti, clock.now().timestamp() - age, nonce)


def refused(seen, made):
    with pytest.raises(InvalidProof) as caught:
        seen.claim(made, 1000)
    return caught.value


class TestOnce:
    def test_second_time(self, seen, clock):
        """A proof is good once, and refused the second time."""
        made = proof(clock)
        seen.claim(made, 1000)
        assert "replayed" == refused(seen, made).reason_code

    def test_racers(self, seen, clock):
        """Of fifty that come with the same proof at once one gets through."""
        made = proof(clock)

        def one(_):
            try:
                seen.claim(made, 1000)
            except InvalidProof:
                return False
            return True

        with ThreadPoolExecutor(50) as pool:
            assert 1 == sum(pool.map(one, range(50)))

    def test_of_another_key(self, seen, clock):
        """The same jti by another key is another proof: nobody uses up another's."""
        seen.claim(proof(clock, jkt="a"), 1000)
        seen.claim(proof(clock, jkt="b"), 1000)

    @pytest.mark.parametrize("jti", ["", "\u00e4", "\ud800"])
    def test_any_jti(self, seen, clock, jti):
        """Any text that JSON has may be its jti, half a character too."""
        seen.claim(proof(clock, jti), 1000)
        assert "replayed" == refused(seen, proof(clock, jti)).reason_code

    @pytest.mark.parametrize("age", [0, DPOP_AGE_SECONDS, -DPOP_SKEW_SECONDS])
    def test_as_long_as_it_could_be_good(self, seen, clock, age):
        """A proof is remembered until its iat is too old for any reader."""
        made = proof(clock, age=age)
        seen.claim(made, 1000)
        clock.advance(DPOP_AGE_SECONDS - age)
        assert "replayed" == refused(seen, made).reason_code

    def test_forgotten(self, seen, clock):
        """After that it is forgotten: memory does not grow with time."""
        for number in range(100):
            seen.claim(proof(clock, str(number)), 1000)
        clock.advance(10 * DPOP_AGE_SECONDS)
        seen.claim(proof(clock), 1000)
        assert 1 == len(seen)

    def test_forgotten_to_the_second(self, seen, clock):
        """What is over is forgotten, and with it that its sender had a share."""
        for who in (1000, 1000, "spiffe://example.org/web"):
            seen.claim(proof(clock, secrets.token_hex(4)), who)
        clock.advance(REMEMBERED_SECONDS - 1)
        seen.claim(proof(clock, "last"), 1001)
        assert 4 == len(seen)
        clock.advance(1)
        seen.claim(proof(clock, "very last"), 1001)
        assert (2, {1001: 2}) == (len(seen), dict(seen._per))
        clock.advance(REMEMBERED_SECONDS - 1)
        seen.claim(proof(clock, "after it"), 1001)
        assert (2, {1001: 2}) == (len(seen), dict(seen._per))

    def test_full(self, seen, clock, monkeypatch):
        """When there is no room all is forgotten at once; a proof that may have been used then needs a nonce of now."""
        monkeypatch.setattr(dpop_replays, "DPOP_PROOFS_REMEMBERED", 3)
        nonce = seen.nonce()
        for number in range(4):
            seen.claim(proof(clock, str(number), nonce=nonce), 1000)
        assert 0 == len(seen)
        for made in (proof(clock, "0"), proof(clock, "0", nonce=nonce), proof(clock, "other")):
            assert isinstance(refused(seen, made), NonceNeeded)
        seen.claim(proof(clock, "other", nonce=seen.nonce()), 1000)
        clock.advance(1)
        seen.claim(proof(clock, "later"), 1000)

    def test_nobody_takes_all(self, seen, clock, monkeypatch):
        """One caller's proofs take its share and no more; once they are over, it has its share again."""
        monkeypatch.setattr(dpop_replays, "DPOP_PROOFS_OF_ONE", 3)
        for number in range(3):
            seen.claim(proof(clock, str(number)), 1000)
        with pytest.raises(LimitExceeded):
            seen.claim(proof(clock, "3"), 1000)
        seen.claim(proof(clock, "3"), "spiffe://example.org/other")
        clock.advance(2 * DPOP_NONCE_SECONDS + 2)
        for number in range(3):
            seen.claim(proof(clock, str(number)), 1000)


class TestNonce:
    def test_from_before_the_start(self, clock):
        """A proof that may be from before this memory began needs a nonce; with it it is good, once."""
        made = proof(clock, age=5)
        seen = Replays(clock.now, clock.boot)
        needed = refused(seen, made)
        assert isinstance(needed, NonceNeeded)
        again = proof(clock, nonce=needed.nonce)
        seen.claim(again, 1000)
        assert "replayed" == refused(seen, again).reason_code

    @pytest.mark.parametrize("ahead", [0, DPOP_SKEW_SECONDS])
    def test_after_the_start(self, clock, ahead):
        """A proof needs a nonce until the memory is as old as a proof can be good for; from then on it needs none."""
        seen = Replays(clock.now, clock.boot)
        clock.advance(DPOP_AGE_SECONDS + DPOP_SKEW_SECONDS - 1)
        assert isinstance(refused(seen, proof(clock, age=-ahead)), NonceNeeded)
        clock.advance(1)
        seen.claim(proof(clock, age=-ahead), 1000)

    @pytest.mark.parametrize("back", [10, 40, 3_600])
    def test_clock_set_back_over_a_start(self, seen, clock, back):
        """What was used before a start is not good again after it, however far the clock was set back at that."""
        made = proof(clock)
        seen.claim(made, 1000)
        clock.step_wall(-back)
        later = Replays(clock.now, clock.boot)
        for _ in range(DPOP_AGE_SECONDS + DPOP_SKEW_SECONDS - 1):  # as long as the token of the proof may live
            clock.advance(1)
            assert isinstance(refused(later, made), NonceNeeded)

    def test_clock_set_back(self, seen, clock):
        """What was used before the clock was set back is not good again; what is made then needs a nonce."""
        made = proof(clock)
        seen.claim(made, 1000)
        clock.advance(3_600)
        seen.claim(proof(clock, "later"), 1000)
        clock.step_wall(-3_600)
        assert isinstance(refused(seen, made), NonceNeeded)
        seen.claim(proof(clock, "new", nonce=seen.nonce()), 1000)

    def test_clock_set_ahead(self, seen, clock):
        """A clock that is set ahead, and back again, lets nothing in twice."""
        made = proof(clock)
        seen.claim(made, 1000)
        clock.step_wall(86_400)
        seen.claim(proof(clock, "ahead"), 1000)
        clock.step_wall(-86_400)
        assert refused(seen, made)

    @pytest.mark.parametrize("nonce", ["", "x", "0" * 32, "é", "\ud800"])
    def test_of_nobody(self, seen, clock, nonce):
        """A nonce that is not of this server is refused, and the right one told."""
        needed = refused(seen, proof(clock, nonce=nonce))
        assert isinstance(needed, NonceNeeded)
        assert needed.nonce == seen.nonce()
        seen.claim(proof(clock, nonce=needed.nonce), 1000)

    @pytest.mark.parametrize(("age", "good"), [(DPOP_AGE_SECONDS + 0.5, True), (DPOP_AGE_SECONDS + 1, False)])
    def test_of_an_old_proof(self, seen, clock, age, good):
        """A proof whose iat is older than any that a reader takes now needs one: it may be forgotten already."""
        if good:
            seen.claim(proof(clock, age=age), 1000)
        else:
            assert isinstance(refused(seen, proof(clock, age=age)), NonceNeeded)

    def test_of_another_server(self, seen, clock):
        """A nonce of another server, or of the same one before it was started again, is refused."""
        other = Replays(clock.now, clock.boot)
        assert isinstance(refused(seen, proof(clock, nonce=other.nonce())), NonceNeeded)

    def test_over(self, seen, clock):
        """A nonce is good for one to two minutes, by the boot clock."""
        nonce = seen.nonce()
        assert 32 == len(nonce)  # 128 bits, hex
        clock.step_wall(86_400)
        clock.advance(DPOP_NONCE_SECONDS)
        seen.claim(proof(clock, nonce=nonce), 1000)
        clock.advance(DPOP_NONCE_SECONDS)
        assert isinstance(refused(seen, proof(clock, "k", nonce=nonce)), NonceNeeded)
