"""docs/operate: each command of the pages for the first days and for trouble works as it stands."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import pagelines
from harness.agent import ROOT, AgentProcess

pytestmark = [pytest.mark.forked, pytest.mark.timeout(500)]


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        yield running


def typed(agent: AgentProcess, page: str, heading: str) -> str:
    environment = {
        **agent.environment,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    return pagelines.run(pagelines.sections(page)[heading], ROOT, environment)


@pytest.mark.forked
def test_day_0(agent: AgentProcess) -> None:
    """What an operator types on the first day tells of the configuration and of the agent that runs."""
    printed = typed(agent, "operate/README.md", "Day 0: install it")
    assert "trust_domain" in printed
    assert "must be given" not in printed
    assert "node id" in printed


@pytest.mark.forked
def test_day_1(agent: AgentProcess) -> None:
    """What an operator types on the second day gives this user an identity, and the sample's task types are in order."""
    printed = typed(agent, "operate/README.md", "Day 1: give out identities")
    assert printed.count("spiffe://example.org/first") >= 4
    assert "spiffe://corp.example" not in printed  # the changed copy has no fault and nothing to warn of
    assert "- selectors:" in printed or "spiffe_id: spiffe://example.org/first" in printed


@pytest.mark.forked
def test_day_2(agent: AgentProcess) -> None:
    """What an operator looks at once a day is there, and the journal is whole."""
    printed = typed(agent, "operate/README.md", "Day 2: keep it running")
    assert "intact" in printed
    assert "active" in printed


def test_trouble(agent: AgentProcess) -> None:
    """The three commands that know most work, and tell of the shell that typed them which selectors it has."""
    printed = typed(agent, "operate/troubleshooting.md", "Troubleshooting")
    assert f"unix:uid:{os.getuid()}" in printed


def test_every_section_is_followed() -> None:
    """No section of these pages has a command that is not typed here."""
    assert {"Day 0: install it", "Day 1: give out identities", "Day 2: keep it running"} == set(
        pagelines.sections("operate/README.md")
    )
    assert {"Troubleshooting"} == set(pagelines.sections("operate/troubleshooting.md"))
