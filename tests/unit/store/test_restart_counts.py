"""store/restart_counts.py: how often the agent was started again, and how the run before had ended."""

import pytest
from fakes.databases import opened
from sojourn.audit.journal import Event
from sojourn.store.audit import AuditTable
from sojourn.store.restart_counts import KILLED, STOPPED, count_restart

STARTED, ENDED = Event(1, "agent_started", "{}"), Event(2, "agent_stopped", "{}")


@pytest.mark.parametrize(
    ("runs", "counted"),
    [
        ([], {STOPPED: 0, KILLED: 0}),
        ([[STARTED, ENDED]], {STOPPED: 1, KILLED: 0}),
        ([[STARTED]], {STOPPED: 0, KILLED: 1}),
        ([[STARTED, ENDED], [STARTED], [STARTED, ENDED]], {STOPPED: 2, KILLED: 1}),
        ([[]], {STOPPED: 0, KILLED: 1}),
        ([[STARTED, ENDED], []], {STOPPED: 1, KILLED: 1}),
    ],
    ids=["the first start", "stopped", "killed", "several", "killed at once", "killed at once after one that stopped"],
)
async def test_each_start_after_the_first(tmp_path, runs, counted):
    """Each start after the first is counted for ever, by whether the last word of the run before was that it stopped."""
    for events in runs:
        with opened(tmp_path / "sojourn.db") as database:
            await count_restart(database)
            await AuditTable(database).append(events)
    with opened(tmp_path / "sojourn.db") as database:
        assert counted == await count_restart(database)
