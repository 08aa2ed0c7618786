"""authority.py: what is found of a task that has more than it began with, or uses it when it has nothing."""

import pytest
from fakes.control_records import ELSEWHERE, READ, READ_WRITE, B, Story
from hypothesis import given
from hypothesis import strategies as st
from sojourn.oversight.controls.authority import is_high

NOTHING = (0, 0, [], 0)
TYPES = {"triage": 'consequence = "high"', "mixed": 'consequence_of = {"doc:write" = "high"}', "low": ""}
BOUND = {"cnf": {"jkt": "x"}, "params_digest": "y"}
QUERIES = (
    "authority_never_grows",
    "tokens_of_live_tasks",
    "ended_by_attestation",
    "high_consequence_bound",
    "short_lived",
    "outside_credentials_end",
)


@pytest.mark.parametrize("name", QUERIES)
def test_nothing(name):
    """Where there is nothing to compare a query has looked at nothing."""
    assert NOTHING == Story().found(name)


class TestAuthorityNeverGrows:
    NAME = "authority_never_grows"

    def test_a_life(self):
        """A task that has tokens, is narrowed, suspended, resumed and handed on within what it has is as it should be."""
        story = Story()
        story.begin()
        story.token(actions=("doc:read", "doc:write"))
        story.of_task("task_narrowed", grants=READ)
        story.token()
        story.of_task("task_suspended", cause="operator")
        story.of_task("task_resumed", cause="operator", asked={READ[0]["resource"]: ["doc:read"]})
        story.ticket()
        story.end()
        answer = story.answer(self.NAME)
        assert (5, 0) == (answer.n, answer.exceptions)
        assert {"task_delegated": 1, "task_narrowed": 1, "task_resumed": 1, "token_issued": 2} == answer.figures

    @pytest.mark.parametrize(
        "grows",
        [
            lambda story: story.token(resource=B),
            lambda story: story.token(actions=("doc:read", "doc:delete")),
            lambda story: story.of_task("external_credential_issued", resource=B, actions=["doc:read"]),
            lambda story: story.of_task("task_narrowed", grants=ELSEWHERE),
            lambda story: story.of_task("task_resumed", cause="facts", asked={B: ["doc:read"]}),
            lambda story: story.ticket(grants=ELSEWHERE),
        ],
    )
    def test_more_than_at_the_beginning(self, grows):
        """Whatever gives a task more than it began with is found, by its record."""
        story = Story()
        story.begin()
        story.token()
        seq = grows(story)
        story.end()
        assert (2, 1, [seq], 0) == story.found(self.NAME)

    def test_more_than_was_left(self):
        """What a task has lost it does not have again."""
        story = Story()
        story.begin()
        story.of_task("task_narrowed", grants=READ)
        seq = story.token(actions=("doc:write",))
        assert (2, 1, [seq], 0) == story.found(self.NAME)

    def test_more_than_was_asked(self):
        """What begins after an approval is no more than was shown to whoever agreed."""
        story = Story()
        story.pending(grants=READ)
        story.decide(grants=READ)
        seq = story.begin(grants=READ_WRITE)
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    def test_a_record_that_was_made_before(self):
        """A token that was made before its task was narrowed is no exception, though its record stands behind."""
        story = Story()
        story.begin()
        story.of_task("task_narrowed", grants=READ)
        story.token(actions=("doc:write",), after_ms=-1)
        assert (2, 0, [], 0) == story.found(self.NAME)

    @pytest.mark.parametrize("again", [Story.begin, Story.accept, Story.pending])
    def test_begun_twice(self, again):
        """A task that is said to begin a second time has no more than it had."""
        story = Story()
        story.begin(grants=READ)
        again(story, "t1", grants=READ)
        seq = again(story, "t1", grants=READ_WRITE)
        assert (2, 1, [seq], 0) == story.found(self.NAME)

    def test_a_record_that_says_it_was_made_long_before(self):
        """What says it is older than records are late is judged by where it stands."""
        story = Story()
        story.begin()
        story.of_task("task_narrowed", grants=READ)
        story.tell("agent_started", after_ms=86_400_000)
        seq = story.token(actions=("doc:write",), after_ms=-2 * 86_400_000)
        assert (2, 1, [seq], 0) == story.found(self.NAME)

    def test_grants_that_nobody_can_read(self):
        """What is left of a task by a record that nobody can read is not known: the rest is not judged."""
        story = Story()
        story.begin()
        story.of_task("task_narrowed", grants=5)
        story.token(actions=("doc:write",))
        assert (0, 0, [], 2) == story.found(self.NAME)

    def test_begun_before_the_records(self):
        """What a task of before had at its beginning is not known, so that it is counted and not judged."""
        story = Story(first_seq=500)
        story.token("old")
        story.token("old")
        story.begin()
        story.token()
        fold = story.fold(self.NAME)
        assert (1, 0, [], 2) == story.found(self.NAME)
        assert {"old"} == fold.tasks.begun_before

    def test_an_earlier_release(self):
        """Of a task whose beginning does not say what it was granted nothing is judged."""
        story = Story()
        story.begin(grants=None)
        story.token()
        assert (0, 0, [], 1) == story.found(self.NAME)

    def test_many(self):
        """Of many exceptions the first are named, and of the others there is the number."""
        story = Story()
        story.begin()
        seqs = [story.token(resource=B) for _ in range(25)]
        answer = story.answer(self.NAME)
        assert (25, seqs[:10], 15) == (answer.exceptions, list(answer.seqs), answer.left_out)

    @given(st.data())
    def test_no_order_of_good_records_is_found(self, data):
        """However many tasks are interleaved, none that keeps within what it has is an exception; one more is found."""
        story = Story()
        held = {}
        for number in range(data.draw(st.integers(1, 4))):
            story.begin(f"t{number}")
            held[f"t{number}"] = {"doc:read", "doc:write"}
        checks = 0
        for _ in range(data.draw(st.integers(0, 20))):
            task = data.draw(st.sampled_from(sorted(held)))
            actions = data.draw(st.sets(st.sampled_from(sorted(held[task])), min_size=1))
            if data.draw(st.booleans()):
                story.token(task, sorted(actions))
            else:
                story.of_task("task_narrowed", task, grants=[{"resource": READ[0]["resource"], "actions": [*actions]}])
                held[task] = actions
            checks += 1
        assert (checks, 0, [], 0) == story.found(self.NAME)
        task = data.draw(st.sampled_from(sorted(held)))
        seq = story.token(task, ["doc:read"], resource=B)
        assert (checks + 1, 1, [seq], 0) == story.found(self.NAME)


