"""The signed journal of a real agent, as a stranger has it: an export, a key, and two verifiers that know nothing else."""

import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import tampering
from harness.agent import AgentProcess
from harness.auditing import by_go, by_python, check, checkpoint, codes, export, key_of, load
from harness.backups import back_up, command
from harness.disks import full, small_disk
from harness.looking import until
from harness.taskagent import PRINTER, TRIAGE, make_agent, write_type
from sojourn import SyncClient
from sojourn.errors import SojournError

KILLS = 8
LETTER = f"""
allowed_workloads = ["{TRIAGE}"]
[params]
to = {{type = "string", in_journal = false}}
pages = "long"
[[ceiling]]
resource = "{PRINTER}"
actions = ["page:print"]
"""
PERMIT_ALL = '@id("all") permit (principal, action, resource);'


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with make_agent() as made:
        made.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield made


@pytest.mark.forked
def test_decisions_are_made_again(agent: AgentProcess) -> None:
    """What each decision was made on stands in the records: of beginnings, tokens and refusals, over a restart, and of a
    type that was changed meanwhile; what a type keeps out of the journal is in no file of the folder.
    """
    write_type(agent.folder / "types", "letter", LETTER, PERMIT_ALL)
    agent.run("policy", "reload")
    with SyncClient(f"unix://{agent.socket}") as client:
        with client.task("print-pages", params={"pages": "3", "colour": "true"}) as printing:
            printing.token(PRINTER, ["page:print"])
            with pytest.raises(SojournError):
                printing.token(PRINTER, ["toner:replace"])
        with pytest.raises(SojournError), client.task("print-pages", params={"pages": "11"}):
            pass
        with client.task("letter", params={"to": "somebody-else", "pages": "3"}) as letter:
            letter.token()
            agent.stop()
            agent.start()
            write_type(
                agent.folder / "types", "letter", LETTER.replace('pages = "long"', 'pages = "string"'), PERMIT_ALL
            )
            agent.run("policy", "reload")
            until(letter.token)
    folder = export(agent, "out")
    lines = [json.loads(each) for each in (folder / "records.ndjson").read_text().splitlines()]
    decided = [each["event"] for each in lines if "inputs" in each["fields"]]
    assert {"task_begun", "begin_denied", "token_issued"} <= set(decided)
    assert [{"3", 3}] == [{each["fields"]["params"]["pages"] for each in lines if _has_pages(each)}]
    found = check(agent, folder)
    assert [] == found["faults"]
    assert {"replayed": len(decided), "not_replayed": {}} == found["decisions"]
    named = {each["fields"]["policy_set"] for each in lines if "inputs" in each["fields"]}
    assert (2, []) == (len(named), found["policy_sets"]["missing"])
    for each in named:
        files = json.loads((folder / "policy-sets" / each).read_text())
        assert (folder / "policy-texts" / files["letter.cedar"]).read_text() == PERMIT_ALL
    changed = folder / "policy-texts" / files["letter.toml"]
    changed.write_text(f"{changed.read_text()}#")
    assert {"file_changed", "policy_set_wrong"} == codes(check(agent, folder))
    changed.write_text(changed.read_text().removesuffix("#"))
    assert (
        f"decisions replayed: {len(decided)}\n"
        in agent.run("audit", "check", str(folder), "--key", key_of(agent)).stdout
    )
    assert not any(b"somebody-else" in each.read_bytes() for each in folder.rglob("*") if each.is_file())


def _has_pages(line: dict[str, Any]) -> bool:
    return line["fields"].get("type") == "letter" and "pages" in line["fields"].get("params", {})


def test_a_stranger_checks(agent: AgentProcess, tmp_path: Path) -> None:
    """Whoever has the folder and the key knows without an agent that all is as it was signed, and what was changed."""
    key, folder = key_of(agent), export(agent, "out")
    agent.run("audit", "prove", "1", "--to", str(agent.folder / "one.tlog-proof"))
    agent.stop()
    found = check(agent, folder, key=key)
    assert (found["good"], found["first_seq"], found["faults"]) == (True, 1, [])
    assert set(found) == {
        *("path", "good", "records", "first_bad_seq", "faults", "faults_left_out", "first_seq", "last_seq"),
        *("pruned_until", "logs", "decisions", "policy_sets"),
    }
    proof = check(agent, agent.folder / "one.tlog-proof", key=key)
    assert (proof["good"], proof["record"]["event"]) == (True, "audit_log_begun")
    tampering.byte_of_record(1, 60, 1)(folder)
    found = check(agent, folder, key=key)
    assert (found["good"], found["first_bad_seq"]) == (False, 2)
    done = agent.run("audit", "check", str(folder), "--key", key, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "NOT good")


