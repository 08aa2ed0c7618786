"""usage_findings.py: what was granted against what was used, as findings that are good by OCSF's own schema."""

import json
from typing import Any

from harness.ocsf import faults
from hypothesis import given
from hypothesis import strategies as st
from sojourn.ocsf.usage_findings import findings

ONE, TWO = "spiffe://example.org/agent/one", "spiffe://example.org/agent/two"
TICKETS, WIKI = "https://tickets.example.org", "https://wiki.example.org"


def action(workload: str, resource: str, name: str, taken: int, last: str | None = None) -> dict[str, Any]:
    counted = {"granted": 30, "taken": taken, "called": 0, "tokens": taken, "calls": 0, "unused_tokens": 0, "denied": 0}
    times = {"first": last, "last": last, "most": None, "limit": None}
    return {"workload": workload, "resource": resource, "action": name, **counted, **times, "blind": "no_reports"}


def report(*actions: dict[str, Any], enough: bool = True, idle: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A type as `sojourn usage --output json` has it."""
    return {
        "type": "triage",
        "digest": "ab" * 32,
        "since": "2030-01-01T00:00:00Z",
        "until": "2030-04-01T00:00:00Z",
        "tasks": 30,
        "enough": enough,
        "lacking": "" if enough else "not enough evidence: 3 of 20 tasks",
        "workloads": [],
        "actions": list(actions),
        "unused": {"workloads": list(idle), "actions": []},
        **more,
    }


def made(*types: dict[str, Any]) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in findings(types)]
    assert [] == [each for each in map(faults, found) if each]
    return found


def test_what_was_not_used() -> None:
    """A finding says how many privileges and resources nobody used, which were granted, and when one was used last."""
    last = "2030-03-01T12:00:00.5Z"
    (found,) = made(
        report(action(ONE, TICKETS, "read", 4, last), action(ONE, TICKETS, "write", 0), action(ONE, WIKI, "read", 0))
    )
    (result,) = found["permission_analysis_results"]
    assert (3, 2, 1) == (
        result["analyzed_privileges_count"],
        result["unused_privileges_count"],
        result["unused_services_count"],
    )
    assert [f"read {TICKETS}", f"write {TICKETS}", f"read {WIKI}"] == result["granted_privileges"]
    tickets, wiki = result["service_privilege_analysis_list"]
    assert (False, 1, 1_898_596_800_500) == (
        tickets["all_privileges_unused"],
        tickets["unused_privileges_count"],
        tickets["last_used_time"],
    )
    assert (True, False) == (wiki["all_privileges_unused"], "last_used_time" in wiki)
    assert (ONE, 2, 3) == (found["user"]["uid"], found["severity_id"], found["confidence_id"])


def test_one_for_each_workload() -> None:
    """Each workload has a finding of its own, with its own actions alone; one that began none has one that says so."""
    use = report(action(ONE, TICKETS, "read", 1), action(TWO, WIKI, "read", 1), idle=("spiffe://example.org/idle",))
    found = made(use)
    assert sorted([ONE, TWO, "spiffe://example.org/idle"]) == [each["user"]["uid"] for each in found]
    for each in found:
        workload = each["user"]["uid"]
        assert {workload} >= {one["workload"] for one in each["unmapped"]["sojourn"]["actions"]}
    (idle,) = [each for each in found if each["user"]["uid"].endswith("/idle")]
    assert (0, 2, True) == (
        idle["permission_analysis_results"][0]["analyzed_privileges_count"],
        idle["severity_id"],
        "none of its tasks" in idle["message"],
    )


def test_without_enough_evidence() -> None:
    """Where there is not enough evidence the finding says so, and alarms nobody."""
    (found,) = made(report(action(ONE, TICKETS, "read", 0), enough=False))
    assert (1, 1, "not enough evidence: 3 of 20 tasks") == (
        found["severity_id"],
        found["confidence_id"],
        found["status_detail"],
    )
    (used,) = made(report(action(ONE, TICKETS, "read", 1)))
    assert (1, 3) == (used["severity_id"], used["confidence_id"])


def test_the_same_finding_again() -> None:
    """A later report of a type as it is is of the same finding, and another event; a type that changed has another one."""
    (one,) = made(report(action(ONE, TICKETS, "read", 1)))
    (later,) = made(report(action(ONE, TICKETS, "read", 2)))
    (changed,) = made(report(action(ONE, TICKETS, "read", 1), digest="cd" * 32))
    assert one["finding_info"]["uid"] == later["finding_info"]["uid"] != changed["finding_info"]["uid"]
    assert one["metadata"]["uid"] != later["metadata"]["uid"]
    assert [*findings([report(action(ONE, TICKETS, "read", 1))])] == [
        *findings([report(action(ONE, TICKETS, "read", 1))])
    ]


@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), taken=st.integers(0, 2**53))
def test_any_names(name: str, taken: int) -> None:
    """Whatever types, workloads, resources and actions are called."""
    made(report(action(name, name, name, taken), idle=(name,), type=name))
