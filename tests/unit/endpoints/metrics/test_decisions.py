"""endpoints/metrics/decisions.py: decisions are counted by type and answer, and by how long they took."""

from types import SimpleNamespace

from prometheus_client import CollectorRegistry
from sojourn.endpoints.metrics import decisions as module
from sojourn.endpoints.metrics.decisions import DecisionMetrics


def registered():
    """The metrics, and a registry that they are in."""
    made, registry = DecisionMetrics(), CollectorRegistry()
    registry.register(made)
    return made, registry


def of(kind):
    """As much of a task as is looked at."""
    return SimpleNamespace(type=SimpleNamespace(name=kind))


def test_by_type_and_answer():
    """Each decision is counted by its task's type and its answer."""
    made, registry = registered()
    for kind, allowed in (("a", True), ("a", True), ("a", False), ("b", False)):
        made.decided(of(kind), allowed, 0.001)
    found = {
        (kind, answer): registry.get_sample_value("sojourn_decisions_total", {"type": kind, "answer": answer})
        for kind in "ab"
        for answer in ("allow", "deny")
    }
    assert {("a", "allow"): 2, ("a", "deny"): 1, ("b", "allow"): None, ("b", "deny"): 1} == found


def test_by_how_long_they_took():
    """A decision is in each bucket whose bound it does not exceed, and the sum is of all."""
    made, registry = registered()
    for seconds in (0.00001, 0.00002, 0.2):
        made.decided(of("a"), True, seconds)
    name = "sojourn_decision_seconds"
    counts = [
        registry.get_sample_value(f"{name}_bucket", {"le": bound}) for bound in ("1e-05", "2.5e-05", "0.1", "+Inf")
    ]
    assert [1, 2, 2, 3] == counts
    assert 3 == registry.get_sample_value(f"{name}_count")
    assert 0.20003 == registry.get_sample_value(f"{name}_sum")


def test_no_more_types_than_there_may_be(monkeypatch):
    """However many types there have been, the series are few: those beyond are `other`."""
    monkeypatch.setattr(module, "METRIC_TYPES", 2)
    made, registry = registered()
    for number in range(10):
        made.decided(of(f"type-{number}"), True, 0.001)
    assert 6 == registry.get_sample_value("sojourn_decisions_total", {"type": "other", "answer": "allow"})
