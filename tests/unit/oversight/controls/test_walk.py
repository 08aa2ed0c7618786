"""walk.py, fold.py, verdicts.py: four verdicts, whatever records say, and none of them by nothing."""

import json

import pytest
from fakes.control_records import B, Story
from hypothesis import given
from hypothesis import strategies as st
from sojourn.audit.journal import Record
from sojourn.jose.canonical_json import canonical
from sojourn.oversight.controls import frameworks
from sojourn.oversight.controls.exported_types import ExportedTypes
from sojourn.oversight.controls.fold import ControlFold
from sojourn.oversight.controls.queries import QUERIES
from sojourn.oversight.controls.query import Answer, Journal, Replayed
from sojourn.oversight.controls.verdicts import _verdict, judged
from sojourn.oversight.controls.walk import ControlWalk

WHOLE = Journal(looked_at=True)
OWASP = [frameworks.load("owasp-asi")]


def walked(story, journal=WHOLE, which=OWASP):
    walk = ControlWalk(which)
    for seq, at_ms, event, fields in story.records:
        walk.read(Record(seq, at_ms, event, canonical(fields), ""))
    return walk.summary(journal, Replayed(), ExportedTypes(story.files.__getitem__))


def walked_raw(story):
    """What the walk says of records whose fields need be no JSON of ours."""
    fold = ControlFold()
    for seq, at_ms, event, fields in story.records:
        fold.read(seq, at_ms, event, fields if fold.wants(event) else None)
    answers = fold.answers(WHOLE, Replayed(), ExportedTypes(story.files.__getitem__))
    return list(judged([frameworks.load(each) for each in frameworks.names()], answers, WHOLE))


def row(found, query, framework=0):
    """The first row of a query."""
    return next(each for each in found["frameworks"][framework]["rows"] if each["query"] == query)


class TestVerdicts:
    def test_shown(self):
        """Where there is something to compare and nothing speaks against it, it is shown, with how much there was."""
        story = Story()
        story.begin()
        story.token()
        found = row(walked(story), "authority_never_grows")
        assert ("shown", 1, [], None) == tuple(found[name] for name in ("verdict", "n", "records", "why"))

    def test_failed(self):
        """One case against it and it has failed, by the number of its record."""
        story = Story()
        story.begin()
        story.token()
        seq = story.token(resource=B)
        found = row(walked(story), "authority_never_grows")
        assert ("failed", 2, 1, [seq]) == tuple(found[name] for name in ("verdict", "n", "exceptions", "records"))

    def test_a_record_that_speaks_against_it(self):
        """Where a record is named that speaks against it, it has failed, whatever the number says."""
        answer = Answer(5, 0, (7,), 0, 0, {})
        assert ("failed", "") == _verdict(answer, WHOLE, unlooked=False)

    def test_no_data(self):
        """Nothing to compare is never a pass, in no row of any framework."""
        found = walked(Story(), which=[frameworks.load(each) for each in frameworks.names()])
        verdicts = {each["verdict"] for framework in found["frameworks"] for each in framework["rows"]}
        assert {"no data", "not ours"} == verdicts
        assert (0, 0) == (found["verdicts"]["shown"], found["verdicts"]["failed"])

    def test_not_ours(self):
        """What is not ours says why, and has no claim."""
        (found,) = [each for each in walked(Story())["frameworks"][0]["rows"] if each["id"] == "ASI06"]
        assert ("not ours", None, None) == (found["verdict"], found["claim"], found["query"])
        assert "no memory" in found["why"]

    def test_of_a_journal_that_is_not_whole(self):
        """Where the journal is not whole no claim on all of it holds: a record that speaks against it may be missing."""
        story = Story()
        story.begin()
        story.token()
        story.of_task("token_denied", code="policy_denied")
        found = walked(story, Journal(looked_at=True, whole=False, first_bad_seq=2))
        failed = row(found, "authority_never_grows")
        assert ("failed", 0, [2]) == tuple(failed[name] for name in ("verdict", "exceptions", "records"))
        assert "not whole" in failed["why"]
        assert "failed" == row(found, "refusals_say_why")["verdict"]
        assert "no data" == row(found, "kill_switch")["verdict"]

    def test_a_gap(self):
        """Records that are missing in between are a journal that is not whole."""
        story = Story()
        story.begin()
        story.seq += 5
        seq = story.token()
        found = walked(story)
        assert ("failed", [seq]) == tuple(row(found, "tokens_of_live_tasks")[name] for name in ("verdict", "records"))
        assert {"looked_at": True, "whole": False, "first_bad_seq": seq} == found["journal"]

    def test_nobody_has_looked(self):
        """Where nobody has looked whether it is whole, that row says so, and the others speak for what was seen."""
        story = Story()
        story.begin()
        story.token()
        which = [frameworks.load("maestro")]
        found = walked(story, Journal(looked_at=False), which)
        whole = row(found, "journal_whole")
        assert ("no data", "nobody has looked whether the journal is whole") == (whole["verdict"], whole["why"])
        assert "shown" == row(found, "authority_never_grows")["verdict"]
        assert found["journal"]["whole"] is None

    def test_counted(self):
        """The sum of the verdicts is that of the rows."""
        found = walked(Story())
        assert sum(found["verdicts"].values()) == len(OWASP[0].rows)
        assert json.loads(json.dumps(found)) == found


