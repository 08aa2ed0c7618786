"""journal.py: what is found of a journal that is not whole, that lost something, or that others did not get."""

import pytest
from fakes.control_records import Story
from sojourn.audit.log_state import FIRST_LOG, REASONS
from sojourn.oversight.controls.query import Journal


@pytest.mark.parametrize("name", ["journal_whole", "nothing_lost", "sinks", "refusals_say_why"])
def test_nothing(name):
    """Where there are no records a query has looked at nothing."""
    assert (0, 0, [], 0) == Story().found(name)


class TestJournalWhole:
    NAME = "journal_whole"

    def test_good(self):
        """Each record counts of a journal that somebody has looked at."""
        story = Story()
        story.begin()
        assert (1, 0, [], 0) == story.found(self.NAME)

    def test_broken(self):
        """The first bad record is named, if there is one."""
        story = Story()
        story.begin()
        for seq, named in ((7, (7,)), (0, ())):
            answer = story.answer(self.NAME, journal=Journal(looked_at=True, whole=False, first_bad_seq=seq))
            assert (1, 1, named) == (answer.n, answer.exceptions, answer.seqs)

    def test_nobody_has_looked(self):
        """Of a journal that nobody has looked at nothing is said."""
        story = Story()
        story.begin()
        answer = story.answer(self.NAME, journal=Journal(looked_at=False))
        assert (0, 0, 1) == (answer.n, answer.exceptions, answer.not_judged)


class TestNothingLost:
    NAME = "nothing_lost"

    def test_good(self):
        """The figures say over which time, and in how many logs."""
        story = Story()
        story.tell("audit_log_begun", reason="first")
        story.begin(after_ms=3 * 86_400_000)
        answer = story.answer(self.NAME)
        assert (2, 0, {"days": 3.0, "logs_begun": 1}) == (answer.n, answer.exceptions, answer.figures)

    def test_lost(self):
        """Records, a database and a key that were lost are found; of records each counts."""
        story = Story()
        seqs = [
            story.tell("records_lost", count=5),
            story.tell("database_lost"),
            story.tell("audit_key_lost", reason="gone"),
        ]
        assert (3, 7, seqs, 0) == story.found(self.NAME)

    @pytest.mark.parametrize("reason", [None, *(each for each in REASONS if each != FIRST_LOG)])
    def test_a_log_that_begins_anew(self, reason):
        """A signed log is begun a second time because something was lost, and no reason but the first is none."""
        story = Story()
        story.tell("audit_log_begun", reason=FIRST_LOG)
        seq = story.tell("audit_log_begun", reason=reason)
        assert (2, 1, [seq], 0) == story.found(self.NAME)

    @pytest.mark.parametrize("event", ["database_restored", "database_lost", "root_lost"])
    def test_put_back(self, event):
        """A database that was put back or lost, and a root that was lost, are found."""
        story = Story()
        seq = story.tell(event)
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    @pytest.mark.parametrize("count", [0, -5, "300", None, True, 10**4000])
    def test_a_wrong_count(self, count):
        """However many are said to be lost: a record of loss is one case at least."""
        story = Story()
        seq = story.tell("records_lost", count=count)
        n, exceptions, seqs, _ = story.found(self.NAME)
        assert (1, [seq]) == (n, seqs)
        assert 1 <= exceptions < 2**64


def test_sinks():
    """A sink that missed a record, or refused one, is found."""
    story = Story()
    story.tell("sink_begun", sink="siem", kind="https", after_seq=0)
    story.tell("sink_begun", sink="archive", kind="file", after_seq=0)
    assert (2, 0, [], 0) == story.found("sinks")
    seqs = [story.tell("sink_gap", sink="siem", from_seq=1, until_seq=5)]
    seqs.append(story.tell("sink_refused", sink="archive", from_seq=6, until_seq=6, count=1, reason="no"))
    answer = story.answer("sinks")
    assert (2, 2, tuple(seqs)) == (answer.n, answer.exceptions, answer.seqs)
    assert {"sinks": ["archive", "siem"]} == answer.figures


def test_refusals_say_why():
    """A refusal without a code and a reason is found; the figures count the codes, and no more than there is room for."""
    story = Story()
    story.of_task("begin_denied", code="policy_denied", reason="no")
    story.of_task("token_denied", code="policy_denied")
    story.tell("delegation_denied", uid=1, reason="no such ticket")
    seq = story.of_task("request_refused")
    answer = story.answer("refusals_say_why")
    assert (4, 1, (seq,)) == (answer.n, answer.exceptions, answer.seqs)
    assert {"delegation_denied": 1, "policy_denied": 2, "request_refused": 1} == answer.figures
    for number in range(50):
        story.of_task("request_refused", code=f"made-up-{number}")
    story.of_task("request_refused", code="x" * 1_000)
    story.of_task("request_refused", code="policy_denied" * 1_000)
    figures = story.answer("refusals_say_why").figures
    assert max(map(len, figures)) <= 64
    assert (21, 56) == (len(figures), sum(figures.values()))
