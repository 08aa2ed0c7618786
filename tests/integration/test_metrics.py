"""What Prometheus is told: few series, and each of what it says it is of. By a real agent, read as a scraper would."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.healthy import healthy_load
from harness.looking import until
from harness.ports import free_port
from harness.raw import Admin, Wire
from prometheus_client.parser import text_string_to_metric_families

IDLE_SERIES, LOADED_SERIES = 400, 1_500
NO_NAMES = {"le", "method", "schema"}  # labels of bounds, calls and versions
CONFIG = """
[limits]
connections_per_uid = 20
[metrics]
listen = "127.0.0.1:{port}"
"""


class Scraped:
    """One answer of an agent."""

    def __init__(self, port: int) -> None:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            self.text = answer.read().decode()
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.samples[name, tuple(sorted(labels.items()))]

    def total(self, name: str) -> float:
        return sum(value for (each, _), value in self.samples.items() if each == name)


@pytest.fixture(scope="module")
def metered() -> Iterator[tuple[AgentProcess, int]]:
    port = free_port()
    with AgentProcess(config=CONFIG.format(port=port)) as agent:
        agent.register("/web", f"unix:uid:{os.getuid()}")
        yield agent, port


class TestHowMany:
    def test_of_an_agent_with_nothing_to_do(self) -> None:
        """An agent with nothing to do has less than 400 series, and none that only says when a counter was made."""
        port = free_port()
        with AgentProcess(config=CONFIG.format(port=port)):
            found = Scraped(port)
            assert len(found.samples) <= IDLE_SERIES
            assert [] == [name for name, _ in found.samples if name.endswith("_created")]

    @pytest.mark.full
    def test_of_an_agent_under_load(self, tmp_path: Path) -> None:
        """With every kind of caller at work there are less than 1,500, and no label has an ID, a path or a number of a user."""
        with healthy_load(tmp_path) as (_, port):
            until(lambda: Scraped(port).total("sojourn_tasks_ended_total") > 20, "tasks to end", seconds=60)
            found = Scraped(port)
        assert len(found.samples) <= LOADED_SERIES
        labels = {value for _, labels in found.samples for name, value in labels if name not in NO_NAMES}
        assert [] == [each for each in labels if "/" in each or re.fullmatch(r"\d{4,}|.*[0-9a-f]{16}.*", each)]
        for name in (
            "sojourn_decision_seconds_count",
            "sojourn_end_to_feed_seconds_count",
            "sojourn_store_commit_seconds_count",
        ):
            assert found.total(name) > 0, name
        assert found.value("sojourn_decisions_total", type="support", answer="allow") > 0
        assert found.value("sojourn_tasks_begun_total", type="support") >= found.total("sojourn_task_ends_total") > 20
        assert found.value("sojourn_task_ends_total", reason="success") > 20


class TestDoors:
    def test_connections_by_door(self, metered: tuple[AgentProcess, int]) -> None:
        """Open connections are counted at the socket that they are at."""
        agent, port = metered
        with Wire(agent.socket) as wire, Admin(agent.admin_socket) as admin:
            wire.x509()
            admin.list()
            found = Scraped(port)
            assert found.value("sojourn_connections", door="workload") >= 1
            assert found.value("sojourn_connections", door="admin") >= 1

    def test_connections_that_are_refused(self, metered: tuple[AgentProcess, int]) -> None:
        """A user with too many connections is counted as such, and one who may not use the admin socket as that."""
        agent, port = metered
        before = Scraped(port)
        wires = [Wire(agent.socket) for _ in range(22)]
        try:
            for wire in wires:
                with suppress(grpc.RpcError):
                    wire.x509()
        finally:
            for wire in wires:
                wire.close()
        after = Scraped(port)
        counted = after.value("sojourn_callers_refused_total", door="workload", reason="too_many")
        assert counted > before.value("sojourn_callers_refused_total", door="workload", reason="too_many")
        assert 0 == after.value("sojourn_callers_refused_total", door="admin", reason="not_admitted")

    @pytest.mark.root
    def test_a_process_without_an_identity(self, metered: tuple[AgentProcess, int]) -> None:
        """A process that has no entry is counted as a call without an identity, and as a process that was attested."""
        agent, port = metered
        before = Scraped(port)
        with Caller(agent.socket, 4711) as nobody:
            assert "no_identity" == nobody.ask("jwt", audience=["a"])["code"]
        after = Scraped(port)
        assert before.total("sojourn_no_identity_total") + 1 == after.total("sojourn_no_identity_total")
        proved = [each.value("sojourn_attestations_total", result="proved") for each in (before, after)]
        assert proved[0] < proved[1]


class TestIdentity:
    def test_svids_that_are_issued(self, metered: tuple[AgentProcess, int]) -> None:
        """Each SVID is counted by its kind: a JWT-SVID when a process has it first, an X.509-SVID when it is made."""
        agent, port = metered
        with Wire(agent.socket) as wire:
            wire.x509()
            before = Scraped(port)
            wire.x509()
            for audience in ("a", "b", "a", "c"):
                wire.jwt(audience)
        after = Scraped(port)
        given = [each.value("sojourn_svids_issued_total", kind="jwt") for each in (before, after)]
        assert given[0] + 3 == given[1]
        made = [each.value("sojourn_svids_issued_total", kind="x509") for each in (before, after)]
        assert made[0] == made[1] >= 1

    def test_what_signs(self, metered: tuple[AgentProcess, int]) -> None:
        """The ends of root, intermediate and keys are told with their lives, and how many keys there are in which state."""
        agent, port = metered
        found = Scraped(port)
        for kind in ("x509", "jwt", "intermediate"):
            ends = found.value("sojourn_authority_not_after_seconds", kind=kind)
            assert time.time() < ends <= time.time() + found.value("sojourn_authority_lifetime_seconds", kind=kind)
        assert 86_400 == pytest.approx(found.value("sojourn_authority_lifetime_seconds", kind="intermediate"), abs=60)
        assert 1 == found.value("sojourn_authority_keys", kind="jwt", state="active")
        before = found.value("sojourn_authority_keys", kind="jwt", state="prepared")
        agent.run("authority", "prepare", "jwt")
        assert 1 == Scraped(port).value("sojourn_authority_keys", kind="jwt", state="prepared") >= before

    def test_how_old_the_oldest_is(self, metered: tuple[AgentProcess, int]) -> None:
        """While a stream is open it is told how much of its SVID's life is over, which is little."""
        agent, port = metered
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            next(stream)
            share = until(lambda: Scraped(port).value("sojourn_svid_oldest_share"), "a moment has gone by")
            assert 0 < share < 0.56
            stream.cancel()


