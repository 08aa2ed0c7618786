"""oversight.py: what is found of approvals, stops, reviews and acts that are not as they should be."""

import pytest
from fakes.control_records import ELSEWHERE, READ, TWO, Story
from sojourn.oversight.controls.live_tasks import BLOCK_KINDS
from sojourn.tasks import blocks

NAMES = (
    *("approvals", "approval_where_required", "kill_switch", "drills", "break_glass_reviewed", "reviews", "acts_named"),
)
TYPES = {"asked": "[approval]", "over": "[approval]\nwhen = 'context.params.n > 5'", "free": ""}


@pytest.mark.parametrize("name", NAMES)
def test_nothing(name):
    """Where nobody was asked, stopped or looked, a query has looked at nothing."""
    story = Story()
    story.begin()
    story.token()
    story.end()
    assert (0, 0, [], 0) == story.found(name)


class TestApprovals:
    NAME = "approvals"

    def test_good(self):
        """One that was shown, decided by another, and begins then; the figures say how fast."""
        story = Story()
        story.pending(login_uid=1000)
        story.decide(after_ms=30_000)
        story.begin(approval="apr_t1")
        story.pending("t2")
        story.decide("t2", "deny")
        answer = story.answer(self.NAME)
        assert (3, 0) == (answer.n, answer.exceptions)
        said = {"approved": 1, "denied": 1, "begun": 1, "decided_within_5_s": 1, "seconds_to_decide_max": 30.0}
        assert said.items() <= answer.figures.items()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"digest": "another"},
            {"by_uid": 1000},  # who asked
            {"by_login_uid": 501},  # the same login, as another user
            {"by_role": TWO},  # who is no approver
            {"by_uid": None},  # nobody
            {"grants": ELSEWHERE},
        ],
    )
    def test_otherwise(self, wrong):
        """A decision on something else, by whoever asked, by no approver or by nobody is found."""
        story = Story()
        story.pending(login_uid=501)
        seq = story.decide(**wrong)
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    def test_too_few(self):
        """What begins before as many have agreed as must is found; the same person twice is one."""
        story = Story()
        story.pending(count=2)
        story.decide()
        story.decide()
        seq = story.begin(approval="apr_t1")
        assert (3, 1, [seq], 0) == story.found(self.NAME)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"by_uid": 7, "by_login_uid": 7}, {"by_uid": 7}),
            ({"by_uid": 0, "by_login_uid": 7}, {"by_uid": 7}),
            ({"by_uid": 7, "by_login_uid": 8}, {"by_uid": 7, "by_login_uid": 9}),
            ({"by_uid": 7, "by_role": TWO}, {"by_uid": 8, "by_role": TWO}),
        ],
    )
    def test_one_who_is_two(self, one, other):
        """Who agrees twice, once with a login and once without, or as another user, is one; a workload is one, too."""
        story = Story()
        story.pending(count=2, approvers=["operator", TWO])
        story.decide(**one)
        story.decide(**other)
        seq = story.begin(approval="apr_t1")
        assert (3, 1, [seq], 0) == story.found(self.NAME)

    @pytest.mark.parametrize("asked", [{"count": 0}, {"count": "1"}, {"uid": None}])
    def test_asked_of_nobody(self, asked):
        """What asks for nobody, or does not say who asked, begins by no approval."""
        story = Story()
        story.pending(**asked)
        story.decide()
        seq = story.begin(approval="apr_t1")
        assert seq in story.found(self.NAME)[2]

    def test_other_parameters(self):
        """A decision on other parameters than were asked for is found."""
        story = Story()
        story.pending(params={"amount": "7"})
        seq = story.decide(params={"amount": "7000"})
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    @pytest.mark.parametrize(
        ("rule", "good"),
        [
            ("count = 1", True),
            ("count = 2", False),
            (f'approvers = ["{TWO}"]', False),
            (f'approvers = ["operator", "{TWO}"]', True),
        ],
    )
    def test_what_the_type_wants(self, rule, good):
        """As many must agree, and those, as the type says by which the task was asked for."""
        story = Story(types={"triage": f"[approval]\n{rule}"})
        story.pending()
        story.decide()
        seq = story.begin(approval="apr_t1")
        assert (2, int(not good), [] if good else [seq], 0) == story.found(self.NAME)

    def test_enough(self):
        """Two people are two."""
        story = Story()
        story.pending(count=2)
        story.decide()
        story.decide(by_uid=7)
        story.begin(approval="apr_t1")
        assert (3, 0, [], 0) == story.found(self.NAME)

    def test_what_it_gave_up_meanwhile(self):
        """A task that gives up a part of what it waits for has the rest, by the same question."""
        story = Story()
        story.pending()
        story.of_task("task_narrowed", grants=READ)
        story.decide(grants=READ)
        story.begin(approval="apr_t1", grants=READ)
        assert (2, 0, [], 0) == story.found(self.NAME)
        assert (2, 0, [], 0) == story.found("authority_never_grows")

    @pytest.mark.parametrize("verdict", [None, "deny"])
    def test_begun_without(self, verdict):
        """What begins although nobody agreed, or after somebody denied it, is found."""
        story = Story()
        story.pending()
        if verdict:
            story.decide(verdict=verdict)
            story.decide(by_uid=7)
        seq = story.begin(approval="apr_t1")
        assert [seq] == story.found(self.NAME)[2]

    def test_asked_before_the_records(self):
        """What was asked before the records is not known, and not judged."""
        story = Story(first_seq=70)
        story.decide()
        story.begin(approval="apr_t1")
        assert (0, 0, [], 2) == story.found(self.NAME)


