"""docs/operate/logs.md: every event that the agent logs stands there with its sentence, as the code has it now."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest
from sojourn.runtime.log_events import ALERTS, LOG_EVENTS, LOG_FIELDS

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("log_page", ROOT / ".ci" / "log_page.py")
assert _spec is not None
assert _spec.loader is not None
log_page = importlib.util.module_from_spec(_spec)
sys.modules["log_page"] = log_page
_spec.loader.exec_module(log_page)


@pytest.mark.full
def test_the_page_is_what_the_code_says() -> None:
    """The page is what `make codes` makes of the code, and the code logs what the table has and nothing else."""
    assert [] == log_page.faults()
    assert log_page.page() == (ROOT / "docs" / "operate" / "logs.md").read_text()


@pytest.mark.full
def test_an_event_without_a_sentence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that the table lacks, one that nothing logs, and an alert that is none, keep the page from being written."""
    monkeypatch.setattr(log_page, "LOG_EVENTS", {"agent_draining": "It ends.", "never_ever": "Not."})
    found = log_page.faults()
    assert "never_ever: nothing logs it" in found
    assert "call_refused: give it a sentence in runtime/log_events.py" in found
    assert "break_glass: an alert that is no event" in found


@pytest.mark.parametrize("name", LOG_EVENTS)
def test_each_is_a_name_and_a_sentence(name: str) -> None:
    """An event is a name in small letters, and its sentence ends with a full stop and is short enough for a table."""
    assert name.isidentifier()
    assert name == name.lower()
    assert LOG_EVENTS[name].endswith(".")
    assert len(LOG_EVENTS[name]) < 120


def test_fields_of_the_log_have_their_stable_names() -> None:
    """No line calls a task, its type or an entry by another name than the table has."""
    others = {"task", "task_type", "entry", "spiffe", "user", "trace"}
    used = {keyword.arg for _, call in log_page._calls() for keyword in call.keywords}
    assert set() == used & others
    assert {"task_id", "code", "door", "duration_ms"} <= used & LOG_FIELDS.keys()


def test_alerts_are_loud() -> None:
    """What calls for somebody is logged as a warning or an error, so that no level but error hides it."""
    quiet = {name for name, how in log_page.logged().items() if name in ALERTS and how.levels & {"debug", "info"}}
    assert set() == quiet


def test_calls_are_found() -> None:
    """Calls that log are found by their place, and what is no event is none."""
    assert all(isinstance(call, ast.Call) for _, call in log_page._calls())
    assert {"agent_starting", "library_message", "attestor_says_too_much"} <= log_page.logged().keys()