class TestTokensOfLiveTasks:
    NAME = "tokens_of_live_tasks"

    def test_good(self):
        """Tokens of tasks that live, of several and in any order, are as they should be."""
        story = Story()
        for each in ("t1", "t2"):
            story.begin(each)
            story.token(each)
        story.end("t1")
        story.token("t2")
        assert (3, 0, [], 0) == story.found(self.NAME)

    def test_after_the_end(self):
        """A token for a task that is over is found, also long after."""
        story = Story()
        story.begin()
        story.end()
        seq = story.token(after_ms=1)
        assert (1, 1, [seq], 0) == story.found(self.NAME)
        assert (1, 1, [seq], 0) == story.found(self.NAME, _ended_most=0)

    def test_made_before_the_end(self):
        """A token that was made before the end is none, though its record stands behind that of the end."""
        story = Story()
        story.begin()
        story.end()
        story.token(after_ms=0)
        assert (1, 0, [], 0) == story.found(self.NAME)

    def test_suspended(self):
        """A token while anything keeps the task suspended is found."""
        story = Story()
        story.begin()
        story.of_task("task_suspended", cause="operator")
        story.of_task("task_suspended", cause="facts")
        story.of_task("task_resumed", cause="facts")
        seq = story.token()
        story.of_task("task_resumed", cause="operator")
        story.token()
        assert (2, 1, [seq], 0) == story.found(self.NAME)

    def test_pending(self):
        """A token of a task that waits for approval is found."""
        story = Story()
        story.pending()
        seq = story.token()
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    def test_never_begun(self):
        """In a journal from its first record on, a token of a task that never began is found; else it is not judged."""
        for first, found in ((1, (1, 1, [2], 0)), (7, (0, 0, [], 1))):
            story = Story(first_seq=first)
            story.tell("agent_started")
            story.token("t9")
            assert found == story.found(self.NAME)

    def test_a_record_that_says_it_was_made_long_before(self):
        """A token behind its task's end that says it is a month older is found."""
        story = Story()
        story.begin()
        story.end()
        story.tell("agent_started", after_ms=30 * 86_400_000)
        seq = story.token(after_ms=-31 * 86_400_000)
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    def test_one_that_nobody_can_read(self):
        """That one task's beginning cannot be read excuses no other that never began."""
        story = Story()
        story.tell("task_begun", task="m", grants=READ)
        story.token("m")
        seq = story.token("never")
        assert (1, 1, [seq], 1) == story.found(self.NAME)

    def test_too_many_at_once(self):
        """Where there is no room for a task it is not judged, and none is thought never to have begun."""
        story = Story()
        for each in ("t1", "t2"):
            story.begin(each)
            story.token(each)
        assert (1, 0, [], 1) == story.found(self.NAME, _most=1)