class TestApprovalWhereRequired:
    NAME = "approval_where_required"

    def test_good(self):
        """Tasks that were agreed to, and those that say which condition did not hold, are as they should be."""
        story = Story(types=TYPES)
        story.begin(type_="asked", approval="apr_1")
        story.accept("t5", parent="t1", type_="asked")
        story.begin("t2", type_="over", no_approval_unless="context.params.n > 5")
        story.accept("t4", type_="asked")
        story.begin("t3", type_="free")
        answer = story.answer(self.NAME)
        assert (4, 0, {"of_types_without_approval": 1}) == (answer.n, answer.exceptions, answer.figures)

    def test_without(self):
        """A task that begins without the approval that its type wants is found."""
        story = Story(types=TYPES)
        seqs = [
            story.begin(type_="asked"),
            story.begin("t2", type_="over"),
            story.begin("t3", type_="asked", no_approval_unless="n > 5"),
            story.begin("t4", type_="over", no_approval_unless="n > 5"),
            story.accept("t5", parent="t3", type_="asked"),
            story.accept("t6", parent="t9", type_="asked"),
        ]
        assert (6, 6, seqs, 0) == story.found(self.NAME)

    def test_handed_on_by_a_condition(self):
        """Of what is handed on by a task to which nobody agreed no record says whether a condition held."""
        story = Story(types=TYPES)
        story.begin(type_="over", no_approval_unless="context.params.n > 5")
        story.accept("t2", type_="over")
        assert (1, 0, [], 1) == story.found(self.NAME)
        story = Story(first_seq=5, types=TYPES)
        story.accept("t2", type_="asked")
        assert (0, 0, [], 1) == story.found(self.NAME)

    def test_of_a_type_that_is_not_there(self):
        """A task of a type whose file nobody has is not judged."""
        story = Story(types=TYPES)
        story.begin(type_="gone")
        assert (0, 0, [], 1) == story.found(self.NAME)


