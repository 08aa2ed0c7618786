"""Sinks of a real agent's journal: files and receivers that are down, slow, killed or say no, and nobody waits for them."""

import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.ca import FakeCa
from harness.agent import AgentProcess
from harness.backups import back_up, command
from harness.looking import until
from harness.ports import free_port
from harness.raw import Wire
from harness.sinkagents import caught_up, configured, kill_by_turns, load, running, sink, states, written
from harness.sinkplace import SinkPlace, SinkProgram
from harness.syslogplace import Rsyslog
from sojourn.spiffetls.context import load_svid

KILLS = 12


@pytest.fixture
def place() -> Iterator[SinkPlace]:
    with SinkPlace() as made:
        yield made


def scraped(port: int) -> dict[str, float]:
    """The metrics of sinks, by name and labels."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (each.rpartition(" ") for each in lines) if "_sink_" in name[:20]}


def journal(agent: AgentProcess) -> dict[int, str]:
    """The digest of each record."""
    found = agent.json("audit", "tail", "--after", "0", "--since", "1h")["records"]
    return {each["seq"]: each["digest"] for each in found}


class TestFile:
    def test_the_whole_life_of_an_agent(self, tmp_path: Path) -> None:
        """The file has each record of the run from the first to the last, as the journal has it, with its checkpoint."""
        path = tmp_path / "audit.ndjson"
        with running(sink("archive", "file", f'path = "{path}"')) as agent:
            caught_up(agent)
            found = journal(agent)
            agent.stop()
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            records = [each for each in lines if "kind" not in each]
            assert list(range(1, len(records) + 1)) == [each["seq"] for each in records]
            assert found.items() <= {each["seq"]: each["digest"] for each in records}.items()
            assert ("agent_stopped", "checkpoint") == (records[-1]["event"], lines[-1]["kind"])
            assert records[-1]["seq"] == lines[-1]["until_seq"]
            agent.start()
            caught_up(agent)
            agent.stop()
            seqs = [each["seq"] for each in map(json.loads, path.read_text().splitlines()) if "kind" not in each]
            assert list(range(1, len(seqs) + 1)) == seqs

    @pytest.mark.forked
    def test_checked_without_the_agent(self, tmp_path: Path) -> None:
        """Whoever has the file and the key finds it whole without an agent, and finds what is taken out of it."""
        path, cut = tmp_path / "audit.ndjson", tmp_path / "cut"
        with running(sink("archive", "file", f'path = "{path}"')) as agent:
            caught_up(agent)
            key = str(agent.json("audit", "key")["vkey"])
            until(lambda: b'"kind":"checkpoint"' in path.read_bytes())
            agent.stop()
            found = agent.json("audit", "check", "--received", str(path), "--key", key)
            assert (True, [], True) == (found["good"], found["missing"], found["compared"] > 0)
            lines = path.read_bytes().splitlines(keepends=True)
            cut.write_bytes(b"".join(lines[:2] + lines[3:]))
            done = agent.run("audit", "check", "--received", str(cut), check=False)
            assert (1, True) == (done.returncode, "records from 3 to 3 are missing" in done.stdout)
            for argv in (["--received", str(cut), str(path)], ["--received", str(tmp_path / "none")], [], [str(path)]):
                assert agent.run("audit", "check", *argv, check=False).returncode in {1, 2}

    def test_a_new_sink(self, tmp_path: Path) -> None:
        """A sink that is new gets what the run that knows it first records, or with start = "beginning" all that there is."""
        with running() as agent:
            before = len(journal(agent))
            late, whole = tmp_path / "late", tmp_path / "whole"
            configured(
                agent,
                sink("late", "file", f'path = "{late}"'),
                sink("whole", "file", f'path = "{whole}"', 'start = "beginning"'),
            )
            caught_up(agent)
            firsts = [json.loads(path.read_text().splitlines()[0]) for path in (late, whole)]
            assert firsts[0]["seq"] > before
            assert 1 == firsts[1]["seq"]
            assert "sink_begun" in late.read_text()

    def test_a_filter(self, tmp_path: Path) -> None:
        """A sink gets the events that it names, and is not behind for the others."""
        path = tmp_path / "few"
        with running(sink("few", "file", f'path = "{path}"', 'include = ["entry_created"]')) as agent:
            caught_up(agent)
            until(lambda: "entry_created" in path.read_text())
            records = [each for each in map(json.loads, path.read_text().splitlines()) if "kind" not in each]
            assert {"entry_created"} == {each["event"] for each in records}

    @pytest.mark.forked
    def test_no_room(self, tmp_path: Path) -> None:
        """A file that cannot be written is told once, in log, status, metrics and doctor; the agent goes on, and so do others."""
        port = free_port()
        bad, good = tmp_path / "none" / "x", tmp_path / "good"
        with running(
            sink("bad", "file", f'path = "{bad}"'),
            sink("good", "file", f'path = "{good}"'),
            more=f'[metrics]\nlisten = "127.0.0.1:{port}"\n',
        ) as agent:
            until(lambda: states(agent)["bad"]["fault"])
            until(lambda: states(agent)["good"]["lag_records"] == 0)
            found = states(agent)["bad"]
            assert ("No such file" in found["fault"], found["lag_records"] > 0, found["taken_at"]) == (True, True, None)
            assert found["lag_seconds"] > 0
            assert "takes NOTHING" in agent.run("status").stdout
            assert "takes NOTHING" in agent.run("audit", "sinks").stdout
            time.sleep(2.5)
            assert ["bad"] == [each["sink"] for each in agent.log_lines() if each["event"] == "audit_sink_failing"]
            assert ["sink bad"] == [
                each["subject"] for each in agent.failures() if each["what"] == "audit_sink_failing"
            ]
            values = scraped(port)
            assert values['sojourn_audit_sink_failing{sink="bad"}'] == 1
            assert values['sojourn_audit_sink_lag_records{sink="bad"}'] > 0
            assert values['sojourn_audit_sink_lag_seconds{sink="bad"}'] > 0
            assert values['sojourn_audit_sink_failing{sink="good"}'] == 0
            bad.parent.mkdir()
            until(lambda: states(agent)["bad"]["fault"] == "" and states(agent)["bad"]["lag_records"] == 0, seconds=30)
            assert "audit_sink_takes_again" in {each["event"] for each in agent.log_lines()}


class TestReceiver:
    @pytest.mark.forked
    def test_down_and_slow(self, place: SinkPlace, tmp_path: Path) -> None:
        """A receiver that says no, or hangs, holds nobody up; when it takes again it has each record, in order."""
        hanging = threading.Event()

        def hang(_body: bytes) -> int:
            hanging.wait(30)
            return 503

        place.answer = hang
        path = tmp_path / "beside"
        with running(
            sink("siem", "https", f'url = "{place.url}"', 'timeout = "1s"'),
            sink("beside", "file", f'path = "{path}"'),
        ) as agent:
            until(lambda: states(agent)["siem"]["fault"])
            with Wire(agent.socket) as wire:
                begun = time.monotonic()
                for number in range(20):
                    wire.jwt(f"https://a.example/{number}")
                assert time.monotonic() - begun < 10
            until(lambda: states(agent)["beside"]["lag_records"] == 0)
            place.answer = lambda _body: 204
            hanging.set()
            caught_up(agent)
            seqs = sorted(set(place.seqs))  # once: more may come meanwhile
            assert list(range(1, seqs[-1] + 1)) == seqs
            assert place.of("checkpoint")

    def test_one_record_is_refused(self, place: SinkPlace) -> None:
        """A record that the receiver never takes is set aside and told: in the journal, at the receiver, and by doctor."""
        place.answer = lambda body: 400 if b"/agent/poison" in body and b"sink_refused" not in body else 204
        with running(sink("siem", "https", f'url = "{place.url}"')) as agent:
            agent.register("/agent/poison", "unix:uid:12345")
            agent.register("/agent/after", "unix:uid:12346")
            until(lambda: [each for each in place.of("record") if each["event"] == "sink_refused"])
            caught_up(agent)
            (told,) = [each for each in place.of("record") if each["event"] == "sink_refused"]
            seqs = set(place.seqs)
            missing = set(range(1, max(seqs) + 1)) - seqs
            assert missing == {told["fields"]["from_seq"]} == {told["fields"]["until_seq"]}
            assert (1, "") == (states(agent)["siem"]["refused"], states(agent)["siem"]["fault"])
            done = agent.run("doctor", "--output", "json", check=False)
            found = next(each for each in json.loads(done.stdout)["checks"] if each["id"] == "audit-sinks")
            assert "warn" == found["verdict"]

    @pytest.mark.forked
    def test_a_token_that_is_refused(self, place: SinkPlace, tmp_path: Path) -> None:
        """No record is given up because a token is not good: once it is, all of them arrive."""
        token = tmp_path / "token"
        token.write_text("old\n")
        token.chmod(0o600)

        def answer(_body: bytes) -> int:
            return 204 if place.posts[-1][0]["authorization"] == "Bearer new" else 401

        place.answer = answer
        with running(sink("siem", "https", f'url = "{place.url}"', f'token_file = "{token}"')) as agent:
            until(lambda: "401" in states(agent)["siem"]["fault"])
            token.write_text("new\n")
            caught_up(agent)
            seqs = sorted(set(place.seqs))  # once: more may come meanwhile
            assert list(range(1, seqs[-1] + 1)) == seqs
            assert "s3cret" not in agent.run("audit", "sinks").stdout + agent.log.read_text()

    def test_own_svid(self, tmp_path: Path) -> None:
        """The agent shows the receiver its own X.509-SVID, which its bundle vouches for."""
        ca = FakeCa.make("example.org")
        (tmp_path / "ca.pem").write_bytes(ca.root.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_svid(context, ca.svid("/receiver", dns="localhost"))
        with running() as agent:
            bundle = agent.run("bundle", "show").stdout
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=bundle)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            with SinkPlace(context) as place:
                lines = (f'url = "{place.url}"', "svid = true", f'ca = "{tmp_path}/ca.pem"')
                configured(agent, sink("siem", "https", *lines, 'private_networks = ["127.0.0.0/8"]'))
                caught_up(agent)
                names = {dict(each["subjectAltName"])["URI"] for each in place.peers}
                assert {agent.json("status")["node_id"]} == names

    @pytest.mark.forked
    def test_a_restored_database(self, place: SinkPlace) -> None:
        """After a restore the receiver has the record that says so, and the new log's; what it had before it may have twice."""
        with running(sink("siem", "https", f'url = "{place.url}"')) as agent:
            backup = back_up(agent)
            agent.register("/agent/later", "unix:uid:12345")
            caught_up(agent)
            agent.stop()
            done = command(agent, "restore", str(backup), "--accept-loss")
            assert done.returncode == 0, done.stderr
            agent.start()
            caught_up(agent)
            told = {each["digest"]: each["event"] for each in place.of("record")}
            events = Counter(told.values())
            assert (1, 2) == (events["database_restored"], events["audit_log_begun"])


