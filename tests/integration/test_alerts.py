"""deploy/prometheus/alerts.yaml: each alert fires in a real Prometheus that scrapes a real agent with the fault it is about.

Windows and waits are divided as docs/operate/alerts.md says; conditions are the very ones that operators have.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from fakes.databases import opened
from harness import nodewire
from harness.agent import AgentProcess
from harness.approvals import ask, decide, make_approval_agent, register, review_all
from harness.backups import back_up
from harness.bundleserver import BundleServer, Partner
from harness.callers import Caller
from harness.cgroups import CgroupAgent
from harness.clocks import SteppedAgent
from harness.companyca import CompanyFiles, company
from harness.disks import full, small_disk
from harness.federating import fetched, follow
from harness.healthy import healthy_load
from harness.looking import until
from harness.ports import free_port
from harness.prometheus import FOLDER, Prometheus, rules, watched
from harness.raw import Admin, Wire
from harness.servers import ServerProcess
from harness.taskagent import OTHER_UID, TYPES, make_agent, write_type
from harness.tlsplace import TlsPlace
from harness.witnessprocess import WitnessProcess
from sojourn.audit.journal import Event
from sojourn.store.audit import AuditTable

pytestmark = [pytest.mark.full, pytest.mark.forked, pytest.mark.timeout(300)]

FIRES_SECONDS = 90.0
HEALTHY_SECONDS, HEALTHY_FACTOR = 60, 20
RECORDS = [Event(1, "filler", '{"text":"' + "x" * 500 + '"}')] * 500


def metered(more: str = "") -> tuple[AgentProcess, int]:
    """An agent that serves metrics at a port; it is not started."""
    port = free_port()
    return AgentProcess(config=f'{more}\n[metrics]\nlisten = "127.0.0.1:{port}"\n'), port


@contextmanager
def running(more: str = "") -> Iterator[tuple[AgentProcess, int]]:
    agent, port = metered(more)
    with agent:
        yield agent, port


@contextmanager
def again_and_again(do: object, pause: float) -> Iterator[None]:
    """Within it something is done over and over, in a thread."""
    assert callable(do)
    going = True

    def work() -> None:
        while going:
            do()
            time.sleep(pause)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        try:
            yield
        finally:
            going = False
            done.result(timeout=30)


class TestRuns:
    def test_agent_down(self, tmp_path: Path) -> None:
        """An agent that is killed is told as one that does not answer, until it runs again."""
        with running() as (agent, port), watched(tmp_path, port, {"AgentDown": 60, "NotReady": 60}) as prometheus:
            agent.kill()
            prometheus.fires("AgentDown", seconds=FIRES_SECONDS)
            agent.start()
            prometheus.ends("AgentDown")
            assert "NotReady" not in prometheus.ever("5m")

    def test_restarts_often(self, tmp_path: Path) -> None:
        """An agent that is killed and stopped again and again is told, over all of its starts."""
        with running() as (agent, port), watched(tmp_path, port, {"RestartsOften": 60}) as prometheus:
            for number in range(5):
                agent.stop(signal.SIGKILL if number % 2 else signal.SIGTERM)
                agent.start()
                prometheus.is_so(f"sum(sojourn_restarts_total) == {number + 1}")
            prometheus.fires("RestartsOften", seconds=FIRES_SECONDS)
            prometheus.is_so('sojourn_restarts_total{reason="stopped"} == 3')
            prometheus.is_so('sojourn_restarts_total{reason="killed"} == 2')

    def test_loop_lag(self, tmp_path: Path) -> None:
        """An agent that is stopped for a moment, over and over, is told as one that answers nobody."""
        with running() as (agent, port), watched(tmp_path, port, {"LoopLag": 30}) as prometheus:

            def freeze() -> None:
                os.kill(agent.pid, signal.SIGSTOP)
                time.sleep(0.3)
                os.kill(agent.pid, signal.SIGCONT)

            with again_and_again(freeze, 0.7):
                prometheus.fires("LoopLag", seconds=FIRES_SECONDS)


@pytest.mark.root
class TestStore:
    def test_a_full_disk(self, tmp_path: Path) -> None:
        """On a full disk the store is told to fail and the agent not to be ready, until there is room again."""
        agent, port = metered()
        factors = {"StoreFails": 60, "NotReady": 60}
        with small_disk(agent, "4m"), agent, watched(tmp_path, port, factors) as prometheus:
            with full(agent.data_dir):
                prometheus.fires("StoreFails", "NotReady", seconds=FIRES_SECONDS)
                assert 1 == prometheus.value('sojourn_condition_failed{condition="store"}')
            prometheus.ends("StoreFails", "NotReady")

    def test_a_disk_that_fills(self, tmp_path: Path) -> None:
        """A disk that something fills is told before it is full."""
        agent, port = metered()
        with small_disk(agent, "24m"), agent, watched(tmp_path, port, {"DiskFills": 240}) as prometheus:
            filler = agent.data_dir / "filler"
            filler.write_bytes(b"x" * 14 * 2**20)

            def write() -> None:
                with filler.open("ab") as file:
                    file.write(b"x" * 2048)

            with again_and_again(write, 0.1):
                prometheus.fires("DiskFills", seconds=FIRES_SECONDS)
            assert prometheus.value("sojourn_store_free_bytes") > 0

    def test_a_journal_that_comes_to_its_size(self, tmp_path: Path) -> None:
        """A journal that is about to lose its first records is told, and no more once it has."""
        agent, port = metered("[audit]\nmax_bytes = 16777216")
        with agent:
            agent.stop()
            _fill(agent, 15 * 2**20)
            agent.start()
            with watched(tmp_path, port, {"JournalPrunesSoon": 60}) as prometheus:
                prometheus.fires("JournalPrunesSoon", seconds=FIRES_SECONDS)
                agent.stop()
                _fill(agent, 17 * 2**20)
                agent.start()
                prometheus.ends("JournalPrunesSoon")
                prometheus.is_so("sojourn_journal_pruned_total > 0 and sojourn_journal_oldest_timestamp_seconds > 0")


def test_a_sink_that_takes_nothing(tmp_path: Path) -> None:
    """A sink of the journal that cannot be written is told, until it has all records."""
    path = tmp_path / "none" / "audit"
    config = f'[[audit.sinks]]\nname = "archive"\nkind = "file"\npath = "{path}"\n'
    with running(config) as (_, port), watched(tmp_path, port, {"AuditSinkBehind": 60}) as prometheus:
        prometheus.fires("AuditSinkBehind", seconds=FIRES_SECONDS)
        path.parent.mkdir()
        prometheus.ends("AuditSinkBehind")


def test_a_witness_that_is_away(tmp_path: Path) -> None:
    """A witness of the journal that does not cosign is told, until it does; one that knows of a fork is told at once."""
    with WitnessProcess() as witness:
        config = f'[[audit.witnesses]]\nname = "w1"\nurl = "{witness.url}"\nkey = "{witness.vkey}"\nevery = "1s"\n'
        factors = {"AuditWitnessSilent": 120, "AuditLogForked": 60}
        with running(config) as (agent, port), watched(tmp_path, port, factors) as prometheus:
            prometheus.fires("AuditWitnessSilent", seconds=FIRES_SECONDS)
            queries = queries_of(json.loads((FOLDER / "dashboard.json").read_text("utf-8")))
            each_has_data(prometheus, [each for each in queries if "sojourn_audit_witness_" in each])
            witness.trust(agent.json("audit", "key")["vkey"])
            prometheus.ends("AuditWitnessSilent")
            agent.stop()
            copy = AgentProcess(config=agent.config.read_text())
            shutil.copytree(agent.data_dir, copy.data_dir)
            agent.start()
            agent.register("/agent/one", "unix:uid:11")
            until(lambda: not agent.json("audit", "key")["unsigned"], seconds=60)
            size = agent.json("audit", "key")["size"]
            until(lambda: agent.json("status")["audit_witnesses"][0]["size"] >= size, seconds=60)
            agent.stop()
            with copy:
                prometheus.fires("AuditLogForked", seconds=FIRES_SECONDS)
            agent.start()


def test_a_journal_that_is_full(tmp_path: Path) -> None:
    """A journal that fills since a required sink takes nothing is told, until it may be pruned again."""
    audit = f"[audit]\nmax_bytes = {16 * 2**20}\n"
    held = f'[[audit.sinks]]\nname = "siem"\nkind = "https"\nurl = "http://127.0.0.1:{free_port()}/"\nrequired = true\n'
    with running(audit + held) as (agent, port), watched(tmp_path, port, {"JournalFills": 60}) as prometheus:
        agent.stop()
        _fill(agent, 17 * 2**20)
        agent.start()
        prometheus.is_so("sojourn_journal_full == 1 and sojourn_journal_held_ratio > 0.9")
        prometheus.fires("JournalFills", seconds=FIRES_SECONDS)
        agent.stop()
        agent.config.write_text(agent.config.read_text().replace("required = true", ""))
        agent.start()
        prometheus.ends("JournalFills")


def test_no_backup(tmp_path: Path) -> None:
    """An agent that was never backed up is told, until the first backup is made."""
    with running() as (agent, port), watched(tmp_path, port, {"BackupOld": 600}) as prometheus:
        prometheus.fires("BackupOld", seconds=FIRES_SECONDS)
        back_up(agent)
        prometheus.ends("BackupOld")


def _fill(agent: AgentProcess, size: int) -> None:
    """Have the journal of an agent that is stopped grow, by records as it writes them, until its database is so large."""

    async def fill(table: AuditTable) -> None:
        while await table.size() < size:
            await table.append(RECORDS)

    with opened(agent.data_dir / "sojourn.db") as database:
        asyncio.run(fill(AuditTable(database)))


@pytest.mark.root
def test_keys_that_cannot_be_renewed(tmp_path: Path) -> None:
    """Where no new key can be written until the one that signs has ended, its end is told, and SVIDs that are not replaced."""
    port = free_port()
    config = f'[authority]\njwt_key_ttl = "1h"\n[metrics]\nlisten = "127.0.0.1:{port}"\n'
    agent = SteppedAgent(ago=timedelta(minutes=61), config=config)
    keys = agent.data_dir / "keys"
    keys.mkdir(parents=True)
    for folder in (agent.data_dir, keys):
        folder.chmod(0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "sojourn", str(keys)], check=True)
    factors = dict.fromkeys(("AuthorityEnds", "RotationLate", "ClockStepped", "NotReady"), 60)
    try:
        with agent, Caller(agent.socket) as workload:
            agent.register("/web", f"unix:uid:{os.getuid()}", x509_svid_ttl="75m")
            workload.tell("watch")
            workload.hear("update")
            # By Prometheus' clock the key is old already: what is tried is what becomes of it here.
            with Prometheus(
                tmp_path, port, {name: rules(factor, name) for name, factor in factors.items()}
            ) as prometheus:
                assert prometheus.firing().isdisjoint({"RotationLate", "ClockStepped", "NotReady"})
                subprocess.run(["mount", "-o", "remount,ro", str(keys)], check=True)
                agent.step(timedelta(minutes=61))
                for name in factors:
                    prometheus.fires(name, seconds=FIRES_SECONDS)
                severities = {each["severity"] for each in prometheus.alerts() if each.get("kind") == "jwt"}
                assert {"warning", "critical"} == severities
                subprocess.run(["mount", "-o", "remount,rw", str(keys)], check=True)
                prometheus.ends("AuthorityEnds", "RotationLate", "NotReady", seconds=120)
    finally:
        if agent.process is not None:
            agent.stop()
        subprocess.run(["umount", str(keys)], check=True)
        shutil.rmtree(agent.folder, ignore_errors=True)


class TestCallers:
    def test_attestor_fails(self, tmp_path: Path) -> None:
        """An attestor that cannot tell any more is told by its name, and the others are not."""
        port = free_port()
        agent = CgroupAgent()
        agent.config.write_text(agent.config.read_text() + f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
        with (
            agent,
            Admin(agent.admin_socket) as admin,
            again_and_again(lambda: admin.explain(os.getpid()), 0.2),
            watched(tmp_path, port, {"AttestorFails": 30}) as prometheus,
        ):
            agent.switch.touch()
            prometheus.fires("AttestorFails", seconds=FIRES_SECONDS)
            assert ["cgroup"] == [each["attestor"] for each in prometheus.alerts()]
            agent.switch.unlink()
            prometheus.ends("AttestorFails")

    @pytest.mark.root
    def test_refusals_surge(self, tmp_path: Path) -> None:
        """A workload without an entry that asks without pause is told as a surge of refusals."""
        with (
            running() as (agent, port),
            Wire(agent.socket) as nobody,
            watched(tmp_path, port, {"RefusalsSurge": 30}) as prometheus,
        ):

            def refused() -> None:
                with suppress(grpc.RpcError):
                    nobody.jwt("audience")
                    raise AssertionError("it has an identity")

            with again_and_again(refused, 0.1):
                prometheus.fires("RefusalsSurge", seconds=FIRES_SECONDS)
            assert prometheus.value("sojourn_no_identity_total") > 0


class TestElsewhere:
    def test_federation_stale(self, tmp_path: Path) -> None:
        """A partner whose bundle cannot be fetched any more is told after a while, until it can be again."""
        partner = Partner(hint=10)
        with BundleServer(partner.svid(), partner.document()) as server, running() as (agent, port):
            follow(agent, partner, server, tmp_path)
            fetched(agent, partner.name)
            with watched(tmp_path, port, {"FederationStale": 600}) as prometheus:
                server.status = "503 Unavailable"
                agent.run("federation", "refresh", partner.name, check=False)
                prometheus.fires("FederationStale", seconds=FIRES_SECONDS)
                server.status = "200 OK"
                agent.run("federation", "refresh", partner.name)
                prometheus.ends("FederationStale")

    def test_upstream_fails(self, tmp_path: Path) -> None:
        """An upstream authority that does not sign is told after a while, until it does."""
        files = CompanyFiles(tmp_path / "company")
        with running(f'{files.table}look_every = "1s"\n') as (agent, port):
            assert "No such file" in agent.json("authority", "show")["upstream"]["fault"]
            with watched(tmp_path, port, {"UpstreamFails": 60}) as prometheus:
                prometheus.fires("UpstreamFails", seconds=FIRES_SECONDS)
                files.put(*company())
                until(lambda: not agent.json("authority", "show")["upstream"]["fault"], seconds=60)
                prometheus.ends("UpstreamFails")

    def test_listener_certificate_ends(self, tmp_path: Path) -> None:
        """A listener's certificate that was not renewed is told in two steps; a renewed one is seen without a connection."""
        place = TlsPlace(tmp_path / "tls")
        os.chmod(place.key, 0o600)
        listen = f'[listen]\ntrust = "127.0.0.1:0"\ntrust_certificate = "{place.chain}"\ntrust_key = "{place.key}"\n'
        with running(listen) as (_, port), watched(tmp_path, port, {"ListenerCertificateEnds": 60}) as prometheus:
            TlsPlace(tmp_path / "tls", ends_in=timedelta(seconds=70))
            os.chmod(place.key, 0o600)
            prometheus.fires("ListenerCertificateEnds", seconds=FIRES_SECONDS)
            until(lambda: {"warning", "critical"} == {each["severity"] for each in prometheus.alerts()}, seconds=60)
            TlsPlace(tmp_path / "tls")
            os.chmod(place.key, 0o600)
            prometheus.ends("ListenerCertificateEnds")


