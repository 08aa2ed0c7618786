"""How a record of the audit journal is printed."""

from typing import Any

import pytest
from sojourn.cli.audit import record_line


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
