"""families.py: what is found of tasks that were handed on otherwise than they may be, or outlive what they came of."""

import pytest
from fakes.control_records import ELSEWHERE, ONE, READ, READ_WRITE, THREE, TWO, Story
from hypothesis import given
from hypothesis import strategies as st
from sojourn.oversight.controls.families import MAX_CHILDREN, MAX_DEPTH
from sojourn.policy.task_type_tables import DelegationRule

DELEGATES = {"triage": f'[delegation]\nto = ["{TWO}"]\nmax_depth = 2\nmax_children = 2'}


@pytest.mark.parametrize("name", ["hand_overs", "cascade", "fan_out"])
def test_nothing(name):
    """Where nothing was handed on a query has looked at nothing."""
    story = Story()
    story.begin()
    story.token()
    story.end()
    assert (0, 0, [], 0) == story.found(name)


class TestHandOvers:
    NAME = "hand_overs"

    def test_by_ticket_and_by_token(self):
        """A hand-over by a ticket, one further, and one by a token of the parent are as they should be."""
        story = Story()
        story.begin()
        story.ticket()
        story.accept()
        story.ticket("t2", to=THREE, ticket="d2", workload=TWO)
        story.accept("t3", parent="t2", workload=THREE, line=(ONE, TWO), ticket="d2")
        story.token(jti="j1")
        story.accept("t4", workload=THREE, by_token="j1")
        story.tell("delegation_denied", uid=1, reason="no such ticket")
        answer = story.answer(self.NAME)
        assert (3, 0) == (answer.n, answer.exceptions)
        assert {"tickets_made": 2, "by_token": 1, "refused": 1} == answer.figures

    @pytest.mark.parametrize(
        "wrong",
        [
            {"ticket": "d9"},  # nobody made it
            {"workload": THREE},  # it is another's
            {"grants": READ_WRITE},  # more than the ticket
            {"grants": ELSEWHERE},
            {"line": (THREE,)},  # another is said to have begun
            {"depth": 2},
            {"ticket": None, "by_token": "j9"},  # no such token
        ],
    )
    def test_otherwise(self, wrong):
        """A hand-over without its ticket or token, for another, of more, or with another chain is found."""
        story = Story()
        story.begin()
        story.token(jti="j1")
        story.ticket()
        seq = story.accept(**wrong)
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    def test_twice(self):
        """A ticket is good once."""
        story = Story()
        story.begin()
        story.ticket()
        story.accept()
        seq = story.accept("t3")
        assert (2, 1, [seq], 0) == story.found(self.NAME)

    def test_more_than_the_parent_has_by_now(self):
        """What the parent has lost since the ticket was made is not handed on."""
        story = Story()
        story.begin()
        story.ticket(grants=READ_WRITE)
        story.of_task("task_narrowed", grants=READ)
        seq = story.accept(grants=READ_WRITE)
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    def test_of_another_task_s_token(self):
        """A token of one task hands on no other."""
        story = Story()
        story.begin("t0")
        story.token("t0", jti="j0")
        story.begin()
        seq = story.accept(by_token="j0")
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    @pytest.mark.parametrize(
        "wrong", [{"grants": READ_WRITE}, {"after_ms": 7 * 86_400_000}, {"grants": ELSEWHERE, "parent": "t0"}]
    )
    def test_more_than_its_token(self, wrong):
        """By a token no more is handed on than its actions, and nothing once it has expired."""
        story = Story()
        story.begin("t0", grants=ELSEWHERE)
        story.begin()
        story.token(jti="j1")
        seq = story.accept(**{"by_token": "j1", **wrong})
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    def test_by_a_token_elsewhere(self):
        """By a token its task's actions of the same name at another resource are handed on."""
        story = Story()
        story.begin(grants=[*READ, *ELSEWHERE])
        story.token(jti="j1")
        story.accept(by_token="j1", grants=ELSEWHERE)
        assert (1, 0, [], 0) == story.found(self.NAME)

    @pytest.mark.parametrize("over", ["end", "suspend"])
    def test_by_a_parent_that_is_not_active(self, over):
        """Nothing is handed on of a task that is suspended or over."""
        story = Story()
        story.begin()
        story.token(jti="j1")
        if over == "end":
            story.end()
        else:
            story.of_task("task_suspended", cause="operator")
        seq = story.accept(by_token="j1")
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    def test_of_a_task_of_before(self):
        """What a task of before the records hands on is not judged; in a whole journal there is no such task."""
        for first, found in ((9, (0, 0, [], 1)), (1, (1, 1, [1], 0))):
            story = Story(first_seq=first)
            story.accept()
            assert found == story.found(self.NAME)

    def test_by_a_token_that_was_forgotten(self, monkeypatch):
        """Where a token is too long ago to be remembered the hand-over is not judged."""
        monkeypatch.setattr("sojourn.oversight.controls.families.CONTROL_TOKENS", 2)
        story = Story()
        story.begin()
        for number in range(4):
            story.token(jti=f"j{number}")
        story.accept(by_token="j0")
        story.accept("t3", by_token="j3")
        assert (1, 0, [], 1) == story.found(self.NAME)