def test_what_is_refused(agent: AgentProcess) -> None:
    """A folder that is not empty takes no export, one with nothing in it passes no check, and neither does one without a key."""
    folder = export(agent, "out")
    again = agent.run("audit", "export", "--to", str(folder), check=False)
    assert (again.returncode, "already_exists" in again.stderr) == (1, True)
    (agent.folder / "empty").mkdir()
    none = agent.run("audit", "check", str(agent.folder / "empty"), "--key", key_of(agent), check=False)
    assert (none.returncode, "nothing to check" in none.stderr) == (1, True)
    assert agent.run("audit", "check", str(folder), check=False).returncode == 2
    bad = agent.run("audit", "check", str(folder), "--key", "x", check=False)
    assert (bad.returncode, "verifier key" in bad.stderr) == (2, True)
    (folder / "manifest.note").unlink()
    assert "manifest_not_signed" in codes(check(agent, folder))
    gone = agent.run("audit", "prove", "1000000", check=False)
    assert (gone.returncode, "not_found" in gone.stderr) == (1, True)
    written = agent.json("audit", "export", "--to", str(agent.folder / "two"), "--since", "1h")
    assert {"folder", "records", "files", "bytes"} == set(written)
    assert {"seq", "file"} == set(agent.json("audit", "prove", "2", "--to", str(agent.folder / "p")))


@pytest.mark.forked
def test_two_verifiers_agree(agent: AgentProcess, go_client: Path, tmp_path: Path) -> None:
    """Two verifiers, of which one is made of Go's and Trillian's libraries, find the same folder good, and each change bad."""
    with load(agent):
        until(lambda: agent.json("audit", "key")["size"] > 600, seconds=30)
    key = key_of(agent)
    older = checkpoint(export(agent, "early"))
    agent.run("audit", "rotate-key")
    folder = export(agent, "out")
    found = by_python(folder, key, after=older)
    assert found is not None
    assert ([], True) == (found.faults.found, by_go(go_client, folder, key, after=older)["good"])
    for name, change in tampering.changes(found.records, random.randrange(1 << 30)):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        change(copy)
        ours, theirs = by_python(copy, key, after=older), by_go(go_client, copy, key, after=older)
        assert (False, False) == (ours is not None and ours.good, theirs["good"]), name
        if ours is not None and name.split()[0] in {"drop", "twice", "chain", "swap", "truncate"}:
            assert ours.faults.first_bad_seq == theirs["first_bad_seq"], name
        shutil.rmtree(copy)
    agent.run("audit", "prove", "5", "--to", str(tmp_path / "five"))
    assert by_go(go_client, tmp_path / "five", key_of(agent))["good"]
    (tmp_path / "five").write_bytes((tmp_path / "five").read_bytes().replace(b"index 4", b"index 5"))
    assert not by_go(go_client, tmp_path / "five", key_of(agent))["good"]


def test_the_key_is_changed(agent: AgentProcess) -> None:
    """Whoever has the key of before goes on with it after a rotation; the new one stands in a record that both have signed."""
    key, older = key_of(agent), checkpoint(export(agent, "early"))
    agent.run("audit", "rotate-key")
    new = key_of(agent)
    agent.stop()
    agent.start()
    folder = export(agent, "late")
    assert (key != new, new) == (True, key_of(agent))
    for each in (key, new):
        assert check(agent, folder, key=each)["good"]
    assert check(agent, folder, "--after", str(older), key=key)["good"]


@pytest.mark.forked
def test_the_key_is_lost(agent: AgentProcess) -> None:
    """Without its key the agent starts with a new log, and the log, status, the journal and every check say so."""
    key, older = key_of(agent), checkpoint(export(agent, "early"))
    agent.stop()
    (agent.data_dir / "keys" / "audit.key").unlink()
    agent.start()
    until(lambda: agent.json("audit", "key")["size"] > 0)
    assert "audit_key_lost" in {each["what"] for each in agent.failures()}
    assert "a NEW LOG" in agent.run("status").stdout
    assert "audit_key_lost" in {each["event"] for each in agent.json("audit", "tail", "--lines", "50")["records"]}
    folder = export(agent, "late")
    assert "key_missing" in codes(check(agent, folder, key=key))
    assert "log_restarted" in codes(check(agent, folder, "--after", str(older), "--key", key))
    assert check(agent, folder, "--key", key)["good"]


