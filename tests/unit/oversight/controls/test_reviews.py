"""reviews.py: what is found of broken glass that nobody has looked at, and of reviews that are overdue."""

import pytest
from fakes.control_records import TWO, Story

GLASS = {"glass": "break_glass = true\n[approval]", "triage": "", "deploy": ""}


class TestBreakGlass:
    NAME = "break_glass_reviewed"

    def owe(self, story, task="g1", **fields):
        said = {"task": task, "type": "glass", "spiffe_id": TWO, "uid": 1000, "login_uid": 501}
        return story.tell("review_owed", **{**said, **fields})

    def begin(self, story, task="g1", **fields):
        return story.begin(task, **{"type_": "glass", "break_glass": True, **fields})

    def done(self, story, task="g1", **fields):
        said = {"task": task, "type": "glass", "spiffe_id": TWO, "uid": 1000, "login_uid": 501, "by_uid": 0}
        return story.tell("review_done", **{**said, "finding": "fine", **fields})

    def test_good(self):
        """One after the other, each looked at by somebody else, one that did not begin after all, and one that lives."""
        story = Story()
        self.owe(story)
        self.begin(story)
        story.end("g1")
        self.done(story)
        self.owe(story, "g2")
        story.tell("review_withdrawn", task="g2", type="glass", spiffe_id=TWO, uid=1000)
        self.owe(story, "g3")
        self.begin(story, "g3")
        answer = story.answer(self.NAME)
        assert (6, 0, {"open": 1}, 0) == (answer.n, answer.exceptions, answer.figures, answer.not_judged)

    def test_otherwise(self):
        """One without a review, a second before the first is looked at, and who looks at themselves are found."""
        story = Story()
        seqs = [self.begin(story, "g0")]
        self.owe(story)
        self.begin(story)
        seqs.append(self.owe(story, "g2"))
        seqs.append(self.done(story, "g2", by_uid=7, by_login_uid=501))
        n, exceptions, found, _ = story.found(self.NAME)
        assert (5, 3, seqs) == (n, exceptions, found)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"uid": None, "login_uid": None, "by_uid": 1000},
            {"uid": None, "login_uid": None},
            {"uid": 7, "login_uid": None},
            {"by_uid": None},
            {"by_uid": "ann"},
            {"task": "g9"},
        ],
    )
    def test_who_looked(self, wrong):
        """A review that does not say whose glass it was, or says another than owed it, or that nobody did, is found."""
        story = Story()
        self.owe(story)
        self.begin(story)
        seq = self.done(story, **wrong)
        assert (3, 1, [seq], 0) == story.found(self.NAME)

    def test_owed_by_nobody(self):
        """A review that does not say whose glass it is is found."""
        story = Story()
        seq = self.owe(story, uid=None, login_uid=None)
        self.begin(story)
        assert (2, 1, [seq], 0) == story.found(self.NAME)

    @pytest.mark.parametrize(("after_ms", "found"), [(1_000, (2, 0, [], 1)), (90 * 86_400_000, (2, 1, [1], 0))])
    def test_nobody_looked(self, after_ms, found):
        """A break-glass task that is over, and that nobody has looked at, is found, but in the last seconds."""
        story = Story()
        self.owe(story)
        self.begin(story)
        story.end("g1")
        story.tell("agent_started", after_ms=after_ms)
        assert found == story.found(self.NAME)

    def test_by_what_the_type_says(self):
        """Of a break-glass type each task owes a review, also one that does not say so, and one that is handed on."""
        story = Story(types=GLASS)
        story.begin("t1")
        self.owe(story)
        story.begin("g1", type_="glass")
        story.accept("g2", parent="g1", type_="glass")
        seqs = [story.begin("g3", type_="glass"), story.accept("g4", parent="g3", type_="glass")]
        story.begin("x", type_="gone")
        assert (5, 2, seqs, 1) == story.found(self.NAME)

    def test_of_before_the_records(self):
        """A review that was owed before the records is judged by what it says itself."""
        story = Story(first_seq=9)
        self.done(story)
        seq = self.done(story, "g2", by_uid=1000)
        assert (2, 1, [seq], 0) == story.found(self.NAME)


class TestReviews:
    NAME = "reviews"

    def overdue(self, story, item="type:triage"):
        return story.tell("review_overdue", item=item, owner="ann", due=1)

    def decide(self, story, decision, item="type:triage"):
        return story.tell("review_decided", item=item, decision=decision, digest="d", by="ann", owner="ann")

    def test_good(self):
        """One that was overdue and is decided by now, and one that was decided in time."""
        story = Story()
        self.overdue(story)
        self.decide(story, "keep")
        self.decide(story, "narrow", "type:deploy")
        answer = story.answer(self.NAME)
        assert (3, 0, {"keep": 1, "narrow": 1, "overdue": 0}) == (answer.n, answer.exceptions, answer.figures)

    @pytest.mark.parametrize("decision", [None, "perhaps"])
    def test_overdue(self, decision):
        """One that is overdue is found, however often that was said, and whatever else is decided."""
        story = Story()
        seq = self.overdue(story)
        self.overdue(story)
        if decision:
            self.decide(story, decision)
        assert (1 + bool(decision), 1, [seq], 0) == story.found(self.NAME)

    def test_to_be_retired(self):
        """What is to be retired is overdue until it is gone."""
        story = Story(types={"triage": "", "deploy": ""})
        seq = self.overdue(story)
        self.overdue(story, "type:gone")
        self.decide(story, "retire")
        self.decide(story, "retire", "type:gone")
        assert (2, 0, [], 2) == story.found(self.NAME)
        story.tell("policy_loaded", digest=story.set)
        assert (4, 1, [seq], 0) == story.found(self.NAME)
