"""concurrency.py: so many at once for each owner, and no more."""

import pytest
from sojourn.errors import LimitExceeded
from sojourn.quota.concurrency import Concurrency


class TestConcurrency:
    @pytest.mark.parametrize(("who", "said"), [(1000, "the user has"), ("spiffe://example.org/a", "the workload has")])
    def test_so_many_at_once(self, who, said):
        """A caller has so many places, others have their own, and what is left is free again."""
        places = Concurrency(2, "open streams")
        with places.one(who), places.one("other"):
            with places.one(who), pytest.raises(LimitExceeded, match=f"{said} too many open streams"), places.one(who):
                pytest.fail("it came in")
            with places.one(who):
                pass
        assert {} == dict(places._now)

    def test_left_by_an_error(self):
        """A place is free again however its work ends."""
        places = Concurrency(1, "calls")
        with pytest.raises(KeyError), places.one(1):
            raise KeyError
        with places.one(1):
            pass

    def test_several_places(self):
        """What takes several places finds them all or takes none, and gives back as many."""
        places = Concurrency(5, "bytes held")
        with places.some(1, 3):
            with pytest.raises(LimitExceeded, match="too many bytes held"), places.some(1, 3):
                pytest.fail("it came in")
            with places.some(1, 2), pytest.raises(LimitExceeded), places.one(1):
                pytest.fail("it came in")
        with places.some(1, 5):
            pass
        assert {} == dict(places._now)
