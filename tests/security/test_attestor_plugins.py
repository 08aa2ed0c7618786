"""Attack 110: an attestor of somebody's own that does its worst, beside a real agent."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness.agent import ROOT, AgentProcess
from harness.looking import gone, until
from harness.plugins import host_of, hosts, install
from harness.raw import Admin, Wire
from sojourn.limits import ATTESTOR_DEADLINE_SECONDS
from sojourn.testing.processes import child

pytestmark = pytest.mark.full

# What it does, and how that is told of the process that it does it on.
DEEDS = {
    "raises": "failed: RuntimeError",
    "huge": "failed: ValueError",
    "numbers": "gave what is no answer",
    "million": "failed: ValueError|stood still",
    "segfault": "killed by SIGSEGV",
    "babble": "a message of",
    "hog": "bytes of memory|MemoryError|stood still",
    "stand": "stood still",
    "flood": "stood still",
    "swallow": "did not answer within",
}
ENDING = {"segfault", "babble", "stand", "flood"}


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    agent = AgentProcess()
    deeds = agent.folder / "deeds"
    deeds.mkdir()
    agent.config = agent.folder / "agent.toml"
    agent.config.write_text(f'[attestors.unix]\n[attestors.hostile]\ndeeds = "{deeds}"\n')
    install(agent, "hostile", ROOT / "tests" / "fakes" / "hostile_attestor.py", "HostileAttestor")
    with agent:
        agent.register("/me", f"unix:uid:{os.getuid()}")
        yield agent


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(agent: AgentProcess) -> Iterator[None]:
    """After all of it the agent has as many files open as before, and one process of the attestor's."""
    before = agent.open_files()
    pid = agent.pid
    yield
    assert pid == agent.pid
    assert 1 == len(hosts(agent))
    until(lambda: len(before.opened_since()) <= 4)  # those of its process
    assert [] == [each["event"] for each in agent.log_lines() if each["event"] in {"call_failed", "http_failed"}]


@pytest.mark.parametrize("deed", DEEDS)
def test_what_one_does(agent: AgentProcess, admin: Admin, deed: str) -> None:
    """Whoever does not need it is served, and what it did is told of the process that it did it on; who was attested
    beside that one has all its selectors as soon as the attestor is there again.
    """
    until(lambda: len(hosts(agent)) == 1, "its process is there")
    with child() as guilty, child() as other, ThreadPoolExecutor(3) as pool, Wire(agent.socket) as wire:
        Path(agent.folder, "deeds", str(guilty.pid)).write_text(deed)
        before = host_of(agent)
        asked = [pool.submit(admin.explain, each.pid) for each in (guilty, other)]
        assert ["spiffe://example.org/me"] == wire.x509_ids()
        broken, well = (each.result(4 * ATTESTOR_DEADLINE_SECONDS) for each in asked)
        until(lambda: f"hostile:pid:{other.pid}" in admin.explain(other.pid).selectors, "the other has its selectors")
        for found in (broken, well):
            assert f"unix:uid:{os.getuid()}" in found.selectors
        assert not [each for each in broken.selectors if each.startswith("hostile:")]
        told = {each.what: each.reason for each in broken.failed_attestors}["hostile"]
        assert any(part in told for part in DEEDS[deed].split("|")), told
        if deed in ENDING:
            until(lambda: gone(before), "the process that stood still is gone")
    with child() as later:
        until(lambda: f"hostile:pid:{later.pid}" in admin.explain(later.pid).selectors, "it answers again")