@pytest.mark.root
def test_broken_glass(tmp_path: Path) -> None:
    """The first task behind broken glass is told at once, and the review that it needs when nobody has made it."""
    port = free_port()
    agent = make_approval_agent()
    agent.config.write_text(f'{agent.config.read_text()}\n[metrics]\nlisten = "127.0.0.1:{port}"\n')
    with agent, Caller(agent.socket, OTHER_UID) as caller:
        register(agent)
        with watched(tmp_path, port, {"BreakGlass": 60, "ReviewOwed": 2880}) as prometheus:
            asked = ask(caller, "glass")
            assert "active" == decide(agent, asked)
            prometheus.fires("BreakGlass", "ReviewOwed", seconds=FIRES_SECONDS)
            assert ["glass"] == [each["type"] for each in prometheus.alerts() if each["alertname"] == "BreakGlass"]
            agent.run("task", "revoke", asked["id"])
            review_all(agent)
            prometheus.ends("ReviewOwed")


def test_an_overdue_review(tmp_path: Path) -> None:
    """A task type whose review is overdue is told until its date is another."""
    port = free_port()
    agent = make_agent()
    agent.config.write_text(f'{agent.config.read_text()}\n[metrics]\nlisten = "127.0.0.1:{port}"\n')
    toml, cedar = TYPES["two-places"]
    write_type(agent.folder / "types", "old", f'review_every = "1s"\n{toml}', cedar)
    with agent, watched(tmp_path, port, {"ReviewOverdue": 8640}) as prometheus:
        prometheus.fires("ReviewOverdue", seconds=FIRES_SECONDS)
        write_type(agent.folder / "types", "old", f'review_every = "90d"\n{toml}', cedar)
        prometheus.ends("ReviewOverdue")


