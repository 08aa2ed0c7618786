"""audit/searchable.py: a record is found by its event, and by each task, type, workload and person that it names."""

import json
from typing import Any

import pytest
from fakes.searched_records import faults_of
from sojourn.audit.events import EVENTS
from sojourn.audit.searchable import BY, EVENT, PERSON, SVID, SVIDS, TASK, TYPE, WORKLOAD, keys_of

TASK_ID, OTHER, PSEUDONYM = "tsk_" + "a-_9" * 5 + "Zz", "tsk_" + "b" * 22, "psn_" + "c" * 22
WEB, SHOP = "spiffe://example.org/web", "spiffe://example.org/shop"


def found(event: str, **fields: Any) -> set[tuple[int, str]]:
    """All but the event."""
    return keys_of(event, json.dumps(fields)) - {(EVENT, event)}


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"type": "mail"}, {(TYPE, "mail")}),
        ({"task_type": "mail"}, {(TYPE, "mail")}),
        ({"task": TASK_ID, "parent": OTHER}, {(TASK, TASK_ID), (TASK, OTHER)}),
        ({"reason": f"not {TASK_ID}, but {OTHER}."}, {(TASK, TASK_ID), (TASK, OTHER)}),
        ({"use": [{"by": [{"of": TASK_ID}]}]}, {(TASK, TASK_ID)}),
        ({"task": TASK_ID[:-1]}, set()),
        ({"spiffe_id": WEB}, {(WORKLOAD, WEB), (BY, WEB)}),
        ({"spiffe_id": WEB, "uid": 7}, {(WORKLOAD, WEB), (BY, WEB), (BY, "7")}),
        ({"to": SHOP, "actors": [WEB, SHOP], "uid": 7}, {(WORKLOAD, SHOP), (WORKLOAD, WEB), (BY, "7")}),
        ({"by": SHOP, "uid": 7}, {(WORKLOAD, SHOP), (BY, SHOP)}),
        ({"by": "envoy"}, {(BY, "envoy")}),
        ({"by_uid": 0, "by_login_uid": 501, "by_pid": 9, "uid": 7}, {(BY, "0"), (BY, "501")}),
        ({"address": "192.0.2.1"}, {(BY, "192.0.2.1")}),
        ({"person": PSEUDONYM}, {(PERSON, PSEUDONYM)}),
        ({"person": "corp/alice"}, {(PERSON, "corp/alice")}),
        ({"subject": WEB, "source": "operator"}, {(WORKLOAD, WEB), (BY, "operator")}),
        ({"subject": PSEUDONYM, "source": WEB}, {(PERSON, PSEUDONYM), (BY, WEB)}),
        ({"subject": "", "source": "operator"}, {(BY, "operator")}),
        ({"subjects": [WEB, PSEUDONYM]}, {(WORKLOAD, WEB), (PERSON, PSEUDONYM)}),
        ({"type": ["a", 1, None], "uid": True}, {(TYPE, "a")}),
        ({"type": {"a": "b"}}, set()),
        ({"type": 'a"\\\u00e9'}, {(TYPE, 'a"\\\u00e9')}),
        ({"resource": WEB, "serial": "ff"}, set()),
    ],
)
def test_fields(fields: dict[str, Any], keys: set[tuple[int, str]]) -> None:
    """Each field is searched as what it is, and a task is found wherever its ID stands."""
    assert keys == found("task_begun", **fields)


@pytest.mark.parametrize("event", SVIDS)
def test_svids(event: str) -> None:
    """What was issued is found by its number, and by its entry if it has one."""
    named = {name: f"a{name}" for name in SVIDS[event]}
    assert {(SVID, text) for text in named.values()} == found(event, **named)


def test_a_read_is_not_found_by_what_it_was_for() -> None:
    """Whoever asks for a task does not find that they asked; who it was that read is found."""
    assert {(BY, "0")} == found("journal_read", by_uid=0, wanted={"task": TASK_ID, "type": "mail"})


@pytest.mark.parametrize("damaged", ["", "{", "[]", "7", "null", '{"a":' * 100_000])
def test_a_damaged_record(damaged: str) -> None:
    """Of a record whose fields are none any more the event alone is known."""
    assert {(EVENT, "task_begun")} == keys_of("task_begun", damaged)


def test_what_is_not_searched_is_noticed() -> None:
    """A new field that names somebody is told by the first test that makes such a record."""
    assert ["helper of task_begun is not searched: 'spiffe://example.org/web'"] == [
        *faults_of("task_begun", {"helper": WEB, "spiffe_id": WEB, "actors": [WEB], "by_pid": 7})
    ]
    assert 2 == len([*faults_of("task_begun", {"whom": [PSEUDONYM], "by_door": "x"})])
    assert set(SVIDS) <= set(EVENTS)
