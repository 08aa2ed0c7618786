"""Malformed files for the command line: our error with a stable code, nothing changed, the agent alive."""

import json
import os
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.malformed import admin_fixture, nothing_changes  # noqa: F401 - fixtures

pytestmark = pytest.mark.full

FILES: dict[str, bytes] = {
    "a bomb of aliases": b"a: &a [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n" % (c, c, *[c - 1] * 8) for c in b"bcdefghij")
    + b"entries: *j\n",
    "a list that holds itself": b"entries: &a [*a]\n",
    "a mapping that holds itself": b"entries: [&a {spiffe_id: *a, selectors: [x:y]}]\n",
    "a tag of Python": b"entries: !!python/object/apply:os.system ['true']\n",
    "a tag of ours": b"entries: !entries []\n",
    "an alias of nothing": b"entries: *nothing\n",
    "the same key twice": b"entries: []\nentries: [{spiffe_id: 'spiffe://example.org/x', selectors: ['a:b']}]\n",
    "the same key twice in an entry": (
        b"entries: [{spiffe_id: 'spiffe://example.org/x', spiffe_id: 'spiffe://example.org/y', selectors: ['a:b']}]\n"
    ),
    "the same key twice in JSON": (
        b'{"entries": [{"spiffe_id": "spiffe://example.org/x", "selectors": ["a:b"], "selectors": ["a:c"]}]}'
    ),
    "a mapping as a key": b"entries: [{{a: b}: c}]\n",
    "no UTF-8": b"entries: ['\xff\xfe']\n",
    "UTF-16": "entries: []".encode("utf-16"),
    "NUL": b"entries: [\0]\n",
    "a terminal's commands": b'entries: [{spiffe_id: "\\e]0;x\\a\\e[31m", selectors: [a]}]\n',
    "numbers": b"entries: [{spiffe_id: 1, selectors: ['a:b']}]\n",
    "a date": b"entries: [{spiffe_id: 2026-01-01, selectors: ['a:b']}]\n",
    "text for a list": b"entries: [{spiffe_id: 'spiffe://example.org/x', selectors: 'a:b'}]\n",
    "text for a truth": b"entries: [{spiffe_id: 'spiffe://example.org/x', selectors: ['a:b'], admin: 'yes'}]\n",
    "a number over all": b"entries: [{spiffe_id: 'spiffe://example.org/x', selectors: ['a:b'], expires_at: 9999999999999999999999}]\n",
    "a number of five thousand digits": b"entries: [{spiffe_id: 'spiffe://example.org/x', selectors: ['a:b'], expires_at: "
    + b"9" * 5_000
    + b"}]\n",
    "a duration that is none": b"entries: [{spiffe_id: 'spiffe://example.org/x', selectors: ['a:b'], x509_svid_ttl: .inf}]\n",
    "brackets without end": b"[" * 100_000,
    "braces without end": b'{"entries":' * 5_000,
    "lists without end": b"entries: " + b"- " * 20_000,
    "nothing but a scalar": b"entries",
    "a lone surrogate": b'{"entries": [{"spiffe_id": "spiffe://example.org/x", "selectors": ["a:\\ud800"]}]}',
    "a selector with NUL": b'{"entries": [{"spiffe_id": "spiffe://example.org/x", "selectors": ["a:b\\u0000"]}]}',
}


@pytest.mark.parametrize("name", FILES)
def test_files(agent: AgentProcess, tmp_path: Path, name: str) -> None:
    """A file of entries with one fault is refused whole, with its name, a stable code and no traceback."""
    path = tmp_path / "entries.yaml"
    path.write_bytes(FILES[name])
    done = agent.run("entry", "apply", "-f", str(path), "--output", "json", check=False, timeout=60)
    assert done.returncode in {1, 2}
    [line] = done.stderr.splitlines()
    told_ = json.loads(line)["error"]
    assert told_["code"] in {"invalid_config", "invalid_entry", "invalid_input"}
    assert str(path) in told_["message"]


def test_what_a_file_makes_a_terminal_do(agent: AgentProcess, tmp_path: Path) -> None:
    """What is wrong in a file is shown without anything that a terminal obeys."""
    path = tmp_path / "entries.yaml"
    path.write_bytes(FILES["a terminal's commands"].replace(b"selectors", b'"\\e[2J"'))
    done = agent.run("entry", "apply", "-f", str(path), check=False)
    assert "\x1b" not in done.stderr
    assert "error: " == done.stderr[:7]


def no_file(path: Path, kind: str) -> None:
    """Put something at `path` that is no regular file."""
    import socket

    match kind:
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(path))
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder"])
def test_what_is_no_file(agent: AgentProcess, tmp_path: Path, kind: str) -> None:
    """What is no regular file is not waited for; a folder without files holds no entries and prunes nothing by itself."""
    path = tmp_path / "entries.yaml"
    no_file(path, kind)
    if kind == "folder":
        (path / "in.yaml").symlink_to("/dev/zero")
    done = agent.run("entry", "apply", "-f", str(path), check=False)
    assert 2 == done.returncode
    assert "not a regular file" in done.stderr


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder"])
def test_what_is_no_configuration_and_no_bundle(agent: AgentProcess, tmp_path: Path, kind: str) -> None:
    """A configuration or a bundle that is no regular file is not waited for, and refused with its name."""
    path = tmp_path / "file"
    no_file(path, kind)
    for command in (["config", "show", "--config", str(path)], ["bundle", "set", "other.example", str(path)]):
        done = agent.run(*command, check=False, timeout=20)
        assert 2 == done.returncode, command
        assert str(path) in done.stderr
        assert "Traceback" not in done.stderr


def test_a_huge_file(agent: AgentProcess, tmp_path: Path) -> None:
    """A file over the size limit is not read."""
    path = tmp_path / "entries.yaml"
    with path.open("wb") as file:
        file.truncate(33 * 1024 * 1024)
    assert "not a regular file of at most" in agent.run("entry", "apply", "-f", str(path), check=False).stderr