class TestCascade:
    NAME = "cascade"

    def test_all_end(self):
        """What was handed on ends after its parent, and the figures say how long after."""
        story = Story()
        story.begin()
        story.ticket()
        story.accept()
        story.accept("t3", parent="t2", workload=THREE, line=(ONE, TWO))
        story.end()
        story.end("t2", "parent_ended", after_ms=5)
        story.end("t3", "parent_ended", after_ms=2)
        answer = story.answer(self.NAME)
        assert (2, 0, {"ms_p50": 5, "ms_p99": 7, "ms_max": 7}) == (answer.n, answer.exceptions, answer.figures)

    def test_one_that_ends_before(self):
        """A task that ends before its parent is no case."""
        story = Story()
        story.begin()
        story.accept()
        story.end("t2")
        story.end()
        assert (0, 0, [], 0) == story.found(self.NAME)

    def test_one_goes_on(self):
        """A task that goes on after its parent is found, by the record of the parent's end."""
        story = Story()
        story.begin()
        story.accept()
        seq = story.end()
        story.begin("t9", after_ms=60_000)
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    @pytest.mark.parametrize(("after_ms", "late"), [(9_000, False), (86_400_000, True)])
    def test_ends_late(self, after_ms, late):
        """A task that ends long after its parent is found, although it has ended."""
        story = Story()
        story.begin()
        story.accept()
        story.end()
        seq = story.end("t2", after_ms=after_ms)
        assert (1, int(late), [seq] * late, 0) == story.found(self.NAME)

    def test_of_one_that_had_to_end(self):
        """What is handed on by a task that had to end with its own parent has to end since then, too."""
        story = Story()
        story.begin()
        story.accept()
        ended = story.end()
        story.accept("t3", parent="t2", workload=THREE, line=(ONE, TWO))
        story.begin("t9", after_ms=60_000)
        assert (2, 2, [ended]) == story.found(self.NAME)[:3]

    def test_the_records_end_meanwhile(self):
        """At the very end of the records what follows need not be there yet: it is not judged."""
        story = Story()
        story.begin()
        story.accept()
        story.end()
        assert (0, 0, [], 1) == story.found(self.NAME)

    def test_begun_behind_its_parent_s_end(self):
        """A task whose record stands behind its parent's end must end all the same."""
        story = Story()
        story.begin()
        story.end()
        seq = story.accept(after_ms=0)
        story.begin("t9", after_ms=60_000)
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    @given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.data())
    def test_of_any_family(self, parents, data):
        """Of any family of which all end with the first task no one is found, and of any of which one stays one is."""
        story = Story()
        story.begin("t0")
        for number, chosen in enumerate(parents, 1):
            story.accept(f"t{number}", parent=f"t{chosen % number}")
        last = story.end("t0")
        stays = data.draw(st.none() | st.integers(1, len(parents)))
        ended = [number for number in range(1, len(parents) + 1) if number != stays]
        for number in ended:
            story.end(f"t{number}", "parent_ended", after_ms=1)
        story.begin("t99", after_ms=60_000)
        n, exceptions, seqs, _ = story.found(self.NAME)
        assert (len(parents), int(stays is not None)) == (n, exceptions)
        assert all(seq >= last for seq in seqs)


class TestFanOut:
    NAME = "fan_out"

    def test_within(self):
        """As far, and as often, as the type says is good."""
        story = Story(types=DELEGATES)
        story.begin()
        story.accept()
        story.accept("t3", parent="t2", workload=THREE, line=(ONE, TWO))
        story.accept("t4")
        answer = story.answer(self.NAME)
        assert (3, 0, {"depth_max": 2, "children_max": 2}) == (answer.n, answer.exceptions, answer.figures)

    def test_too_far_too_often_or_at_all(self):
        """One further, one more, and one of a type that is not handed on are found, each."""
        story = Story(types={**DELEGATES, "alone": ""})
        story.begin()
        story.accept()
        story.accept("t3", parent="t2", workload=THREE, line=(ONE, TWO))
        seqs = [story.accept("t4", parent="t3", line=(ONE, TWO, THREE))]
        story.accept("t5")
        seqs.append(story.accept("t6"))
        story.begin("a1", type_="alone")
        seqs.append(story.accept("a2", parent="a1", type_="alone"))
        n, exceptions, found, _ = story.found(self.NAME)
        assert (6, 3, seqs) == (n, exceptions, found)

    def test_the_defaults(self):
        """What a type does not say is what the agent takes for it."""
        rule = DelegationRule(to=(TWO,))
        assert (rule.max_depth, rule.max_children) == (MAX_DEPTH, MAX_CHILDREN)
