"""Entries declared in files, on the real daemon."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.raw import Admin, entry

FILE = """
entries:
  - spiffe_id: spiffe://example.org/declared/web
    selectors: ["unix:uid:61001"]
    x509_svid_ttl: 30m
    hint: web
  - spiffe_id: spiffe://example.org/declared/db
    selectors: [{type: unix, value: "uid:61002"}]
"""


@pytest.fixture
def own() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        yield running


def paths(agent: AgentProcess) -> set[str]:
    return {each["spiffe_id"].removeprefix("spiffe://example.org") for each in agent.json("entry", "list")["entries"]}


def test_a_folder(own: AgentProcess, tmp_path: Path) -> None:
    """A folder is applied as one, again without any change, and with --prune what is not in it goes."""
    (tmp_path / "a.yaml").write_text(FILE)
    (tmp_path / "b.json").write_text(
        json.dumps({"entries": [{"spiffe_id": "spiffe://example.org/x", "selectors": ["a:b"]}]})
    )
    (tmp_path / "notes.txt").write_text("not ours")
    own.register("/by-hand", "unix:uid:61009")
    shown = own.json("entry", "apply", "-f", str(tmp_path), "--dry-run")
    assert (["create"] * 3, {"/by-hand"}) == ([step["action"] for step in shown["steps"]], paths(own))
    own.json("entry", "apply", "-f", str(tmp_path))
    assert {"/by-hand", "/declared/web", "/declared/db", "/x"} == paths(own)
    again = own.json("entry", "apply", "-f", str(tmp_path))
    assert ([], 3) == (again["steps"], again["unchanged"])
    pruned = own.run("entry", "apply", "-f", str(tmp_path), "--prune").stdout
    assert "- spiffe://example.org/by-hand unix:uid:61009" in pruned
    assert "/by-hand" not in paths(own)


def test_all_or_nothing(own: AgentProcess, tmp_path: Path) -> None:
    """One wrong entry stops all, and every fault is told with its file and place, in the command or by the agent."""
    path = tmp_path / "a.yaml"
    path.write_text(FILE + "  - {spiffe_id: nonsense, selectors: [x]}\n  - {spiffe: 1}\n")
    done = own.run("entry", "apply", "-f", str(path), check=False)
    assert 2 == done.returncode
    assert f"{path}: entry 3: " in done.stderr
    assert f"{path}: entry 4: unknown key 'spiffe'" in done.stderr
    path.write_text(FILE.replace("30m", "3s"))
    done = own.run("entry", "apply", "-f", str(path), check=False)
    assert 1 == done.returncode
    assert "entry 1 (spiffe://example.org/declared/web): x509_svid_ttl is 3 s" in done.stderr
    assert set() == paths(own)


@pytest.mark.parametrize(
    "text", ["{", "a: b: c", "- 1", "entries: 5", "entries: []\nmore: 1", "\x00", "!!python/object:os.x {}"]
)
def test_no_entries(own: AgentProcess, tmp_path: Path, text: str) -> None:
    """A file that does not hold entries is refused with its name and no traceback."""
    path = tmp_path / "a.yaml"
    path.write_text(text)
    done = own.run("entry", "apply", "-f", str(path), check=False)
    assert 2 == done.returncode
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("output", [[], ["--output", "json"]])
def test_export(own: AgentProcess, tmp_path: Path, output: list[str]) -> None:
    """What `export` prints is what `apply` takes: applying it changes nothing."""
    own.register("/one", f"unix:uid:{os.getuid()}", hint="h", x509_svid_ttl="45s", dns_name="a.example.org")
    own.register("/two", "unix:uid:5", entry_expiry="4102444800", priority="-3")
    with Admin(own.admin_socket) as admin:
        admin.trust("friend.example")
        full = entry("/three", "unix:uid:6", admin=True, downstream=True, store_svid=True)
        full.federates_with.append("friend.example")
        full.additional_attributes.jwt_svid_include_jti = True
        admin.create(full)
    path = tmp_path / "all.yaml"
    path.write_text(own.run("entry", "export", *output).stdout)
    applied = own.json("entry", "apply", "-f", str(path), "--prune")
    assert ([], 3) == (applied["steps"], applied["unchanged"])


def test_an_export_for_another_agent(own: AgentProcess, tmp_path: Path) -> None:
    """What `export` prints makes the same entries on an agent that has none of them."""
    own.register("/one", "unix:uid:5", hint="h", x509_svid_ttl="45s", priority="9")
    path = tmp_path / "all.yaml"
    path.write_text(own.run("entry", "export").stdout)
    [before] = own.json("entry", "list")["entries"]
    own.run("entry", "delete", before["id"])
    own.json("entry", "apply", "-f", str(path))
    [after] = own.json("entry", "list")["entries"]
    assert before == {**after, "created_at": before["created_at"]}


def test_spires_data(own: AgentProcess, tmp_path: Path) -> None:
    """A file as `spire-server entry create -data` takes it is taken, indented with tabs as it may be."""
    path = tmp_path / "data.json"
    data = {
        "entries": [
            {
                "selectors": [{"type": "unix", "value": "uid:61003"}],
                "spiffe_id": "spiffe://example.org/spires",
                "parent_id": "spiffe://example.org/spire/agent/elsewhere",
                "x509_svid_ttl": 120,
                "dns_names": ["a.example"],
                "entryExpiry": 4102444800,
                "additional_attributes": {"disable_x509_svid_prefetch": True},
            }
        ]
    }
    path.write_text(json.dumps(data, indent="\t"))
    own.json("entry", "apply", "-f", str(path))
    [found] = own.json("entry", "list")["entries"]
    assert ("spiffe://example.org/spire/agent/elsewhere", 120, "2100-01-01T00:00:00Z", True) == (
        found["parent_id"],
        found["x509_svid_ttl"],
        found["expires_at"],
        found["additional_attributes"]["disable_x509_svid_prefetch"],
    )