@pytest.mark.forked
def test_an_older_database(agent: AgentProcess) -> None:
    """A database of the same run that is put back is noticed by the last checkpoint: a new log begins, and names that."""
    key = key_of(agent)
    with sqlite3.connect(agent.data_dir / "sojourn.db") as source, sqlite3.connect(agent.folder / "kept.db") as kept:
        source.backup(kept)
    agent.register("/agent/other", "unix:uid:12345")
    older = checkpoint(export(agent, "early"))
    agent.stop()
    for each in agent.data_dir.glob("sojourn.db-*"):
        each.unlink()
    shutil.copyfile(agent.folder / "kept.db", agent.data_dir / "sojourn.db")
    agent.start()
    until(lambda: agent.json("audit", "key")["size"] > 0)
    assert "checkpoint_ahead" == agent.json("audit", "key")["reason"]
    folder = export(agent, "late")
    assert {"key_missing"} <= codes(check(agent, folder, key=key))
    assert {"log_restarted"} == codes(check(agent, folder, "--key", key, "--after", str(older)))


@pytest.mark.forked
def test_a_backup_is_restored(agent: AgentProcess) -> None:
    """After a restore the log of before is over: a new one names it, and no checkpoint of before passes for its own."""
    backup = back_up(agent)
    agent.register("/agent/other", "unix:uid:12345")
    key, older = key_of(agent), checkpoint(export(agent, "early"))
    agent.stop()
    done = command(agent, "restore", str(backup), "--accept-loss")
    assert done.returncode == 0, done.stderr
    agent.start()
    until(lambda: agent.json("audit", "key")["size"] > 0)
    found = agent.json("audit", "key")
    assert ("database_restored", 1) == (found["reason"], len(found["earlier"]))
    assert "log_restarted" in codes(check(agent, export(agent, "late"), "--key", key, "--after", str(older)))


@pytest.mark.full
@pytest.mark.forked
def test_kills_at_any_moment(agent: AgentProcess) -> None:
    """However often the agent is killed under load, each export is good and begins with what was signed before."""
    key, older = key_of(agent), checkpoint(export(agent, "first"))
    for each in range(KILLS):
        with load(agent):
            time.sleep(random.uniform(0.2, 1.8))
            agent.stop(signal.SIGKILL)
        agent.start()
        folder = export(agent, f"after-{each}")
        found = check(agent, folder, "--after", str(older), key=key)
        assert [] == found["faults"]
        assert key == key_of(agent)
        older = checkpoint(folder)


@pytest.mark.full
@pytest.mark.forked
def test_a_full_disk() -> None:
    """On a full disk nothing is signed that is not kept, and once there is room the log goes on where it was."""
    made = AgentProcess()
    with small_disk(made, "8m"), made as agent:
        key, older = key_of(agent), checkpoint(export(agent, "early"))
        with full(agent.data_dir):
            done = agent.run(
                *("entry", "create", "--spiffe-id", "spiffe://example.org/x", "--selector", "unix:uid:1"), check=False
            )
            assert done.returncode == 1
            time.sleep(2)
        agent.register("/agent/later", "unix:uid:12345")
        until(lambda: agent.json("audit", "key")["unsigned"] == 0, seconds=20)
        folder = export(agent, "late")
        assert [] == check(agent, folder, "--after", str(older), key=key)["faults"]


def test_how_soon(agent: AgentProcess) -> None:
    """A record has a checkpoint within a second or so, and status and metrics tell of what is not signed yet."""
    before = agent.json("audit", "key")["size"]
    agent.register("/agent/other", "unix:uid:12345")
    until(lambda: agent.json("audit", "key")["size"] > before, seconds=3)
    until(lambda: agent.json("status")["audit_log"]["unsigned"] == 0, seconds=3)
    assert agent.json("status")["audit_log"]["fault"] == ""
    assert "signed journal" in agent.run("status").stdout