def test_none_fires_under_healthy_load(tmp_path: Path) -> None:
    """With every kind of caller at work and nothing wrong no alert fires, at a window a twentieth of what operators have."""
    with (
        healthy_load(tmp_path) as (agent, port),
        Prometheus(tmp_path, port, {"all": rules(HEALTHY_FACTOR)}) as prometheus,
    ):
        prometheus.ends("AgentDown")  # before the first scrape there was nobody
        ends = time.monotonic() + HEALTHY_SECONDS
        while time.monotonic() < ends:
            assert set() == prometheus.firing()
            time.sleep(1)
        assert set() == prometheus.ever(f"{HEALTHY_SECONDS - 5}s")
        assert prometheus.value("sojourn_svids_issued_total{kind='jwt'}") > 0
        assert prometheus.value("sum(sojourn_tasks_ended_total)") > 0
        assert agent.process is not None
        assert agent.process.poll() is None


# What an agent has no figures of without more parts, or without something wrong.
WITHOUT_THEM = (
    *("sojourn_provider_", "sojourn_external_", "sojourn_envoy_", "sojourn_approval_notices_", "sojourn_signal"),
    *("sojourn_introspections_", "sojourn_revocations_", "sojourn_break_glass_", "sojourn_listener_certificate_"),
    *("sojourn_task_denials_", "sojourn_requests_refused_", "sojourn_loop_standstill_", "sojourn_audit_sink_"),
    *("sojourn_audit_witness_", "sojourn_audit_timestamp_", "sojourn_upstream_", "sojourn_node_", "sojourn_nodes"),
    "ALERTS",
)


