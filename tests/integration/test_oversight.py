"""docs/oversight.md: each of its commands works as it stands, for the operator and for the auditor."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import pagelines
from harness.agent import ROOT, SAMPLES, AgentProcess
from sojourn.audit.log_state import REASONS
from sojourn.evidence.faults import FAULTS

PAGE = "oversight.md"
STEPS = (
    "What the operator does",
    "What the auditor does",
    "Who looks for something",
    "A change of policy, tried on what was decided",
    "A type that is narrowed by its own use",
    "Granted against used",
    "Standing privilege",
    "Recertification",
    "In a spreadsheet",
    "What was approved",
    "Sinks",
    "Witnesses",
    "Control map",
    "When the key changes",
)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What all of the page prints, typed in an empty folder."""
    folder = tmp_path_factory.mktemp("auditor")
    shutil.copytree(SAMPLES / "task-types", folder / "types-to-come")
    with AgentProcess() as agent:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        typed = "".join(pagelines.sections(PAGE)[each] for each in STEPS)
        yield pagelines.run(typed, folder, {**agent.environment, "PATH": path})


def test_each_check_is_good_but_one(printed: str) -> None:
    """Each check of the page ends well, but that of the folder with the planted change, which is found."""
    lines = printed.splitlines()
    assert (6, 2) == (lines.count("good"), lines.count("NOT good"))
    assert "the first bad record: 2" in lines
    assert "found: status 1" in lines


def test_a_witness_is_made(printed: str) -> None:
    """The witness of the page says its key, and a log that it has not cosigned does not pass for one that it has."""
    lines = printed.splitlines()
    assert [each for each in lines if each.startswith("witness.example.org/w1+")]
    assert [
        each for each in lines if each.startswith("sojourn witness ready: 127.0.0.1:7380, key witness.example.org/w1+")
    ]
    assert "nobody vouches: status 1" in lines
    assert any("[witness_missing]" in each for each in lines)


@pytest.mark.forked
@pytest.mark.forked
def test_a_change_of_policy_is_tried(printed: str) -> None:
    """Where nothing was decided yet, a change of policy is not said to break nothing: nothing was asked."""
    assert 2 == printed.splitlines().count("there is NO decision to ask again")
    assert "look at it: status 1" in printed


def test_a_search_finds(printed: str) -> None:
    """The searches of the page find what there is: who has looked, last of all."""
    assert " journal_read by_pid=" in printed
    assert '"next_page": null' in printed


def test_what_was_used_is_reported(printed: str) -> None:
    """The reports of what was used, and of what stands unused, are printed."""
    assert "not enough evidence: 0 of 30 days, 0 of 20 tasks" in printed
    assert "by the journal's records" in printed
    assert 2 == printed.count("standing privilege = ")


@pytest.mark.forked
def test_a_type_is_reviewed(printed: str) -> None:
    """The review of the page is decided by the digest that it shows, in a spreadsheet nothing is, and nobody was asked."""
    assert "type:triage-ticket: keep is recorded, by the evidence " in printed
    assert "begun at the end of each month" in printed
    assert "NOT USED in this time: to keep it needs a reason" in printed
    assert "0 would be made; " in printed
    assert "nothing was asked for" in printed


def test_what_the_map_says(printed: str) -> None:
    """The map is printed of the agent and of its export, with rows of each verdict; types without owners have failed."""
    assert 2 == printed.count("OWASP Top 10 for Agentic Applications, 2026")
    assert 2 == printed.count("rows that failed: status 1")
    for verdict in ("shown  ", "FAILED  ", "no data  ", "not ours  "):
        assert f"  {verdict}" in printed


def test_every_section_is_followed() -> None:
    """No section of the page has a command that is not typed here."""
    assert set(STEPS) == set(pagelines.sections(PAGE))


def test_its_tables() -> None:
    """The page has every code of a fault, and every reason of a new log, with what it means."""
    page = (ROOT / "docs" / PAGE).read_text()
    for code, said in FAULTS.items():
        assert f"| `{code}` | {said} |" in page
    for reason, said in REASONS.items():
        assert f"| `{reason}` | {said[0].upper()}{said[1:]}. |" in page
