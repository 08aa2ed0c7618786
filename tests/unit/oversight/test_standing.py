"""oversight/standing.py: what could be used at any time, and nobody uses, with since when that is so."""

import pytest
from fakes.task_types import task_type
from sojourn.oversight import standing
from sojourn.oversight.report import Asked, report
from sojourn.oversight.standing import EntryLife, Standing
from sojourn.oversight.sums import IssuedSum, Sums, TypeKey, TypeSum

LIFE = EntryLife("e1", "spiffe://example.org/a", 100, 0)


@pytest.mark.parametrize(
    ("issued", "since"),
    [
        ({}, 100),  # never: since it was made
        ({"e1": IssuedSum(3, 900)}, None),  # in the time that is asked about
        ({"e1": IssuedSum(3, 400)}, 400),  # before that: since then
        ({"other": IssuedSum(1, 900)}, 100),
    ],
)
def test_entries(issued, since):
    """An entry stands unused since its last SVID, or since it was made; one that was used lately does not."""
    found = standing.of_entries([LIFE], issued, 500, 50)
    expected = [] if since is None else [Standing(standing.ENTRY, "e1", "spiffe://example.org/a", since)]
    assert expected == found


def test_before_anything_was_counted():
    """An entry may have been used before anything was counted: it is said to stand unused since then."""
    (found,) = standing.of_entries([LIFE], {}, 500, 300)
    assert 300 == found.since_ms


def test_one_that_ends():
    """When an entry ends by itself is told with it."""
    (found,) = standing.of_entries([EntryLife("e1", "spiffe://example.org/a", 100, 2_000)], {}, 500, 0)
    assert 2_000 == found.until_ms


def test_types():
    """A type of which no task began stands there; one that was used does not."""
    used, unused = task_type("used"), task_type("unused")
    sums = Sums({TypeKey(0, "used", used.named["type_version"], "spiffe://example.org/a"): TypeSum(tasks=1)})
    found = standing.of_types(report([unused, used], sums, Asked(10, 20, 0, {"unused": 15})))
    assert [Standing(standing.TYPE, "unused", "1 workloads may begin it", 15)] == found
