"""How a record of the audit journal is printed."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sojourn.cli.audit import moment_ms, record_line
from sojourn.errors import InvalidInput


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("spiffe://example.org/agent/support", "spiffe://example.org/agent/support"),
        ("called the customer", '"called the customer"'),
        ('say "no"', '"say \\"no\\""'),
        ("", '""'),
        ("{}", '"{}"'),
        ("größer", "größer"),
        (0, "0"),
        (False, "false"),
        (None, "null"),
        (["a", "b"], '["a", "b"]'),
        ({"shop_closed": {"value": True}}, '{"shop_closed": {"value": true}}'),
    ],
)
def test_a_field(value: Any, shown: str) -> None:
    """A field is one plain word as it is, and else JSON, so that where it ends and what it is can be seen."""
    record = {"seq": 7, "at": "2026-05-01T08:00:00Z", "event": "task_begun", "fields": {"uid": 4002, "it": value}}
    assert f"7 2026-05-01T08:00:00Z task_begun uid=4002 it={shown}" == record_line(record)


def test_control_characters() -> None:
    """What a workload wrote into a field cannot reach the terminal as a control character."""
    record = {"seq": 7, "at": "now", "event": "task_begun", "fields": {"it": "\x1b[2J\u202e"}}
    assert record_line(record).isprintable()


class TestSince:
    NOW = datetime(2026, 5, 1, 8, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("2h", 2 * 3600), ("90", 90), ("2026-05-01T07:59:00Z", 60), ("2026-05-01T10:00:00+03:00", 3600)],
    )
    def test_a_time_or_so_long_ago(self, text: str, seconds: int) -> None:
        """`--since` takes a duration, which is so long ago, or a time with its offset from UTC."""
        assert (self.NOW.timestamp() - seconds) * 1000 == moment_ms("--since", text, self.NOW)

    @pytest.mark.parametrize("text", ["yesterday", "2026-05-01T07:59:00", "2h ago", "-1h", "999999999999h", ""])
    def test_what_is_neither(self, text: str) -> None:
        """Whatever else is refused, a time that does not say of which zone it is too."""
        with pytest.raises(InvalidInput, match="--since"):
            moment_ms("--since", text, self.NOW)
