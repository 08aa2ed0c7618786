"""doctor/agent.py and sockets.py: what the agent says of itself, and where it is reached."""

import re
import socket
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.doctors import process_in, put, scene_of, status_of
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.config.load import digest_of
from sojourn.config.model import Config
from sojourn.doctor import agent, checks, sockets
from sojourn.doctor.findings import EXIT_STATUS, Finding, Verdict, fail, link, ok, unknown, warn, worst
from sojourn.doctor.scene import Scene
from sojourn.spiffe.ids import TrustDomain

ROOT = Path(__file__).parents[3]
YEAR = 365 * 86_400
OWN = (
    *("ready", "version", "attestors", "authority", "upstream", "task-types", "reviews", "nodes"),
    "entries-folder",
    *(
        "federation",
        "signals",
        "audit-sinks",
        "audit-witnesses",
        "audit-timestamps",
        "journal-room",
        "backup",
        "restored",
        "loop",
        "failures",
    ),
)


def _witness(**said):
    return pb.AuditWitness(name="w1", **said)


def key(lived: float) -> pb.AuthorityKey:
    """The active root, of whose year this share is over."""
    now = int(time.time())
    times = {"created_at": int(now - YEAR * lived), "not_after": int(now + YEAR * (1 - lived))}
    return pb.AuthorityKey(kind="x509", status="active", **times)


def failing_upstream(serial: str) -> pb.Authority:
    """Below one that fails, with the intermediate of this serial number."""
    upstream = pb.UpstreamAuthority(kind="disk", fault="no such file", since=1)
    return pb.Authority(issuer_serial=serial, issuer_not_after=int(time.time()) + 60, upstream=upstream)


def told(folder: Path, **fields: Any) -> Scene:
    return scene_of(folder, status_of(folder, **fields))