class TestStore:
    def test_the_journal(self, metered: tuple[AgentProcess, int]) -> None:
        """The journal's records, its oldest and its size are told, and the room that there is."""
        agent, port = metered
        found = Scraped(port)
        assert 0 == found.value("sojourn_store_failed") == found.value("sojourn_journal_pruned_total")
        assert 0 == found.value("sojourn_journal_lost_total")
        assert 0 < found.value("sojourn_store_bytes") < found.value("sojourn_store_max_bytes")
        room = os.statvfs(agent.data_dir)
        assert room.f_blocks * room.f_frsize == found.value("sojourn_store_disk_bytes")
        assert 0 < found.value("sojourn_store_free_bytes") <= found.value("sojourn_store_disk_bytes")

    def test_of_the_runs_before(self) -> None:
        """After a restart it is told how often the agent was started again, and that its journal goes back to the first run."""
        port = free_port()
        with AgentProcess(config=CONFIG.format(port=port)) as agent:
            began = time.time()
            assert 0 == Scraped(port).total("sojourn_restarts_total")
            agent.stop()
            agent.start()
            agent.stop(signal.SIGKILL)
            agent.start()
            found = Scraped(port)
            assert 1 == found.value("sojourn_restarts_total", reason="stopped")
            assert 1 == found.value("sojourn_restarts_total", reason="killed")
            found = until(lambda: (now := Scraped(port)).value("sojourn_journal_records") >= 3 and now, "it has looked")
            assert began - 60 < found.value("sojourn_journal_oldest_timestamp_seconds") <= time.time()


class TestRun:
    def test_versions_and_readiness(self, metered: tuple[AgentProcess, int]) -> None:
        """An agent that is ready says so, with its version, and that every condition holds."""
        agent, port = metered
        found = Scraped(port)
        [labels] = [dict(labels) for name, labels in found.samples if name == "sojourn_build_info"]
        assert agent.json("status")["version"] == labels["version"]
        assert 1 == found.value("sojourn_ready")
        assert 0 == found.total("sojourn_condition_failed")

    def test_the_loop(self, metered: tuple[AgentProcess, int]) -> None:
        """The loop's lag is measured all the time."""
        _, port = metered
        before = Scraped(port).value("sojourn_loop_lag_seconds_count")
        until(lambda: Scraped(port).value("sojourn_loop_lag_seconds_count") > before + 10, "the loop beats")
