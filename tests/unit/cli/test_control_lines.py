"""control_lines.py: the control map as people read it."""

import pytest
from fakes.control_records import B, Story
from sojourn.audit.journal import Record
from sojourn.cli.control_lines import control_lines, has_failed, loaded
from sojourn.errors import InvalidInput
from sojourn.jose.canonical_json import canonical
from sojourn.oversight.controls.exported_types import ExportedTypes
from sojourn.oversight.controls.query import Journal, Replayed
from sojourn.oversight.controls.walk import ControlWalk


def shown(story, *names, journal=None):
    """All lines, one after the other, and whether a row failed."""
    walk = ControlWalk(loaded(names))
    for seq, at_ms, event, fields in story.records:
        walk.read(Record(seq, at_ms, event, canonical(fields), ""))
    value = walk.summary(journal or Journal(looked_at=True), Replayed(), ExportedTypes(story.files.__getitem__))
    return "\n".join(control_lines(value)), has_failed(value)


def test_exceptions_are_named():
    """A row that failed names the first records, and says how many cases are of others."""
    story = Story()
    story.begin()
    seqs = [story.token(resource=B) for _ in range(12)]
    text, failed = shown(story, "owasp-asi")
    assert failed
    assert "  FAILED    Whatever becomes of a workload's goal" in text
    assert f"exceptions: 12, by records {', '.join(map(str, seqs[:10]))} and 2 more" in text


def test_what_all_of_it_rests_on():
    """The last lines say of which records it is, whether they are whole, and what was not judged."""
    story = Story(first_seq=40)
    story.token("old")
    text, failed = shown(story, "owasp-asi", journal=Journal(looked_at=True, whole=False, first_bad_seq=40))
    assert failed
    assert "records 40 to 40: they are NOT whole from 40 on" in text
    assert "1 tasks began before these records, and are not judged" in text
    assert "            not judged: 1" in text


def test_nothing():
    """Without records it says so, and nothing has failed."""
    text, failed = shown(Story(), "maestro", "owasp-asi")
    assert not failed
    assert "there are no records" in text
    assert "  no data   " in text


def test_what_is_not_verified_says_so():
    """Rows of a list that was not seen itself say so, each ID once."""
    text, _ = shown(Story(), "soc2")
    assert len({"CC6.1", "CC6.2", "CC6.3", "CC6.4", "CC7.2", "CC7.3", "CC7.4", "CC8.1"}) == text.count("not verified: ")


def test_which_there_are():
    """Without a name all are meant, a name twice is one, and another is refused."""
    assert 6 == len(loaded(None))
    assert ["csf"] == [each.name for each in loaded(["csf", "csf"])]
    with pytest.raises(InvalidInput, match="there are: "):
        loaded(["CSF"])


def test_no_percentages():
    """No line has a percentage."""
    assert "%" not in shown(Story())[0]