def queries_of(board: Any) -> list[str]:
    """Of all panels, as the dashboard asks them of every instance."""
    targets = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return [each.replace("$__rate_interval", "10s").replace("$instance", ".*") for each in targets]


def each_has_data(prometheus: Prometheus, queries: list[str]) -> None:
    left = queries

    def all_have() -> bool:
        nonlocal left
        left = [each for each in queries if not prometheus.query(each)]
        return not left

    with contextlib.suppress(AssertionError):
        until(all_have, "data for each query", seconds=90)
    assert [] == left


def test_the_dashboard_of_a_server(tmp_path: Path) -> None:
    """What the dashboard asks of a server's nodes has data of a server."""
    queries = [
        each
        for each in queries_of(json.loads((FOLDER / "dashboard.json").read_text("utf-8")))
        if "sojourn_nodes" in each
    ]
    assert queries
    port = free_port()
    with (
        ServerProcess(tmp_path / "server", more=f'[metrics]\nlisten = "127.0.0.1:{port}"\n') as server,
        Prometheus(tmp_path, port, {}) as prometheus,
    ):
        asyncio.run(nodewire.joined(server))
        each_has_data(prometheus, queries)


def test_the_dashboard(tmp_path: Path) -> None:
    """Prometheus understands every query of the dashboard, and each has data of an agent that has the part it is about."""
    board = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
    queries = queries_of(board)
    assert len(queries) > 80
    asked = [each for each in queries if not any(name in each for name in WITHOUT_THEM)]
    with healthy_load(tmp_path) as (_, port), Prometheus(tmp_path, port, {}) as prometheus:
        each_has_data(prometheus, asked)
        assert [] != [prometheus.query(each) for each in set(queries).difference(asked)]  # it understands those, too
        variable = board["templating"]["list"][1]["query"]["query"]
        assert "label_values(sojourn_build_info, instance)" == variable
        assert f"127.0.0.1:{port}" == prometheus.query("sojourn_build_info")[0]["metric"]["instance"]