@pytest.mark.forked
class TestSyslog:
    @pytest.mark.parametrize("secure", [True, False], ids=["tls", "loopback"])
    def test_a_real_rsyslog(self, secure: bool, tmp_path: Path) -> None:
        """A real rsyslogd has each record, whole, by its event and node; over TLS it takes the agent's own SVID."""
        ca = FakeCa.make("example.org") if secure else None
        with running() as agent, Rsyslog(tmp_path, ca) as syslog:
            lines = ["tls = false"]
            if secure:
                bundle = agent.run("bundle", "show").stdout
                lines = ["svid = true", f'ca = "{syslog.folder}/ca.pem"', 'private_networks = ["127.0.0.0/8"]']
                trusted = syslog.folder / "clients.pem"
                trusted.write_text(bundle + (syslog.folder / "ca.pem").read_text())
                syslog.trust(trusted)
            configured(agent, sink("log", "syslog", f'address = "localhost:{syslog.port}"', *lines))
            agent.register("/agent/long", "unix:uid:12345", *[f"unix:gid:{each}" for each in range(100, 120)])
            caught_up(agent)
            found = journal(agent)
            until(lambda: max((each.get("seq", 0) for each in syslog.values()), default=0) >= max(found) - 1)
            received = {each["seq"]: each["digest"] for each in syslog.values() if "kind" not in each}
            first = min(received)
            assert {seq: digest for seq, digest in found.items() if seq >= first}.items() <= received.items()
            assert any(each.get("kind") == "checkpoint" for each in syslog.values())
            node = agent.json("status")["node_id"].rpartition("/")[2]
            assert {(node, "sojourn", "110")} == {(each[1], each[2], each[3]) for each in syslog.heads()}
            assert "entry_created" in {each[0] for each in syslog.heads()}
            syslog.stop()
            agent.register("/agent/later", "unix:uid:12346")
            until(lambda: states(agent)["log"]["fault"])
            syslog.start()
            caught_up(agent)
            until(lambda: "/agent/later" in syslog.file.read_text())


