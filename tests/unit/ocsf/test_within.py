"""within.py: the record is found within an event, however a receiver has written it, and not where there is none."""

import json

import pytest
from fakes.recorded_events import records
from sojourn.audit.leaves import line_of
from sojourn.errors import InvalidInput
from sojourn.ocsf.translation import OcsfLines
from sojourn.ocsf.within import line_within
from sojourn.spiffe.ids import SpiffeId

LINES = OcsfLines(SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/here"))


def test_however_it_was_written() -> None:
    """A receiver may write the JSON anew, in another order, with spaces, in UTF-8, with attributes of its own."""
    for each in records():
        value = json.loads(LINES.record(each))
        turned = dict(reversed(value.items())) | {"observables": [], "unmapped": {"other": 1, **value["unmapped"]}}
        anew = json.dumps(turned, indent=1, ensure_ascii=False).encode()
        assert line_of(each) == line_within(anew)


@pytest.mark.parametrize(
    "line", [b"", b"{", b"{}", b"[]", b'{"unmapped":1}', b'{"unmapped":{}}', b"\xff", b"[" * 100_000, b'"x"']
)
def test_there_is_none(line: bytes) -> None:
    """A line without a record within is said to be one."""
    with pytest.raises(InvalidInput):
        line_within(line)