WELL: dict[str, dict[str, Any]] = {
    "agent": {},
    "ready": {"state": "degraded"},
    "version": {"version": version("sojourn")},
    "configuration": {},
    "attestors": {"attestors": [pb.AttestorState(name="unix", asked=1)]},
    "authority": {"authority": pb.Authority(keys=[key(0.5)])},
    "upstream": {"authority": pb.Authority(upstream=pb.UpstreamAuthority(kind="disk", answered_at=1))},
    "task-types": {"task_types": ["triage"]},
    "reviews": {"review_dates": pb.ReviewDates(due=1)},
    "nodes": {"entries": 3},
    "entries-folder": {"followed": pb.FollowedFolder(folder="/etc/entries", entries=2)},
    "federation": {"federation": [pb.Federation(trust_domain="other.example")]},
    "signals": {"signals": [pb.SignalIssuer(issuer="https://a.example")]},
    "audit-sinks": {"audit_sinks": [pb.AuditSink(name="siem", lag_records=3, lag_seconds=2)]},
    "audit-witnesses": {"audit_witnesses": [pb.AuditWitness(name="w1", size=3, age_seconds=60)]},
    "audit-timestamps": {"audit_timestamps": pb.AuditTimestamps(to="tsa.example", size=3, stamped_at=1)},
    "journal-room": {"journal_room": pb.JournalRoom(held=0.5, max_bytes=1)},
    "backup": {"data_folder": pb.DataFolder(backup=pb.Backup(file="/b", made_at=int(time.time()) - 60))},
    "restored": {"data_folder": pb.DataFolder(restored=pb.Restoration(how="restore", restored_at=1))},
    "loop": {"standstills": pb.Standstills(count=1, longest_seconds=0.2, last_at=1)},
    "failures": {},
}
ILL: dict[str, list[tuple[Verdict, str, dict[str, Any]]]] = {
    "ready": [
        (
            Verdict.FAIL,
            "store: no room",
            {"state": "unready", "faults": [pb.ConditionFault(name="store", found="no room")]},
        )
    ],
    "version": [(Verdict.WARN, "the agent is 0.0.1", {"version": "0.0.1"})],
    "configuration": [
        (Verdict.FAIL, "unknown key", {"config": pb.AgentConfig(file="/a.toml", fault="unknown key")}),
        (Verdict.FAIL, "will not start", {"config": pb.AgentConfig(restart_needed=["trust_domain"])}),
        (Verdict.WARN, "listen.tcp", {"config": pb.AgentConfig(restart_needed=["listen.tcp"])}),
    ],
    "attestors": [
        (
            Verdict.FAIL,
            "docker: no answer",
            {"attestors": [pb.AttestorState(name="docker", failing=True, failure="no answer")]},
        ),
        (Verdict.UNKNOWN, "docker", {"attestors": [pb.AttestorState(name="docker")]}),
    ],
    "authority": [
        (Verdict.WARN, "three quarters", {"authority": pb.Authority(keys=[key(0.8)])}),
        (Verdict.FAIL, "nine tenths", {"authority": pb.Authority(keys=[key(0.95)])}),
        (Verdict.UNKNOWN, "no active root", {}),
    ],
    "upstream": [
        (Verdict.WARN, "disk: no such file; SVIDs are issued until", {"authority": failing_upstream("01")}),
        (Verdict.FAIL, "no X.509-SVID can be issued", {"authority": failing_upstream("")}),
    ],
    "task-types": [
        (Verdict.WARN, "in force: triage", {"policy": pb.PolicySet(fault="a.toml: no"), "task_types": ["triage"]}),
        (Verdict.FAIL, "every task is refused", {"policy": pb.PolicySet(fault="a.toml: no")}),
    ],
    "reviews": [
        (Verdict.WARN, "type:old", {"review_dates": pb.ReviewDates(overdue=1, items=["type:old"])}),
        (Verdict.WARN, "and 4 more", {"review_dates": pb.ReviewDates(overdue=7, items=["type:a", "type:b", "type:c"])}),
    ],
    "nodes": [
        (Verdict.WARN, "4 of spiffe://a/b", {"other_nodes": [pb.OtherNode(spiffe_id="spiffe://a/b", entries=4)]})
    ],
    "entries-folder": [(Verdict.FAIL, "bad.yaml", {"followed": pb.FollowedFolder(folder="/e", fault="bad.yaml")})],
    "federation": [(Verdict.WARN, "timed out", {"federation": [pb.Federation(trust_domain="o", fault="timed out")]})],
    "signals": [
        (Verdict.FAIL, "no key", {"signals": [pb.SignalIssuer(issuer="https://a", fault="no key")]}),
        (Verdict.FAIL, "503", {"signals": [pb.SignalIssuer(issuer="https://a", poll_fault="it answers 503")]}),
        (Verdict.FAIL, "paused", {"signals": [pb.SignalIssuer(issuer="https://a", stream_status="paused")]}),
    ],
    "audit-timestamps": [
        (Verdict.WARN, "away", {"audit_timestamps": pb.AuditTimestamps(to="tsa.example", fault="it is away")}),
    ],
    "audit-witnesses": [
        (Verdict.FAIL, "w1: another head", {"audit_witnesses": [_witness(fault="another head", forked=True)]}),
        (Verdict.WARN, "w1: it is away", {"audit_witnesses": [_witness(fault="it is away")]}),
        (Verdict.WARN, "w1: 9000 s", {"audit_witnesses": [_witness(age_seconds=9_000)]}),
    ],
    "audit-sinks": [
        (Verdict.FAIL, "siem: it is full", {"audit_sinks": [pb.AuditSink(name="siem", fault="it is full")]}),
        (Verdict.WARN, "siem: 400 s", {"audit_sinks": [pb.AuditSink(name="siem", lag_seconds=400)]}),
        (Verdict.WARN, "1 refused", {"audit_sinks": [pb.AuditSink(name="siem", refused=1)]}),
        (Verdict.WARN, "7 pruned", {"audit_sinks": [pb.AuditSink(name="siem", gap=7)]}),
    ],
    "journal-room": [
        (Verdict.WARN, "85% of", {"journal_room": pb.JournalRoom(held=0.85, max_bytes=1)}),
        (Verdict.FAIL, "no token is given", {"journal_room": pb.JournalRoom(held=1.01, full=True, max_bytes=1)}),
    ],
    "backup": [
        (Verdict.WARN, "no backup", {}),
        (Verdict.WARN, "two days ago", {"data_folder": pb.DataFolder(backup=pb.Backup(file="/b", made_at=1))}),
    ],
    "restored": [
        (
            Verdict.WARN,
            "restore at 2",
            {"data_folder": pb.DataFolder(restored=pb.Restoration(how="restore", restored_at=int(time.time())))},
        ),
        (Verdict.WARN, "read-only", {"data_folder": pb.DataFolder(mark=pb.Mark(file="/m", fault="read-only"))}),
    ],
    "loop": [
        (
            Verdict.WARN,
            "stood still",
            {"standstills": pb.Standstills(count=1, longest_seconds=3, last_at=int(time.time()))},
        )
    ],
    "failures": [
        (
            Verdict.WARN,
            "a (1), b (1), c (1) and 1 more",
            {"failures": [pb.Failure(what=what, count=1) for what in "abcd"]},
        )
    ],
}


