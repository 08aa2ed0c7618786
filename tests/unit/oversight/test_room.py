"""oversight/room.py: a day has sums of so many names, and of the others together."""

import json

from fakes.usage_records import DAY, START_MS, ended, use
from sojourn.oversight.counting import count
from sojourn.oversight.room import DayRoom
from sojourn.oversight.sums import DAY_MS, Sums


def sums_of(events, room):
    found = Sums(room=room)
    for each in events:
        count(found, each.at_ms, each.event, json.loads(each.fields))
    return found


def test_what_comes_first_has_its_own():
    """Names that come first keep their sums; what others did is added up, and none of it is lost."""
    found = sums_of([ended(use(f"a:{number % 5}")) for number in range(50)], DayRoom(3))
    assert {"a:0": 10, "a:1": 10, "": 30} == {key.action: each.granted for key, each in found.actions.items()}


def test_each_day_has_room():
    """What one day has no room for has its own sums on the next."""
    days = [ended(use(f"a:{number}"), at_ms=START_MS + day * DAY_MS) for day in range(6) for number in (day, 9)]
    found = sums_of(days, DayRoom(2))
    assert {f"a:{each}" for each in range(6)} == {key.action for key in found.actions if key.type}
    assert 6 == sum(each.granted for key, each in found.actions.items() if not key.type)


def test_what_is_there_already():
    """Names that a day has from before keep their sums, and take their room."""
    asked = []

    def known(day):
        asked.append(day)
        return [("triage", "0123456789abcdef", "spiffe://example.org/agent/triage", "", "")]

    room = DayRoom(1, known)
    found = sums_of([ended(use()), ended(use())], room)
    assert ({""}, {"triage"}, [DAY]) == ({key.type for key in found.actions}, {key.type for key in found.types}, asked)
    room.forget()
    sums_of([ended(use())], room)
    assert [DAY, DAY] == asked
