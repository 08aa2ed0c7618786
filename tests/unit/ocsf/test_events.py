"""events.py: the table has a row for every event of the journal, and a row fits its class."""

from fakes.recorded_events import recorded
from harness.ocsf import schema
from sojourn.audit.events import DENIALS, EVENTS
from sojourn.ocsf.events import NOTICES, ROWS
from sojourn.ocsf.schema import ALLOWED, CLASSES, DENIED, DETECTION, FAILURE, OTHER, VERSION


def test_every_event_has_a_row() -> None:
    """No event of the journal is without a class, and none is in the table that the journal does not have."""
    assert sorted(EVENTS) == sorted(ROWS)
    assert {"checkpoint", "gap"} == set(NOTICES)


def test_every_event_has_a_record_to_try() -> None:
    """Each event is tried with fields as the agent records them."""
    assert sorted(EVENTS) == sorted(recorded())


def test_classes_are_the_schema_s() -> None:
    """Each class has the name and number that the pinned version of the schema has, and is not on its way out."""
    known = {each["uid"]: each for each in schema()["classes"].values()}
    assert VERSION == schema()["version"]
    for each in CLASSES:
        found = known[each.uid]
        assert (each.name, each.category) == (found["caption"], found.get("category_uid"))
        assert "@deprecated" not in found
        assert 3005 != each.uid, "deprecated since 1.9.0"
        activities = found["attributes"]["activity_id"]["enum"]
        assert all(activities[str(number)]["caption"] == name for number, name in each.activities)


def test_nothing_that_the_schema_has_a_word_for() -> None:
    """This version has no record_integrity and no ai_agent: with one that has them, records are to make use of it."""
    assert {"record_integrity", "ai_agent"} & (
        set(schema()["objects"]) | set(schema()["dictionary"]["attributes"])
    ) == (set())


def test_a_refusal_is_one() -> None:
    """Whoever looks for what was denied finds each refusal; nothing else is told as denied."""
    told = {event for event, row in ROWS.items() if row.action == DENIED}
    assert told == DENIALS - {"denials_suppressed"}  # their number is a finding
    assert all(ROWS[event].status == FAILURE for event in told)
    assert all(row.status != FAILURE for row in ROWS.values() if row.action == ALLOWED)


def test_rows_are_whole() -> None:
    """What is managed has a name, an activity of our own is not one of the schema's, and findings have their own status."""
    for event, row in ROWS.items():
        assert bool(row.entity) == bool(row.of) == (row.kind.uid == 3004), event
        assert row.activity_name, event
        if row.activity_id == OTHER:
            captions = {name for _, name in row.kind.activities}
            assert row.activity_name not in captions, event
        if row.kind is DETECTION:
            assert row.status in {1, 2, 4}, event