@pytest.mark.parametrize("name", WELL)
def test_what_is_well(tmp_path: Path, name: str) -> None:
    """An agent that says nothing is wrong is well in each respect."""
    found = checks.CHECKS[name](told(tmp_path, **WELL[name]))
    assert (Verdict.OK, "") == (found.verdict, found.do)


@pytest.mark.parametrize(
    ("name", "verdict", "says", "fields"), [(name, *each) for name, cases in ILL.items() for each in cases]
)
def test_what_is_not(tmp_path: Path, name: str, verdict: Verdict, says: str, fields: dict[str, Any]) -> None:
    """What the agent says is wrong is told with what was found, and a failure or warning with what to do."""
    found = checks.CHECKS[name](told(tmp_path, **fields))
    assert verdict == found.verdict
    assert says in found.found
    assert found.do or verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("name", OWN)
def test_an_agent_that_does_not_answer(tmp_path: Path, name: str) -> None:
    """What only the agent knows is unknown without it, and never well."""
    assert Verdict.UNKNOWN == checks.CHECKS[name](scene_of(tmp_path)).verdict


def test_the_agent_itself(tmp_path: Path) -> None:
    """That nobody answers is a failure, with the reason; a configuration that cannot be used is one without an agent."""
    assert (Verdict.FAIL, "no socket") == (
        agent.agent(scene_of(tmp_path)).verdict,
        agent.agent(scene_of(tmp_path)).found,
    )
    assert Verdict.OK == agent.configuration(scene_of(tmp_path)).verdict
    assert Verdict.FAIL == agent.configuration(scene_of(tmp_path, fault="a.toml:1: no")).verdict


class TestNotStarted:
    def test_where_systemd_starts_it(self, tmp_path: Path) -> None:
        """Where there is a unit, an agent that does not answer is started by systemctl, and the journal says why not."""
        assert "`sojourn agent run`" in agent.agent(scene_of(tmp_path)).do
        put(tmp_path / "units" / "sojourn.service", "[Service]\n")
        found = agent.agent(scene_of(tmp_path))
        assert found.do.startswith("`systemctl start sojourn`, as root; `journalctl -u sojourn` says why")
        assert "agent run" not in found.do

    def test_keys_of_another_trust_domain(self, tmp_path: Path) -> None:
        """Roots of another trust domain than the configured one are named as what keeps the agent from starting."""
        root_of(tmp_path, "corp.example")
        config = Config(data_dir=tmp_path / "data", trust_domain="other.example")
        why = f"{tmp_path}/data/keys/root.pem is of trust domain corp.example, and the configuration says other.example"
        for check in ("agent", "keys"):
            found = checks.CHECKS[check](scene_of(tmp_path, config=config))
            assert (Verdict.FAIL, True) == (found.verdict, why in found.found)
            assert found.do.startswith("put trust_domain back")

    def test_keys_of_its_own(self, tmp_path: Path) -> None:
        """With roots of the configured trust domain, or what is no certificate, nothing is said of the trust domain."""
        root_of(tmp_path, "corp.example")
        scene = scene_of(tmp_path, config=Config(data_dir=tmp_path / "data", trust_domain="corp.example"))
        assert "no socket" == agent.agent(scene).found
        assert Verdict.OK == checks.CHECKS["keys"](scene).verdict
        put(tmp_path / "data" / "keys" / "root.pem", "no certificate")
        assert "no socket" == agent.agent(scene).found


