"""A folder of entry files that the agent follows, on the real daemon."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.looking import until
from harness.raw import Admin
from sojourn._pb.spire.api.types import types_pb2 as types

pytestmark = [pytest.mark.full, pytest.mark.forked]

ME = f"unix:uid:{os.getuid()}"
FAILED_PRECONDITION = 9


@pytest.fixture
def own() -> Iterator[AgentProcess]:
    """An agent that follows the folder `entries` beside its configuration, which has the entry /followed."""
    agent = AgentProcess(config='[registration]\nfollow = "entries"\n')
    folder_of(agent).mkdir()
    put(agent, "base.yaml", "/followed", "unix:uid:62001")
    with agent:
        yield agent


def folder_of(agent: AgentProcess) -> Path:
    return agent.folder / "entries"


def put(agent: AgentProcess, name: str, path: str, *selectors: str, **fields: Any) -> None:
    """Put a file with one entry into the folder, as one should: written elsewhere, and moved there."""
    document = {"spiffe_id": f"spiffe://example.org{path}", "selectors": list(selectors), **fields}
    written = agent.folder / f".{name}"
    written.write_text(json.dumps({"entries": [document]}))
    os.replace(written, folder_of(agent) / name)


def found(agent: AgentProcess) -> dict[str, dict[str, Any]]:
    entries = agent.json("entry", "list")["entries"]
    return {each["spiffe_id"].removeprefix("spiffe://example.org"): each for each in entries}


def state(agent: AgentProcess) -> dict[str, Any]:
    followed: dict[str, Any] = agent.json("status")["followed"]
    return followed


def becomes(agent: AgentProcess, *paths: str) -> None:
    until(lambda: set(paths) == set(found(agent)), f"the entries are {paths}")


def test_from_the_start(own: AgentProcess) -> None:
    """What the folder says is in force when the agent is ready, and each entry shows where it comes from."""
    followed = found(own)["/followed"]
    assert str(folder_of(own)) == followed["origin"]
    assert str(folder_of(own)) in own.run("entry", "list").stdout
    assert f"origin                {folder_of(own)}" in own.run("entry", "show", followed["id"]).stdout
    shown = state(own)
    assert (str(folder_of(own)), 1, "") == (shown["folder"], shown["entries"], shown["fault"])
    assert f"{folder_of(own)}: 1 entries, as of 2" in own.run("status").stdout


def test_a_change_reaches_an_open_stream(own: AgentProcess) -> None:
    """A file that is added, changed and removed changes what a process with an open stream has."""
    put(own, "me.json", "/mine", ME)
    becomes(own, "/followed", "/mine")
    with Caller(own.socket) as caller:
        caller.tell("watch")
        assert ["spiffe://example.org/mine"] == [each["spiffe_id"] for each in caller.hear("update")["svids"]]
        put(own, "me.json", "/other", ME, priority=2)
        assert ["spiffe://example.org/other"] == [each["spiffe_id"] for each in caller.hear("update")["svids"]]
        assert 2 == found(own)["/other"]["priority"]
        (folder_of(own) / "me.json").unlink()
        assert "no_identity" == caller.hear("watch_error")["code"]
    assert {"/followed"} == set(found(own))


def test_others_stay(own: AgentProcess) -> None:
    """Entries that were made by hand stay, whatever the folder says; `apply --prune` leaves the folder's."""
    own.register("/by-hand", "unix:uid:62002")
    put(own, "more.json", "/more", "unix:uid:62003")
    becomes(own, "/followed", "/by-hand", "/more")
    (folder_of(own) / "more.json").unlink()
    becomes(own, "/followed", "/by-hand")
    applied = own.folder / "applied.yaml"
    applied.write_text("entries: []")
    assert 1 == len(own.json("entry", "apply", "-f", str(applied), "--prune")["steps"])
    assert {"/followed"} == set(found(own))


def test_changed_by_hand(own: AgentProcess) -> None:
    """An entry of the folder is refused to whoever would change it elsewhere, with the folder's name, and stays."""
    before = found(own)["/followed"]
    for command in (["update", before["id"], "--hint", "x"], ["delete", before["id"]]):
        done = own.run("entry", *command, check=False)
        assert 1 == done.returncode
        assert f'comes from the followed folder "{folder_of(own)}"' in done.stdout + done.stderr
    with Admin(own.admin_socket) as admin:
        [updated] = admin.update(types.Entry(id=before["id"], hint="x"), mask=types.EntryMask(hint=True))
        mine, theirs = admin.delete(before["id"], admin.register("/other", "unix:uid:62004").id)
    assert [FAILED_PRECONDITION, FAILED_PRECONDITION, 0] == [each.status.code for each in (updated, mine, theirs)]
    exported = own.folder / "all.yaml"
    exported.write_text(own.run("entry", "export").stdout)
    assert [] == own.json("entry", "apply", "-f", str(exported))["steps"]
    exported.write_text(exported.read_text() + "  hint: x\n")
    assert "[failed_precondition]" in own.run("entry", "apply", "-f", str(exported), check=False).stderr
    assert {"/followed": before} == found(own)


