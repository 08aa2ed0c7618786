"""waiting.py: who loses records where there is no room, in any order of what happens."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from sojourn.audit.waiting import Waiting, in_order

WHOSE = st.sampled_from([("uid", each) for each in range(4)])
STEPS = st.lists(st.one_of(WHOSE, st.sampled_from(["take", "fail", "write"])), max_size=60)


@given(STEPS, st.integers(1, 6))
def test_of_all_that_may_happen(steps, most):
    """Records come out as they came, each once. Lost are the oldest of those who had most, and they are counted."""
    waiting, batch = Waiting(most), {}
    kept, under_way, lost = [], [], Counter()  # what is expected, as (number, whose)
    for number, step in enumerate(steps):
        if step == "take" and not batch:
            batch, under_way, kept = waiting.take(), kept, []
            assert under_way == [*in_order(batch)]
        elif step == "fail" and batch:
            kept, under_way = [*under_way, *kept], []
            assert max(0, len(kept) - most) == waiting.put_back(batch)
            batch = {}
        elif step == "write":
            batch, under_way = {}, []
        elif isinstance(step, tuple):
            kept.append((number, step))
            assert (len(kept) > most) is waiting.add(step, (number, step))
        losses = waiting.lost - lost
        lost += losses
        for whose, count in losses.items():
            for each in [each for each in kept if each[1] == whose][:count]:
                kept.remove(each)
        left = Counter(whose for _, whose in kept)
        assert all(left[other] <= left[whose] + 1 for whose in losses for other in left)
        assert len(kept) == len(waiting) <= most
    assert kept == [*in_order(waiting.take())]