class TestInForce:
    def told(self, folder: Path, path: Path, **fields: Any) -> Finding:
        return agent.configuration(told(folder, config=pb.AgentConfig(file=str(path), **fields)))

    def test_a_file_that_was_edited_since(self, tmp_path: Path) -> None:
        """A file that is as the agent has read it is in force; one that was edited since is not, and what to run is said."""
        path = put(tmp_path / "agent.toml", "")
        digest = digest_of(path)
        assert Verdict.OK == self.told(tmp_path, path, digest=digest).verdict
        path.write_text('[log]\nlevel = "debug"\n')
        found = self.told(tmp_path, path, digest=digest)
        assert (Verdict.WARN, True) == (found.verdict, "was edited since" in found.found)
        assert "reload the agent (SIGHUP)" == found.do
        put(tmp_path / "units" / "sojourn.service", "[Service]\n")
        assert "`systemctl reload sojourn`" == self.told(tmp_path, path, digest=digest).do

    def test_what_cannot_be_compared(self, tmp_path: Path) -> None:
        """A file that is not there, and an agent that does not tell what it has read, are unknown and not in force."""
        assert Verdict.UNKNOWN == self.told(tmp_path, tmp_path / "gone.toml", digest="d1").verdict
        assert Verdict.UNKNOWN == self.told(tmp_path, put(tmp_path / "agent.toml", "")).verdict


class TestKubelet:
    @pytest.mark.parametrize(
        ("settings", "state", "verdict"),
        [
            (None, None, Verdict.OK),
            ({}, pb.AttestorState(name="k8s"), Verdict.UNKNOWN),
            ({}, pb.AttestorState(name="k8s", asked=3), Verdict.OK),
            ({}, pb.AttestorState(name="k8s", asked=3, failing=True, failure="401"), Verdict.FAIL),
            ({"kubelet_read_only_port": 10255}, pb.AttestorState(name="k8s", asked=3), Verdict.WARN),
        ],
    )
    def test_as_it_fares(self, tmp_path: Path, settings: Any, state: Any, verdict: Verdict) -> None:
        """The kubelet is told by how its attestor fares; at its read-only port nothing is proved of who answers."""
        config = Config(attestors={"unix": {}} if settings is None else {"k8s": settings})
        status = status_of(tmp_path, attestors=[] if state is None else [state])
        assert verdict == agent.kubelet(scene_of(tmp_path, status, config)).verdict

    def test_unknown_without_either(self, tmp_path: Path) -> None:
        """Without a configuration, or without an agent, it is unknown."""
        assert Verdict.UNKNOWN == agent.kubelet(scene_of(tmp_path, fault="no")).verdict
        assert Verdict.UNKNOWN == agent.kubelet(scene_of(tmp_path, config=Config(attestors={"k8s": {}}))).verdict