class TestEndedByAttestation:
    NAME = "ended_by_attestation"

    def test_ends(self):
        """Tasks that ended so are counted, and no others."""
        story = Story()
        for each, reason in (("t1", "attestation_changed"), ("t2", "success")):
            story.begin(each)
            story.end(each, reason)
        assert (1, 0, [], 0) == story.found(self.NAME)

    def test_a_token_after_that(self):
        """A token that was made after such an end is found."""
        story = Story()
        story.begin()
        story.end(reason="attestation_changed")
        seq = story.token()
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    def test_a_token_long_after_that(self):
        """Where it is not known any more how a task ended, its token is not judged."""
        story = Story()
        story.begin()
        story.end(reason="attestation_changed")
        story.token()
        assert (1, 0, [], 1) == story.found(self.NAME, _ended_most=0)


class TestHighConsequence:
    NAME = "high_consequence_bound"

    def test_bound(self):
        """Tokens that are bound to a sender and a request are good; those of no high consequence need not be."""
        story = Story(types=TYPES)
        story.token(**BOUND)
        story.token(type_="mixed", actions=("doc:read",))
        story.token(type_="low")
        assert (1, 0, [], 0) == story.found(self.NAME)

    @pytest.mark.parametrize("empty", [{"cnf": False}, {"cnf": {}}, {"params_digest": ""}])
    def test_bound_to_nothing(self, empty):
        """A token that is bound to nothing is not bound."""
        story = Story(types=TYPES)
        seq = story.token(**{**BOUND, **empty})
        assert (1, 1, [seq], 0) == story.found(self.NAME)

    @pytest.mark.parametrize("lacks", ["cnf", "params_digest"])
    def test_not_bound(self, lacks):
        """A token of high consequence without its sender, or without its request, is found."""
        story = Story(types=TYPES)
        story.token(**BOUND)
        seqs = [
            story.token(**{**BOUND, lacks: None}),
            story.token(type_="mixed", actions=("doc:read", "doc:write"), **{**BOUND, lacks: None}),
        ]
        assert (3, 2, seqs, 0) == story.found(self.NAME)

    def test_of_a_set_that_is_not_there(self):
        """Tokens of a type whose file nobody has are not judged."""
        story = Story(types=TYPES)
        story.token(policy_set="0" * 64)
        story.token(type_="gone")
        assert (0, 0, [], 2) == story.found(self.NAME)

    def test_high(self):
        """What a type says of a single action counts before what it says of all."""
        kind = {"consequence": "high", "consequence_of": {"doc:read": "normal"}}
        assert (False, True) == (is_high(kind, "doc:read"), is_high(kind, "doc:write"))
        assert not is_high({}, "doc:read")


class TestShortLived:
    NAME = "short_lived"

    def test_a_minute(self):
        """Tokens of a minute are good, and the figures say how long tokens and tasks lived."""
        story = Story()
        story.begin()
        story.token()
        story.end(seconds=2.5)
        answer = story.answer(self.NAME)
        assert (1, 0) == (answer.n, answer.exceptions)
        assert 2.5 == answer.figures["task_seconds_max"]
        assert 59 <= answer.figures["token_seconds_max"] <= 60

    def test_longer(self):
        """A token that lives longer is found."""
        story = Story()
        seq = story.token(expires_at=story.at_ms // 1_000 + 120)
        assert (1, 1, [seq], 0) == story.found(self.NAME)


class TestOutsideCredentials:
    NAME = "outside_credentials_end"

    def issue(self, story, **fields):
        said = {"resource": B, "actions": ["doc:read"], "credential": "c1"}
        return story.of_task("external_credential_issued", **said, **fields)

    def test_nobody_took_it_back(self):
        """One of a task that is over, of which no record says that it ended, is found until it has expired."""
        story = Story()
        story.begin()
        seq = self.issue(story, expires_at=story.at_ms // 1_000 + 3_600)
        assert (1, 0, [], 0) == story.found(self.NAME)
        story.end()
        assert (1, 0, [], 0) == story.found(self.NAME)
        story.tell("agent_started", after_ms=60_000)
        assert (1, 1, [seq], 0) == story.found(self.NAME)
        assert (1, 1, [seq], 0) == story.found(self.NAME, _ended_most=0)
        story.tell("agent_started", after_ms=3_600_000)
        assert (1, 0, [], 0) == story.found(self.NAME)

    def test_of_a_task_of_before(self):
        """Whether a task of before the records is over is not known."""
        story = Story(first_seq=9)
        self.issue(story)
        assert (1, 0, [], 1) == story.found(self.NAME)

    def test_taken_back(self):
        """One that is taken back is as it should be."""
        story = Story()
        self.issue(story)
        story.of_task("external_credential_ended", credential="c1")
        assert (1, 0, [], 0) == story.found(self.NAME)

    @pytest.mark.parametrize(
        "event", ["external_credential_open", "external_credential_lost", "external_credential_damaged"]
    )
    def test_left(self, event):
        """One that cannot be taken back, or may be somewhere, is found."""
        story = Story()
        self.issue(story)
        seq = story.of_task(event, credential="c1")
        assert (1, 1, [seq], 0) == story.found(self.NAME)