class TestOtlp:
    def test_log_records(self, place: SinkPlace) -> None:
        """An OpenTelemetry receiver has each record as a log record; what it rejects is told once, and not sent again."""
        rejects = [b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}']
        place.answer = lambda _body: (200, {"content-type": "application/json"}, rejects.pop() if rejects else b"{}")
        with running(sink("otel", "otlp", f'url = "{place.url}"')) as agent:
            caught_up(agent)
            until(lambda: "sink_refused" in str(place.taken))
            bodies = [
                json.loads(each["body"]["stringValue"])
                for _, post in place.posts
                for each in json.loads(post)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
            ]
            seqs = [each["seq"] for each in bodies if "kind" not in each]
            assert list(range(1, max(seqs) + 1)) == seqs
            (told,) = [each for each in bodies if each.get("event") == "sink_refused"]
            assert (1, 1) == (told["fields"]["count"], states(agent)["otel"]["refused"])


@pytest.mark.full
@pytest.mark.forked
@pytest.mark.timeout(600)
def test_kills(tmp_path: Path) -> None:
    """However often agent and receiver are killed under load, the receiver has each record of the journal, as it is there."""
    receiver = SinkProgram(free_port(), tmp_path / "received")
    with receiver, running(sink("siem", "https", f'url = "{receiver.url}"', 'timeout = "2s"')) as agent:
        with load(agent) as issued:
            kill_by_turns(agent, receiver, KILLS)
            assert issued[0] > 100
        caught_up(agent, 150)
        agent.stop()
        found, received = written(agent), receiver.records()
    counts = Counter(each["seq"] for each in received)
    assert [] == [seq for seq in found if seq not in counts], "lost"
    assert {} == {each["seq"]: each for each in received if found.get(each["seq"], each["digest"]) != each["digest"]}
    twice = sum(counts.values()) - len(counts)
    print(f"{len(counts)} records, {twice} of them again")
