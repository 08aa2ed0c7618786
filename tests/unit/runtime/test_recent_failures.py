"""recent_failures.py: what the log says of failures is counted and kept, within limits."""

import threading

import pytest
from sojourn.errors import StoreFull
from sojourn.limits import FAILURE_TEXT_MAX, FAILURES_KEPT
from sojourn.runtime.recent_failures import Failures


@pytest.fixture
def failures(clock):
    return Failures(clock)


def told(failures):
    return [(each.what, each.subject, each.reason, each.count) for each in failures.recent()]


@pytest.mark.parametrize(
    ("method", "event", "expected"),
    [
        (
            "warning",
            {"event": "attestor_failed", "attestor": "docker", "pid": 7, "reason": "is down"},
            ("attestor_failed", "attestor docker", "is down, last for pid 7", 1),
        ),
        (
            "error",
            {"event": "audit_not_written", "reason": "no room", "detail": "disk", "waiting": 3},
            ("audit_not_written", "", "no room (disk)", 1),
        ),
        (
            "info",
            {"event": "call_refused", "code": "no_identity", "method": "X/Y", "reason": "none", "uid": 5, "pid": 6},
            ("refused_no_identity", "uid 5", "none, last for pid 6", 1),
        ),
        (
            "info",
            {"event": "caller_refused", "reason": "too many", "uid": 5},
            ("refused_not_admitted", "uid 5", "too many", 1),
        ),
        (
            "info",
            {"event": "http_refused", "code": "store_full", "path": "/token", "reason": "no room"},
            ("refused_store_full", "path /token", "no room", 1),
        ),
        (
            "error",
            {"event": "svid_not_rotated", "spiffe_id": "spiffe://a/b", "exc_info": StoreFull("no room", detail="x")},
            ("svid_not_rotated", "spiffe_id spiffe://a/b", "no room", 1),
        ),
        ("error", {"event": "call_failed", "exc_info": KeyError("secret")}, ("call_failed", "", "KeyError", 1)),
    ],
)
def test_heard(failures, method, event, expected):
    """A warning, an error or a refusal that matters is a failure, with what it was about and why."""
    failures.hear(method, event)
    assert [expected] == told(failures)


def test_standstills_by_their_causes(failures):
    """Standstills of the loop in different places are a line each, with the count of its own."""
    for place, pid in (("sojourn.a", 6), ("sojourn.b", 7), ("sojourn.a", 8)):
        failures.hear("warning", {"event": "loop_stood_still", "reason": place, "uid": 5, "pid": pid, "seconds": 0.2})
    assert [
        ("loop_stood_still", "uid 5", "sojourn.a, last for pid 8", 2),
        ("loop_stood_still", "uid 5", "sojourn.b, last for pid 7", 1),
    ] == told(failures)


def test_the_error_that_is_handled(failures):
    """A line that is logged where an error is handled has that error's name, and not a text that may hold anything."""
    try:
        raise ValueError("secret")
    except ValueError:
        failures.hear("error", {"event": "alarm_failed", "exc_info": True})
    assert [("alarm_failed", "", "ValueError", 1)] == told(failures)


@pytest.mark.parametrize(
    ("method", "event"),
    [
        ("info", {"event": "agent_draining"}),
        ("debug", {"event": "x"}),
        ("info", {"event": "call_refused", "code": "invalid_input", "reason": "r", "uid": 1}),
        ("info", {"event": "call_refused", "code": "not_found", "reason": "r", "uid": 1}),
    ],
)
def test_not_a_failure(failures, method, event):
    """What went well, and what a caller did wrong, is no failure of ours."""
    failures.hear(method, event)
    assert [] == told(failures)


def test_counted(failures, clock):
    """The same failure of the same subject is one, with a count, the first and the last time, and the last reason."""
    begin = clock.now()
    failures.note("a", "x", "first")
    failures.note("a", "y", "other")
    clock.advance(5)
    failures.note("a", "x", "last")
    assert [("a", "x", "last", 2), ("a", "y", "other", 1)] == told(failures)
    newest = failures.recent()[0]
    assert (begin, clock.now()) == (newest.first_at, newest.last_at)


def test_bounded(failures):
    """The newest are kept, and texts are cut."""
    for number in range(FAILURES_KEPT + 5):
        failures.note("a", str(number), "x" * 10_000)
    found = failures.recent()
    assert (FAILURES_KEPT, str(FAILURES_KEPT + 4), FAILURE_TEXT_MAX) == (
        len(found),
        found[0].subject,
        len(found[0].reason),
    )


def test_one_user_cannot_push_the_others_out(failures):
    """However many refusals one user causes, they are one line."""
    failures.note("journal", "", "full")
    for pid in range(FAILURES_KEPT * 3):
        failures.hear("info", {"event": "call_refused", "code": "no_identity", "uid": 7, "pid": pid, "reason": "r"})
    assert ["refused_no_identity", "journal"] == [each.what for each in failures.recent()]


def test_threads(failures):
    """Nothing is lost when several threads tell at once."""

    def tell():
        for _ in range(500):
            failures.note("a", "x", "r")

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [("a", "x", "r", 2000)] == told(failures)