def _garbled(agent: AgentProcess) -> None:
    (folder_of(agent) / "bad.yaml").write_text("{")


def _wrong(agent: AgentProcess) -> None:
    put(agent, "bad.yaml", "/bad", "unix:uid:1", x509_svid_ttl="3s")


def _in_the_way(agent: AgentProcess) -> None:
    put(agent, "bad.yaml", "/by-hand", "unix:uid:62002")


def _writable(agent: AgentProcess) -> None:
    put(agent, "bad.yaml", "/bad", "unix:uid:1")
    os.chmod(folder_of(agent) / "bad.yaml", 0o666)


def _of_another_user(agent: AgentProcess) -> None:
    put(agent, "bad.yaml", "/bad", "unix:uid:1")
    os.chown(folder_of(agent) / "bad.yaml", 62009, 62009)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_garbled, "bad.yaml: neither YAML nor JSON"),
        (_wrong, "bad.yaml: entry 1 (spiffe://example.org/bad): x509_svid_ttl is 3 s"),
        (_in_the_way, "which was made by hand"),
        (_writable, "bad.yaml: can be written by others"),
        pytest.param(_of_another_user, "bad.yaml: belongs to user 62009", marks=pytest.mark.root),
    ],
)
def test_an_invalid_set(own: AgentProcess, spoil: Callable[[AgentProcess], None], says: str) -> None:
    """A set with a fault changes nothing, and is told in status, log and audit; once mended it is in force."""
    own.register("/by-hand", "unix:uid:62002")
    put(own, "good.yaml", "/good", "unix:uid:62005")
    becomes(own, "/followed", "/by-hand", "/good")
    spoil(own)
    until(lambda: says in state(own)["fault"], "the fault is shown")
    (folder_of(own) / "base.yaml").unlink()
    assert {"/followed", "/by-hand", "/good"} == set(found(own))
    status = own.json("status")
    [failure] = [each for each in status["failures"] if each["what"] == "followed_folder_refused"]
    assert (f"folder {folder_of(own)}", True) == (failure["subject"], says in failure["reason"])
    assert "NOT in force" in own.run("status").stdout
    assert any(line["event"] == "followed_folder_refused" for line in own.log_lines())
    assert "followed_folder_refused" in own.run("audit", "tail").stdout
    (folder_of(own) / "bad.yaml").unlink()
    becomes(own, "/by-hand", "/good")
    assert "" == state(own)["fault"]


def test_a_restart(own: AgentProcess) -> None:
    """Where entries come from outlives the agent: what left the folder meanwhile goes, what came is there, IDs stay."""
    own.register("/by-hand", "unix:uid:62002")
    put(own, "gone.yaml", "/gone", "unix:uid:62006")
    becomes(own, "/followed", "/by-hand", "/gone")
    before = found(own)
    own.kill()
    (folder_of(own) / "gone.yaml").unlink()
    put(own, "new.yaml", "/new", "unix:uid:62007")
    own.start()
    after = found(own)
    assert {"/followed", "/by-hand", "/new"} == set(after)
    assert (before["/followed"], before["/by-hand"]) == (after["/followed"], after["/by-hand"])


def test_a_start_without_the_folder(own: AgentProcess) -> None:
    """An agent whose folder is gone starts on what it had, and says so."""
    own.stop()
    shutil.rmtree(folder_of(own))
    own.start()
    assert {"/followed"} == set(found(own))
    shown = state(own)
    assert (None, True) == (shown["applied_at"], "cannot be read" in shown["fault"])
    folder_of(own).mkdir()
    becomes(own)


def test_following_no_more(own: AgentProcess) -> None:
    """An agent that follows no folder any more keeps the entries, shows their origin, and lets them be changed."""
    own.stop()
    own.config.write_text("")
    own.start()
    left = found(own)["/followed"]
    assert (str(folder_of(own)), None) == (left["origin"], state(own))
    own.run("entry", "delete", left["id"])
    assert {} == found(own)


def test_by_flag(own: AgentProcess) -> None:
    """`--follow` wins over the configuration."""
    own.stop()
    second = own.folder / "second"
    shutil.copytree(folder_of(own), second)
    own.start("--follow", str(second))
    assert (str(second), str(second)) == (state(own)["folder"], found(own)["/followed"]["origin"])


def test_many_files(own: AgentProcess) -> None:
    """Many files that come one after another are all in force in the end, and none is lost or half there."""
    for number in range(200):
        put(own, f"n{number:03}.json", f"/n/{number}", f"unix:uid:{63000 + number}")
    becomes(own, "/followed", *(f"/n/{number}" for number in range(200)))
    shown = state(own)
    assert (201, "") == (shown["entries"], shown["fault"])