class TestKillSwitch:
    NAME = "kill_switch"

    def test_good(self):
        """What was live ends, and nothing begins until it is on again."""
        story = Story()
        story.begin()
        story.end(reason="blocked")
        story.tell("tasks_blocked", type="triage", ended=1, by_uid=0)
        story.begin("t2", type_="other")
        story.token("t2", type_="other")
        story.tell("tasks_unblocked", type="triage", by_uid=0)
        story.begin("t3")
        answer = story.answer(self.NAME)
        assert (1, 0, {"tasks_ended": 1, "in_force": 0}) == (answer.n, answer.exceptions, answer.figures)

    @pytest.mark.parametrize(
        ("kind", "name"), [(blocks.TYPE, "triage"), (blocks.SPIFFE_ID, TWO), (blocks.PERSON, "psn_1")]
    )
    def test_begins_all_the_same(self, kind, name):
        """Whatever begins, is handed on or has a token while it is blocked is found."""
        story = Story()
        story.tell("tasks_blocked", **{kind: name}, ended=0)
        seqs = [
            story.begin(workload=TWO, person="psn_1"),
            story.token(workload=TWO, person="psn_1"),
            story.accept(person="psn_1"),
        ]
        story.end()
        story.end("t2")
        assert (1, 3, seqs, 0) == story.found(self.NAME)

    def test_lives_on(self):
        """A task that lives on is found, by the record of the block."""
        story = Story()
        story.begin()
        seq = story.tell("tasks_blocked", type="triage", ended=0)
        story.begin("t2", type_="other", after_ms=60_000)
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    def test_the_agent_s_own_words(self):
        """The kinds are those by which the agent's own records name what is off."""
        assert BLOCK_KINDS == (blocks.TYPE, blocks.SPIFFE_ID, blocks.PERSON)

    @pytest.mark.parametrize(
        "said", [{"workload": TWO}, {"type": 5}, {"type": "triage", "ended": "0"}, {"ended": True}]
    )
    def test_of_nothing_that_is_known(self, said):
        """A block that names nothing that can be off, or does not count what ended, is no case."""
        story = Story()
        story.tell("tasks_blocked", **{"ended": 0, **said})
        assert (0, 0, [], 1) == story.found(self.NAME)

    @pytest.mark.parametrize(("after_ms", "late"), [(9_000, False), (60_000, True)])
    def test_ends_late(self, after_ms, late):
        """A task that ends long after the block is found, although it has ended."""
        story = Story()
        story.begin()
        story.tell("tasks_blocked", type="triage", ended=0)
        seq = story.end(after_ms=after_ms)
        assert (1, int(late), [seq] * late, 0) == story.found(self.NAME)

    def test_of_several(self):
        """What an operator and an issuer have switched off stays so until all have switched it on; an operator may for
        all.
        """
        story = Story()
        story.tell("tasks_blocked", person="psn_1", ended=0, by_uid=0)
        story.tell("tasks_blocked", person="psn_1", ended=0, source="https://idp.example.org")
        story.tell("tasks_unblocked", person="psn_1", source="https://idp.example.org")
        seq = story.begin(person="psn_1")
        story.end()
        story.tell("tasks_blocked", person="psn_1", ended=0, source="https://idp.example.org")
        story.tell("tasks_unblocked", person="psn_1", by_uid=0)
        story.begin("t2", person="psn_1")
        assert (3, 1, [seq], 0) == story.found(self.NAME)

    def test_after_its_parent_ended(self):
        """That a task had to end with its parent before does not hide that it was blocked, too."""
        story = Story()
        story.begin()
        story.accept()
        ended = story.end()
        blocked = story.tell("tasks_blocked", spiffe_id=TWO, ended=0)
        story.begin("t9", type_="other", after_ms=60_000)
        assert [blocked] == story.found(self.NAME)[2]
        assert [ended] == story.found("cascade")[2]

    def test_a_record_that_says_it_was_made_long_before(self):
        """What begins behind the block is found, whatever time it says."""
        story = Story()
        story.tell("tasks_blocked", type="triage", ended=0)
        story.tell("agent_started", after_ms=10 * 86_400_000)
        seq = story.begin(after_ms=-11 * 86_400_000)
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    def test_made_before(self):
        """A token that was made before the block is no exception, though its record stands behind."""
        story = Story()
        story.begin()
        story.tell("tasks_blocked", type="triage", ended=1)
        story.token(after_ms=0)
        story.end()
        assert (1, 0, [], 0) == story.found(self.NAME)


def test_drills():
    """A drill that found something else than it had to is found; none is none."""
    story = Story()
    story.tell("drill_done", what="stop", expected="refused", found="refused", ms=12)
    seq = story.tell("drill_done", what="stop", expected="refused", found="allowed", ms=15)
    answer = story.answer("drills")
    assert (2, 1, (seq,), 15) == (answer.n, answer.exceptions, answer.seqs, answer.figures["ms_max"])


def test_acts_are_named():
    """An act without anybody's name is found; a signed source is somebody."""
    story = Story()
    story.decide()
    story.tell("tasks_blocked", person="psn_1", source="https://idp.example.org", ended=0)
    seq = story.tell("tasks_unblocked", type="triage")
    answer = story.answer("acts_named")
    assert (3, 1, (seq,)) == (answer.n, answer.exceptions, answer.seqs)
    assert {"approval_decided": 1, "tasks_blocked": 1, "tasks_unblocked": 1} == answer.figures


@pytest.mark.parametrize(
    "nobody", [{"by": ""}, {"by": " "}, {"source": ""}, {"by_uid": "ann"}, {"by_uid": -1}, {"by": 5}]
)
def test_nobody_s_name(nobody):
    """An empty name is nobody's."""
    story = Story()
    seq = story.tell("svids_revoked", **nobody)
    assert (1, 1, [seq], 0) == story.found("acts_named")