class TestWhatIsNoRecordOfOurs:
    def test_no_json(self):
        """A record whose fields are no JSON may say anything: no claim on all records holds."""
        story = Story()
        story.begin()
        story.token()
        walk = ControlWalk(OWASP)
        for seq, at_ms, event, fields in story.records:
            walk.read(Record(seq, at_ms, event, canonical(fields), ""))
        walk.read(Record(story.seq + 1, 0, "token_issued", '{"task":', ""))
        found = walk.summary(WHOLE, Replayed(), ExportedTypes(story.files.__getitem__))
        assert (1, "failed") == (found["unread"], row(found, "authority_never_grows")["verdict"])

    @pytest.mark.parametrize("event", sorted(set().union(*(each.events for each in QUERIES.values()))))
    def test_without_what_is_looked_for(self, event):
        """A record that lacks everything, such as that of another release, is judged by none, or speaks for nothing."""
        fold = ControlFold()
        fold.read(50, 1, event, {})
        answers = fold.answers(WHOLE, Replayed(), ExportedTypes({}.__getitem__))
        counted = {name for name, each in answers.items() if each.exceptions}
        acts = {"acts_named", "refusals_say_why", "nothing_lost", "outside_credentials_end"}
        assert counted <= acts

    @pytest.mark.parametrize(
        "said",
        [
            *("consequence_of = 5", 'consequence_of = {"doc:read" = 3}', "consequence = 1", "delegation = 1"),
            *('delegation = {max_depth = "x"}', "approval = 1", "approval = {count = 1.5}", "approval = {when = 1}"),
            *("approval = {approvers = 1}", "approval = {approvers = [1]}", "owner = 5", 'break_glass = "yes"'),
        ],
    )
    def test_a_type_of_another_shape(self, said):
        """A type that the agent would not take is as good as none, and what is judged by it is not judged."""
        story = Story(types={"triage": said})
        story.begin()
        story.token()
        story.ticket()
        story.accept()
        answers = story.fold(*QUERIES).answers(WHOLE, Replayed(), ExportedTypes(story.files.__getitem__))
        for name in ("high_consequence_bound", "fan_out", "approval_where_required"):
            assert (0, 0) == (answers[name].n, answers[name].exceptions)
            assert answers[name].not_judged

    @pytest.mark.parametrize("wrong", [5, 10**400, -1, "x", [1], None, True, 1.5, float("inf")])
    @pytest.mark.parametrize("field", ["depth", "expires_at", "seconds", "ms", "policy_set", "count", "owner"])
    def test_a_wrong_value(self, field, wrong):
        """Whatever stands where a number or a name must: verdicts come of it that can be told."""
        story = Story()
        story.begin(**{field: wrong})
        story.token(**{field: wrong})
        story.pending("t3", **{field: wrong})
        story.accept(**{field: wrong})
        story.tell("drill_done", **{"found": "a", "expected": "a", "ms": 1, field: wrong})
        story.tell("entry_created", **{"entry_id": "e1", field: wrong})
        story.tell("x509_svid_issued", **{"entry_id": "e1", "spiffe_id": "x", "expires_at": 1, field: wrong})
        story.end(**{field: wrong})
        found = walked_raw(story)
        assert json.dumps(found)

    def test_a_query_that_fails(self, monkeypatch):
        """A query that cannot answer shows nothing, and hides nothing that speaks against it."""
        monkeypatch.setattr(QUERIES["short_lived"], "finish", lambda self, whole: {}["x"])
        story = Story()
        story.token()
        assert (0, 0, [], 1) == story.found("short_lived")
        seq = story.token(expires_at=story.at_ms // 1_000 + 3_600)
        assert (1, 1, [seq], 2) == story.found("short_lived")

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(sorted(set().union(*(each.events for each in QUERIES.values())))),
                st.dictionaries(
                    st.sampled_from(
                        ["task", "type", "grants", "parent", "actions", "ended", "cause", "count", "digest"]
                    ),
                    st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
                    max_size=5,
                ),
            ),
            max_size=20,
        )
    )
    def test_whatever_it_says(self, records):
        """Whatever records say, nothing but verdicts comes of them."""
        fold = ControlFold()
        for seq, (event, fields) in enumerate(records, 1):
            fold.read(seq, seq, event, fields)
        assert set(QUERIES) == set(fold.answers(WHOLE, Replayed(), ExportedTypes({}.__getitem__)))


class TestMemory:
    def test_tasks_that_have_ended_are_let_go(self):
        """However many tasks there were, no more is kept than of those that live, and of the last that ended."""
        fold = ControlFold()
        fold.tasks._ended_most = 50
        for story_of in range(2):
            story = Story()
            for number in range(500):
                name = f"t{story_of}-{number}"
                story.begin(name)
                story.token(name)
                story.end(name)
            for seq, at_ms, event, fields in story.records:
                fold.read(seq + story_of * 1_500, at_ms, event, fields)
        assert (0, 0, 50) == (len(fold.tasks._live), len(fold.tasks._of), len(fold.tasks._ended))
        answers = fold.answers(WHOLE, Replayed(), ExportedTypes({}.__getitem__))
        assert (1_000, 0) == (answers["tokens_of_live_tasks"].n, answers["tokens_of_live_tasks"].exceptions)

    def test_of_too_many_the_number_is_told(self):
        """Tasks for which there is no room are counted, and so are those that began before the records."""
        story = Story(first_seq=9)
        story.begin()
        story.begin("t2")
        story.token("t3")
        walk = ControlWalk(OWASP)
        walk._fold.tasks._most = 1
        for seq, at_ms, event, fields in story.records:
            walk.read(Record(seq, at_ms, event, canonical(fields), ""))
        found = walk.summary(WHOLE, Replayed(), ExportedTypes(story.files.__getitem__))
        assert (1, 1) == (found["tasks_not_kept"], found["tasks_begun_before"])