class TestSockets:
    @pytest.fixture
    def scene(self, tmp_path: Path) -> Any:
        """Both sockets of an agent of ours."""
        process_in(tmp_path, uid=tmp_path.stat().st_uid)
        made = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for each, name, mode in zip(made, ("agent", "admin"), (0o777, 0o600), strict=True):
            each.bind(str(tmp_path / f"{name}.sock"))
            (tmp_path / f"{name}.sock").chmod(mode)
        tmp_path.chmod(0o755)
        yield told(tmp_path)
        for each in made:
            each.close()

    def test_as_the_agent_makes_them(self, scene: Scene) -> None:
        """Sockets as the agent makes them are well."""
        assert Verdict.OK == sockets.sockets(scene).verdict, sockets.sockets(scene).found

    @pytest.mark.parametrize(
        ("name", "mode", "says"),
        [("agent", 0o700, "workloads of other users cannot connect"), ("admin", 0o777, "others may try to connect")],
    )
    def test_modes(self, tmp_path: Path, scene: Scene, name: str, mode: int, says: str) -> None:
        """A public socket that is closed, and an admin socket that is open, are failures with the chmod to make."""
        (tmp_path / f"{name}.sock").chmod(mode)
        found = sockets.sockets(scene)
        assert (Verdict.FAIL, True, True) == (found.verdict, says in found.found, found.do.startswith("chmod "))

    def test_one_that_is_gone_or_no_socket(self, tmp_path: Path, scene: Scene) -> None:
        """A socket that is gone while the agent runs, or is a file, is a failure."""
        (tmp_path / "agent.sock").unlink()
        assert "and the agent runs" in sockets.sockets(scene).found
        (tmp_path / "agent.sock").touch()
        assert "is no socket" in sockets.sockets(scene).found

    def test_a_folder_that_others_may_write(self, tmp_path: Path, scene: Scene) -> None:
        """A folder in which others could put another socket is a warning: clients of other users will not believe it."""
        tmp_path.chmod(0o777)
        assert Verdict.WARN == sockets.sockets(scene).verdict


class TestListeners:
    def test_none(self, tmp_path: Path) -> None:
        """An agent without listeners has none to be looked at."""
        assert Verdict.OK == sockets.listeners(told(tmp_path)).verdict

    @pytest.mark.parametrize(("listens", "verdict"), [(True, Verdict.OK), (False, Verdict.FAIL)])
    def test_whether_one_answers(self, tmp_path: Path, *, listens: bool, verdict: Verdict) -> None:
        """A listener that is configured is connected to."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            if listens:
                listener.listen()
            config = Config(metrics={"listen": f"127.0.0.1:{listener.getsockname()[1]}"})
            assert verdict == sockets.listeners(scene_of(tmp_path, status_of(tmp_path), config)).verdict
            assert Verdict.UNKNOWN == sockets.listeners(scene_of(tmp_path, config=config)).verdict

    def test_one_that_waits_for_a_restart(self, tmp_path: Path) -> None:
        """A listener that waits for a restart is told so: nobody is asked at its address, and no certificate is blamed."""
        config = Config(metrics={"listen": "127.0.0.1:1"}, listen={"trust": "127.0.0.1:2"})
        keys = ["metrics.listen", "listen.trust"]
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            before = f"127.0.0.1:{listener.getsockname()[1]}"
            in_force = [pb.Listener(name="trust", address=before)]
            status = status_of(tmp_path, config=pb.AgentConfig(restart_needed=keys), listeners=in_force)
            found = sockets.listeners(scene_of(tmp_path, status, config))
        said = "listen.trust 127.0.0.1:2 waits for a restart of the agent"
        assert (Verdict.WARN, f"{said}; {said.replace('listen.trust', 'metrics.listen').replace(':2', ':1')}") == (
            found.verdict,
            found.found,
        )
        assert "certificate" not in found.do
        silent = sockets.listeners(scene_of(tmp_path, status, config))
        assert (Verdict.FAIL, True) == (silent.verdict, f"trust: {before} does not answer; {said}" in silent.found)

    def test_each_fault_has_its_own_cure(self, tmp_path: Path) -> None:
        """That a listener does not answer, and that a certificate's file is spoilt, are mended by different means."""
        silent = Config(metrics={"listen": "127.0.0.1:1"})
        assert "certificate" not in sockets.listeners(scene_of(tmp_path, status_of(tmp_path), silent)).do
        path = tmp_path / "cert.pem"
        path.write_bytes(b"no")
        spoilt = Config(listen={"https": "127.0.0.1:1", "https_certificate": str(path), "https_key": str(path)})
        assert "restart" not in sockets.listeners(scene_of(tmp_path, config=spoilt)).do

    def test_metrics_for_everybody(self, tmp_path: Path) -> None:
        """Metrics that other machines can read are a warning."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            config = Config(metrics={"listen": f"0.0.0.0:{listener.getsockname()[1]}"})
            found = sockets.listeners(scene_of(tmp_path, status_of(tmp_path), config))
        assert (Verdict.WARN, True) == (found.verdict, "reads the metrics" in found.found)

    @pytest.mark.parametrize(("days", "says"), [(3, " ends at "), (None, "cert.pem: ")])
    def test_a_certificate(self, tmp_path: Path, days: int | None, says: str) -> None:
        """A certificate that ends within a week, or is none, is a failure, also where no agent runs."""
        path = tmp_path / "cert.pem"
        path.write_bytes(b"no" if days is None else certificate(days))
        config = Config(listen={"https": "127.0.0.1:1", "https_certificate": str(path), "https_key": str(path)})
        found = sockets.listeners(scene_of(tmp_path, config=config))
        assert (Verdict.FAIL, True) == (found.verdict, says in found.found)
        path.write_bytes(certificate(30))
        assert Verdict.UNKNOWN == sockets.listeners(scene_of(tmp_path, config=config)).verdict


def certificate(days: int) -> bytes:
    """One that ends in so many days, as PEM."""
    now, private = datetime.now(UTC), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    built = x509.CertificateBuilder(name, name, private.public_key(), 1, now, now + timedelta(days=days))
    return built.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM)


def root_of(folder: Path, trust_domain: str) -> None:
    """The keys of an agent of a trust domain, as the agent itself makes them."""
    authority_in(folder / "data" / "keys", FakeClock(), trust_domain=TrustDomain.parse(trust_domain))


def test_the_worst_counts() -> None:
    """The exit status is that of the worst verdict: a failure before a warning, and that before what is unknown."""
    well, dark, loud, ill = ok(""), unknown(""), warn("", ""), fail("", "")
    found = [worst(each) for each in ([], [well], [well, dark], [loud, dark], [ill, loud, dark])]
    assert [0, 0, 5, 4, 1] == [EXIT_STATUS[each] for each in found]


def test_a_check_that_fails_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that breaks is unknown, says so, and keeps none of the others from their verdict."""

    def broken(_scene: Scene) -> Finding:
        raise ZeroDivisionError("oops")

    monkeypatch.setitem(checks.CHECKS, "kernel", broken)
    found = checks.examine(scene_of(tmp_path))
    assert found.keys() == checks.CHECKS.keys()
    assert (Verdict.UNKNOWN, True) == (found["kernel"].verdict, "ZeroDivisionError: oops" in found["kernel"].found)


