"""A real agent whose signed journal real witnesses cosign: over their absence, kills, copies and restores."""

import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness import tampering
from harness.agent import AgentProcess
from harness.auditing import by_go, by_python, check, codes, export, key_of, load
from harness.backups import back_up, command
from harness.looking import next_second, until
from harness.ports import free_port
from harness.sinkplace import SinkPlace
from harness.witnessprocess import WitnessProcess
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.notes import Note, Signer, VerifierKey

pytestmark = pytest.mark.forked

KILLS = 10


def tables(*witnesses: WitnessProcess) -> str:
    return "".join(
        f'\n[[audit.witnesses]]\nname = "w{number}"\nurl = "{each.url}"\nkey = "{each.vkey}"\nevery = "1s"\n'
        for number, each in enumerate(witnesses, 1)
    )


def witnessed_agent(*witnesses: WitnessProcess, more: str = "") -> AgentProcess:
    made = AgentProcess(config='trust_domain = "example.org"\n' + more + tables(*witnesses))
    with_started(made, *witnesses)
    return made


def with_started(agent: AgentProcess, *witnesses: WitnessProcess) -> None:
    """Start it, and have the witnesses trust its log."""
    agent.start()
    for each in witnesses:
        each.trust(key_of(agent))


def states(agent: AgentProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = agent.json("status")["audit_witnesses"]
    return found


def caught_up(agent: AgentProcess, seconds: float = 120.0) -> int:
    """Wait until all that there is now is cosigned by all, and return how many leaves that are."""
    until(lambda: (found := agent.json("audit", "key"))["size"] and not found["unsigned"], "all is signed", seconds)
    size = int(agent.json("audit", "key")["size"])
    until(lambda: all(each["size"] >= size and not each["fault"] for each in states(agent)), "all cosigned", seconds)
    return size


@pytest.fixture
def witness() -> Iterator[WitnessProcess]:
    with WitnessProcess() as made:
        yield made


@pytest.fixture
def agent(witness: WitnessProcess) -> Iterator[AgentProcess]:
    made = witnessed_agent(witness)
    try:
        made.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield made
    finally:
        made.__exit__()


def test_it_is_cosigned(agent: AgentProcess, witness: WitnessProcess) -> None:
    """What is recorded is cosigned within seconds; status says up to where, and a check by a stranger needs no agent."""
    caught_up(agent)
    assert "has cosigned records up to" in agent.run("status").stdout
    folder, key = export(agent, "out"), key_of(agent)
    agent.run("audit", "prove", "1", "--to", str(agent.folder / "one.tlog-proof"))
    agent.stop()
    found = check(agent, folder, "--witness", witness.vkey, key=key)
    assert ([], 1) == (found["faults"], len(found["witnesses"]))
    assert found["witnesses"][0]["size"] + found["witnesses"][0]["not_yet"] == found["logs"][0]["size"]
    assert abs(_seconds(found["witnesses"][0]["at"]) - time.time()) < 300
    said = agent.run("audit", "check", str(folder), "--key", key, "--witness", witness.vkey).stdout
    assert "witness witness.example/w1, log " in said
    assert "vouches up to record" in said
    assert [] == check(agent, agent.folder / "one.tlog-proof", "--witness", witness.vkey, key=key)["faults"]
    with WitnessProcess(name="witness.example/w2") as other:
        assert {"witness_missing"} == codes(check(agent, folder, "--witness", other.vkey, key=key))
    bad = agent.run("audit", "check", str(folder), "--key", key, "--witness", "x", check=False)
    assert (2, True) == (bad.returncode, "--witness: " in bad.stderr)


def _seconds(at: Any) -> float:
    return float(at)


def told(agent: AgentProcess) -> tuple[int, int]:
    """How often the log has said that the witness fails, and that it cosigns again."""
    log = agent.log.read_text()
    return log.count('"audit_witness_failing"'), log.count('"audit_witness_cosigns_again"')


def test_a_witness_that_is_away(agent: AgentProcess, witness: WitnessProcess) -> None:
    """Nobody waits for a witness that is away; status, doctor and log say it, and once it is back all is cosigned."""
    before = caught_up(agent)
    failed, again = told(agent)
    witness.stop(signal.SIGKILL)
    agent.register("/agent/later", "unix:uid:12345")
    until(lambda: states(agent)[0]["fault"])
    until(lambda: agent.json("audit", "key")["unsigned"] == 0)
    assert before < agent.json("audit", "key")["size"]
    assert "cosigns NOTHING since" in agent.run("status").stdout
    doctor = json.loads(agent.run("doctor", "--output", "json", check=False).stdout)
    [found] = [each for each in doctor["checks"] if each["id"] == "audit-witnesses"]
    assert "warn" == found["verdict"]
    folder = export(agent, "without")
    found = check(agent, folder, "--witness", witness.vkey)
    assert [] == found["faults"]
    assert found["witnesses"][0]["not_yet"] > 0
    assert (
        "NOT yet for the"
        in agent.run("audit", "check", str(folder), "--key", key_of(agent), "--witness", witness.vkey).stdout
    )
    witness.start()
    caught_up(agent)
    until(lambda: (failed + 1, again + 1) == told(agent), "each is said once")


def test_what_is_measured(witness: WitnessProcess) -> None:
    """Metrics tell whether each witness cosigns, and how long ago it has."""
    port = free_port()
    agent = witnessed_agent(witness, more=f'[metrics]\nlisten = "127.0.0.1:{port}"\n')

    def scraped() -> dict[str, float]:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            lines = (
                line.rpartition(" ")
                for line in answer.read().decode().splitlines()
                if line.startswith("sojourn_audit_wit")
            )
        return {name: float(value) for name, _, value in lines}

    try:
        caught_up(agent)
        found = scraped()
        assert (0, 0) == tuple(found[f'sojourn_audit_witness_{each}{{witness="w1"}}'] for each in ("failing", "forked"))
        assert 0 <= found['sojourn_audit_witness_age_seconds{witness="w1"}'] < 120
        witness.stop()
        agent.register("/agent/later", "unix:uid:12345")
        until(lambda: scraped()['sojourn_audit_witness_failing{witness="w1"}'] == 1)
    finally:
        agent.__exit__()


def test_a_copy_that_forks(agent: AgentProcess, witness: WitnessProcess) -> None:
    """Of two agents on copies of one data folder the witness cosigns one; the other says loudly that its log is forked."""
    caught_up(agent)
    agent.stop()
    copy = AgentProcess(config=agent.config.read_text())
    try:
        shutil.copytree(agent.data_dir, copy.data_dir)
        agent.start()
        agent.register("/agent/one", "unix:uid:11")
        caught_up(agent)
        copy.start()
        copy.register("/agent/two", "unix:uid:12")
        until(lambda: states(copy)[0]["forked"], seconds=60)
        assert "ANOTHER HEAD" in copy.run("status").stdout
        assert "audit_log_forked" in {each["what"] for each in copy.failures()}
        until(lambda: copy.json("audit", "list", "--event", "audit_log_forked")["records"])
        doctor = json.loads(copy.run("doctor", "--output", "json", check=False).stdout)
        assert ["fail"] == [each["verdict"] for each in doctor["checks"] if each["id"] == "audit-witnesses"]
        until(lambda: list((witness.folder / "unproved").glob("*")))
        folder = export(copy, "forked")
        found = check(copy, folder, "--witness", witness.vkey)
        assert not states(agent)[0]["forked"]
        shutil.copy(next((agent.data_dir / "cosigned").glob("*/*")), copy.folder / "cosigned-by-the-other")
        assert {"head_forked"} & codes(check(copy, folder, "--after", str(copy.folder / "cosigned-by-the-other"))) or {
            "head_behind"
        } & codes(check(copy, folder, "--after", str(copy.folder / "cosigned-by-the-other")))
        assert found["witnesses"][0]["not_yet"] > 0
    finally:
        copy.__exit__()


def test_a_restored_database(agent: AgentProcess, witness: WitnessProcess) -> None:
    """After a restore the new log is not known to the witness until it is told; of the old one it knows what is lost."""
    backup = back_up(agent)
    agent.register("/agent/later", "unix:uid:12345")
    caught_up(agent)
    old = key_of(agent)
    agent.stop()
    done = command(agent, "restore", str(backup), "--accept-loss")
    assert done.returncode == 0, done.stderr
    agent.start()
    until(lambda: "does not know this log" in states(agent)[0]["fault"], seconds=60)
    folder = export(agent, "too-early")
    assert {"witness_ahead", "witness_missing"} == codes(check(agent, folder, "--key", old, "--witness", witness.vkey))
    witness.trust(key_of(agent))
    caught_up(agent)
    next_second()
    since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    agent.register("/agent/last", "unix:uid:12346")
    caught_up(agent)
    found = check(agent, export(agent, "told"), "--key", old, "--witness", witness.vkey)
    assert ({"witness_ahead"}, 2) == (codes(found), len(found["witnesses"]))
    found = check(agent, export(agent, "since", "--since", since), "--witness", witness.vkey)
    assert ([], 1) == (found["faults"], len(found["witnesses"]))
    assert "witness_conflict" not in witness.said


def test_a_database_of_before_the_first_checkpoint(
    agent: AgentProcess, witness: WitnessProcess, go_client: Path
) -> None:
    """Of a log of which the database has nothing any more the witness knows what is lost, as both verifiers say."""
    caught_up(agent)
    old = key_of(agent)
    agent.stop()
    with closing(sqlite3.connect(agent.data_dir / "sojourn.db")) as database:
        database.execute("update audit_logs set size = 0, checkpoint = ''")
        database.execute("delete from audit_tiles")
        database.commit()
    agent.start()
    witness.trust(key_of(agent))
    caught_up(agent)
    folder = export(agent, "out")
    found = check(agent, folder, "--key", old, "--witness", witness.vkey)
    assert ({"witness_ahead"}, 2) == (codes(found), len(found["witnesses"]))
    assert not by_go(go_client, folder, old, key_of(agent), witnesses=[witness.vkey])["good"]
    assert by_go(go_client, folder, old, key_of(agent))["good"]


def test_sinks_have_what_was_cosigned(witness: WitnessProcess) -> None:
    """A receiver of the journal gets with each checkpoint the last one that was cosigned, and its check takes that."""
    with SinkPlace() as place:
        sink = f'\n[[audit.sinks]]\nname = "siem"\nkind = "https"\nurl = "{place.url}"\nstart = "beginning"\n'
        agent = witnessed_agent(witness, more=sink)
        try:
            caught_up(agent)
            agent.register("/agent/later", "unix:uid:12345")
            until(lambda: [each for each in place.of("checkpoint") if "cosigned" in each])
            [note] = [each for each in place.of("checkpoint") if "cosigned" in each][-1]["cosigned"]
            assert Note.parse(note.encode()).cosigned_at(VerifierKey.parse_cosigner(witness.vkey)) is not None
            received = agent.folder / "received.ndjson"
            received.write_text(
                "".join(json.dumps(each, separators=(",", ":"), sort_keys=True) + "\n" for each in place.taken)
            )
            assert agent.json("audit", "check", "--received", str(received), "--key", key_of(agent))["good"]
        finally:
            agent.__exit__()


def _private(path: Path) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def test_two_verifiers_agree(agent: AgentProcess, witness: WitnessProcess, go_client: Path, tmp_path: Path) -> None:
    """Both verifiers say of a folder what a witness vouches for, and find each change, also by who has the log's key."""
    with load(agent):
        until(lambda: agent.json("audit", "key")["size"] > 300, seconds=60)
    caught_up(agent)
    agent.register("/agent/later", "unix:uid:12345")
    key, folder = key_of(agent), export(agent, "out")
    ours, theirs = (
        by_python(folder, key, witnesses=[witness.vkey]),
        by_go(go_client, folder, key, witnesses=[witness.vkey]),
    )
    assert ours is not None
    assert ([], True) == (ours.faults.found, theirs["good"])
    assert [each.size for each in ours.witnessed] == theirs["vouched"]
    [file] = folder.glob("logs/*/cosigned-*")
    log_id, note = file.parent.name, Note.parse(file.read_bytes())
    head = Checkpoint.parse(note.text)
    name = f"logs/{log_id}/{file.name}"
    by_log, by_witness = (
        Signer(head.origin, _private(agent.data_dir / "keys" / "audit.key")),
        _private(witness.folder / "witness.key"),
    )

    def cosigned(text: str) -> str:
        return str(Note(text, (Signer(witness.name, by_witness).cosign(text, int(time.time())),)))

    changes = {
        "gone": None,
        "a fork": cosigned(Checkpoint(head.origin, head.size, b"7" * 32).text),
        "more": cosigned(Checkpoint(head.origin, head.size + 1_000, head.root).text),
        "another log": cosigned(Checkpoint(f"{head.origin}0", head.size, head.root).text),
        "a byte": file.read_text().replace("=\n", "A=\n")[:-3] + "\n",
        "no signature of it": str(Note(note.text, note.lines[:2])),
        "rubbish": "rubbish",
    }
    for what, content in changes.items():
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        (copy / name).unlink() if content is None else (copy / name).write_text(content)
        tampering.signed_anew(copy, by_log)
        ours, theirs = (
            by_python(copy, key, witnesses=[witness.vkey]),
            by_go(go_client, copy, key, witnesses=[witness.vkey]),
        )
        assert ours is not None
        assert (False, False) == (ours.good, theirs["good"]), what
        ours, theirs = by_python(copy, key), by_go(go_client, copy, key)
        assert ours is not None
        assert (True, True) == (ours.good, theirs["good"]), what
        shutil.rmtree(copy)
    for number, (what, change) in enumerate(tampering.changes(ours.records, random.randrange(1 << 30), rotated=False)):
        if number % 5:
            continue
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        change(copy)
        ours, theirs = (
            by_python(copy, key, witnesses=[witness.vkey]),
            by_go(go_client, copy, key, witnesses=[witness.vkey]),
        )
        assert (False, False) == (ours is not None and ours.good, theirs["good"]), what
        shutil.rmtree(copy)
    agent.run("audit", "prove", "5", "--to", str(tmp_path / "five"))
    assert by_go(go_client, tmp_path / "five", key, witnesses=[witness.vkey])["good"]
    with WitnessProcess(name="witness.example/w2") as other:
        assert not by_go(go_client, tmp_path / "five", key, witnesses=[other.vkey])["good"]
        assert not by_go(go_client, folder, key, witnesses=[other.vkey])["good"]


@pytest.mark.full
@pytest.mark.forked
def test_kills_of_both(agent: AgentProcess, witness: WitnessProcess) -> None:
    """However often agent and witness are killed under load, what is cosigned is how the log begins, and nothing is forked."""
    key, cosigned = key_of(agent), witness.vkey
    for each in range(KILLS):
        with load(agent):
            time.sleep(random.uniform(0.2, 2.0))
            if each % 3:
                agent.stop(signal.SIGKILL)
            if each % 3 != 1:
                witness.stop(signal.SIGKILL)
        if each % 3 != 1:
            witness.start()
        if each % 3:
            agent.start()
        caught_up(agent)
        folder = export(agent, f"after-{each}")
        found = check(agent, folder, "--witness", cosigned, key=key)
        assert [] == found["faults"]
        assert not states(agent)[0]["forked"]
    assert "witness_conflict" not in witness.said
