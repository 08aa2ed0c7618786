"""inventory.py: what is found of entries, their SVIDs, task types and the sets that decided."""

import pytest
from fakes.control_records import ONE, Story
from sojourn.oversight.controls.query import Replayed


def entry(story, event="entry_created", entry_id="e1", **fields):
    return story.tell(event, entry_id=entry_id, spiffe_id=ONE, revision=0, by_uid=0, **fields)


def svid(story, entry_id="e1", **fields):
    said = {"entry_id": entry_id, "spiffe_id": ONE, "serial": "1", "expires_at": story.at_ms // 1_000 + 3_600}
    return story.tell("x509_svid_issued", **{**said, **fields})


@pytest.mark.parametrize("name", ["entries_end", "svids_expire", "entries_owned", "decisions_replayed"])
def test_nothing(name):
    """Where there is no entry and no decision a query has looked at nothing."""
    assert (0, 0, [], 0) == Story().found(name)


class TestEntriesEnd:
    NAME = "entries_end"

    def test_good(self):
        """A deleted entry has no SVID any more; one that is registered again has."""
        story = Story()
        entry(story)
        svid(story)
        entry(story, "entry_deleted")
        svid(story, "e2")
        entry(story)
        svid(story)
        assert (1, 0, [], 0) == story.found(self.NAME)

    def test_issued_after_that(self):
        """An SVID of a deleted entry is found, but for one that was made before."""
        story = Story()
        entry(story, "entry_deleted")
        svid(story, after_ms=0)
        seq = svid(story)
        assert (1, 1, [seq], 0) == story.found(self.NAME)


def test_svids_expire():
    """An SVID of no entry, and one that is over when it is issued, are found."""
    story = Story()
    svid(story)
    seqs = [svid(story, entry_id=""), svid(story, expires_at=story.at_ms // 1_000 - 5)]
    answer = story.answer("svids_expire")
    assert (3, 2, tuple(seqs)) == (answer.n, answer.exceptions, answer.seqs)
    assert answer.figures["seconds_max"] in {3_598, 3_599, 3_600}


def test_entries_owned():
    """Entries without an owner are found, as they are in the end."""
    story = Story()
    entry(story, owner="ann")
    entry(story, entry_id="e2")
    entry(story, "entry_updated", "e2", owner="ben")
    entry(story, entry_id="e3")
    entry(story, "entry_deleted", "e3")
    seq = entry(story, entry_id="e4")
    assert (3, 1, [seq], 0) == story.found("entries_owned")


def test_an_owner_of_blanks():
    """Blanks are nobody's name, for an entry and for a type."""
    story = Story(types={"triage": 'owner = " "'})
    seqs = [entry(story, owner=" "), story.tell("policy_loaded", digest=story.set)]
    assert (1, 1, seqs[:1], 0) == story.found("entries_owned")
    assert (1, 1, seqs[1:], 0) == story.found("types_owned")


def test_entries_of_a_part():
    """What was registered before the records is not known: entries with an owner show nothing then, others speak."""
    story = Story(first_seq=500)
    entry(story, owner="ann")
    assert (0, 0, [], 1) == story.found("entries_owned")
    seq = entry(story, entry_id="e2")
    assert (1, 1, [seq], 1) == story.found("entries_owned")


class TestTypesOwned:
    NAME = "types_owned"

    def test_good(self):
        """Types of which each has an owner."""
        story = Story(types={"triage": 'owner = "ann"', "deploy": 'owner = "oidc:https://idp.example.org#ben"'})
        story.tell("policy_loaded", digest=story.set, task_types=2)
        assert (2, 0, [], 0) == story.found(self.NAME)

    def test_without(self):
        """Types without an owner are found, by name, and by the record that names their set first."""
        story = Story(types={"triage": 'owner = "ann"', "deploy": "", "pay": 'owner = ""'})
        seq = story.tell("policy_loaded", digest=story.set, task_types=3)
        story.begin()
        answer = story.answer(self.NAME)
        assert (3, 2, (seq,), 0) == (answer.n, answer.exceptions, answer.seqs, answer.left_out)
        assert ["deploy", "pay"] == answer.figures["without_owner"]

    def test_of_a_set_that_is_not_there(self):
        """Where the last set is not there nothing is said; and neither is where there is none."""
        story = Story()
        assert (0, 0, [], 0) == story.found(self.NAME)
        story.tell("policy_loaded", digest="0" * 64, task_types=1)
        assert (0, 0, [], 1) == story.found(self.NAME)


class TestPolicySets:
    NAME = "policy_sets_kept"

    def test_good(self):
        """The set that decided is there, with its types and those that have test cases."""
        story = Story(types={"triage": "", "deploy": ""}, cases=["triage"])
        story.tell("policy_loaded", digest=story.set, by_uid=0)
        story.begin()
        story.tell("policy_refused", reason="no")
        answer = story.answer(self.NAME)
        said = {"loaded": 1, "loaded_by_operator": 1, "refused": 1, "types": 2, "types_with_tests": 1}
        assert (1, 0, said) == (answer.n, answer.exceptions, answer.figures)

    def test_missing(self):
        """A set that decided and is not there is found, by the first record that names it."""
        story = Story()
        story.begin()
        seq = story.begin("t2", policy_set="1" * 64)
        story.begin("t3", policy_set="1" * 64)
        assert (2, 1, [seq], 0) == story.found(self.NAME)

    def test_too_many(self, monkeypatch):
        """Records of sets for which there is no room are not judged."""
        monkeypatch.setattr("sojourn.oversight.controls.fold.CONTROL_KEYS", 1)
        story = Story()
        story.begin()
        story.begin("t2", policy_set="1" * 64)
        assert (1, 0, [], 1) == story.found(self.NAME)

    @pytest.mark.parametrize("path", ["policy-sets/", "policy-texts/"])
    def test_changed(self, path):
        """A set of which anything was changed is as good as none."""
        story = Story()
        seq = story.begin()
        name = next(each for each in story.files if each.startswith(path))
        story.files[name] += b"}"
        assert (1, 1, [seq], 0) == story.found(self.NAME)


def test_decisions_replayed():
    """What was replayed counts, what differs is found, and what could not be replayed is not judged."""
    answer = Story().answer("decisions_replayed", replayed=Replayed(7, 2, 3, [4, 5]))
    assert (10, 3, (4, 5), 1, 2) == (answer.n, answer.exceptions, answer.seqs, answer.left_out, answer.not_judged)