def test_each_has_its_section() -> None:
    """Each check has a section on the page, in the order in which they are told, and there is no other."""
    page = (ROOT / "docs" / "operate" / "doctor.md").read_text()
    sections = re.findall(r"^### (\S+)$", page, re.MULTILINE)
    assert list(checks.CHECKS) == sections
    assert [f"docs/operate/doctor.md#{name}" for name in sections] == [link(name) for name in checks.CHECKS]


class TestUpstream:
    @pytest.mark.parametrize(
        ("fields", "verdict", "said"),
        [
            ({"server": "127.0.0.1:8081"}, Verdict.OK, "127.0.0.1:8081 answers"),
            ({"away_seconds": 90.0, "fault": "refused"}, Verdict.WARN, "no server has answered for 90 s: refused"),
            ({"refused": "banned", "remedy": "evict it"}, Verdict.FAIL, "the server refuses this node (banned)"),
            ({"svid_until": 1, "fault": "away"}, Verdict.FAIL, "it is no node: away"),
            ({"svid_until": 0}, Verdict.FAIL, "it is no node: it has none"),
        ],
    )
    def test_a_node(self, tmp_path: Path, fields: dict[str, Any], verdict: Verdict, said: str) -> None:
        """A node is told how it fares at its server in the place of a root's life."""
        told = pb.Upstream(**{"kind": "spire", "svid_until": int(time.time()) + YEAR, **fields})
        found = agent.authority(scene_of(tmp_path, status_of(tmp_path, upstream=told)))
        assert (verdict, True) == (found.verdict, said in found.found)
