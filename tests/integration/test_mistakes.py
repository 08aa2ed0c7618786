"""Mistakes that people make in their first hour: each is said in a sentence, with a stable code and what to do."""

import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from harness.agent import COMMAND, AgentProcess, clean_environment
from sojourn.sdk.client.grpc_status import unreachable_sentence


def bare(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command, as somebody runs it who names the sockets by hand or not at all."""
    return subprocess.run(
        [*COMMAND, *arguments], env=clean_environment() | environment, capture_output=True, text=True, timeout=30
    )


def said(done: "subprocess.CompletedProcess[str]", status: int, code: str) -> str:
    """What an error says, code and cure taken off."""
    lines = done.stderr.splitlines()
    assert (status, "") == (done.returncode, done.stdout), done.stderr
    assert lines[0].startswith("error: ")
    assert lines[0].endswith(f"[{code}]"), done.stderr
    assert all(line.startswith("next:  ") for line in lines[1:])
    return done.stderr


class TestSockets:
    def test_the_admin_socket_for_a_workloads_call(self, shared: AgentProcess) -> None:
        """A workload's call on the admin socket: the answer says which socket is which."""
        text = said(bare("svid", "x509", "--socket", shared.admin_socket), 1, "refused")
        assert "an agent's public socket (--socket, SPIFFE_ENDPOINT_SOCKET)" in text

    def test_the_public_socket_for_an_operators_call(self, shared: AgentProcess) -> None:
        """An operator's call on the public socket: the answer says which socket is which."""
        text = said(bare("entry", "list", "--admin-socket", shared.socket), 1, "refused")
        assert "its admin socket (--admin-socket, SOJOURN_ADMIN_SOCKET)" in text

    def test_a_file_that_is_no_socket(self, tmp_path: Path) -> None:
        """A file in the place of the socket is told from a socket that nobody listens on."""
        path = tmp_path / "agent.sock"
        path.touch()
        assert "is not a socket: start the agent" in said(bare("svid", "x509", "--socket", str(path)), 3, "unreachable")

    def test_a_path_where_a_uri_belongs(self) -> None:
        """SPIFFE_ENDPOINT_SOCKET is a URI: a path there is refused with the URI that it would be."""
        text = said(bare("svid", "x509", SPIFFE_ENDPOINT_SOCKET="/run/my agent.sock"), 2, "invalid_input")
        assert "such as unix:///run/my%20agent.sock" in text

    @pytest.mark.forked
    def test_an_agent_that_is_stopped(self, shared: AgentProcess) -> None:
        """An agent that is there and answers nothing is told from one that is not there."""
        assert shared.process is not None
        shared.process.send_signal(signal.SIGSTOP)
        try:
            text = said(bare("status", "--admin-socket", shared.admin_socket), 3, "unreachable")
        finally:
            shared.process.send_signal(signal.SIGCONT)
        assert "is there, but nothing answered in time: its agent is stopped or very busy" in text

    def test_more_callers_than_there_is_room_for(self, tmp_path: Path) -> None:
        """A socket whose queue is full is there too; one that nobody listens on any more is not."""
        path = str(tmp_path / "agent.sock")
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
            listener.bind(path)
            listener.listen(0)
            waiting.connect(path)
            assert "nothing answered in time" in unreachable_sentence(path)
        assert f"nobody answers on the socket {path!r}: start the agent" in unreachable_sentence(path)


class TestSpelling:
    @pytest.mark.parametrize(
        ("arguments", "meant"),
        [
            (("entri", "list"), "'entry'"),
            (("entry", "lst"), "'list'"),
            (("entry", "list", "--ouput", "json"), "--output"),
            (("entry", "list", "--output", "yaml"), "'pretty', 'json'"),
            (("svid", "jwt"), "'--audience'"),
            (("explain", "--pid", "me"), "must be a whole number"),
        ],
    )
    def test_of_a_command_line(self, arguments: tuple[str, ...], meant: str) -> None:
        """A misspelled command, option or value is answered with what is meant, and whose help tells more."""
        text = said(bare(*arguments), 2, "usage")
        assert meant in text
        assert re.search(r"next:  see `sojourn .*--help`", text)

    def test_as_json(self) -> None:
        """Who asked for JSON has a wrong command line told in JSON too."""
        done = bare("svid", "jwt", "--output", "json")
        assert '{"error": {"code": "usage", "message": "missing option \'--audience\'"}}\n' == done.stderr

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ('trust_domian = "a.example"', ":1: trust_domian: unknown key: trust_domain is meant?"),
            ('[identity]\nx509_ttl = "1h"', ":2: identity.x509_ttl: unknown key: x509_svid_ttl is meant?"),
            ("[log]\nzzz = 1", ":2: log.zzz: unknown key; there are level"),
        ],
    )
    def test_of_a_key(self, tmp_path: Path, text: str, says: str) -> None:
        """A misspelled key of the configuration is answered with the one that is meant, or with those that there are."""
        file = tmp_path / "agent.toml"
        file.write_text(text)
        assert says in said(bare("config", "show", "--config", str(file)), 2, "invalid_config")

    @pytest.mark.parametrize(
        "arguments",
        [
            ("svid", "jwt", "--audience", "a", "--spiffe-id", "nonsense"),
            ("policy", "explain", "x", "--workload", "nonsense", "--action", "a", "--resource", "https://a.example"),
        ],
    )
    def test_of_a_spiffe_id(self, shared: AgentProcess, arguments: tuple[str, ...]) -> None:
        """What is no SPIFFE ID is shown with the option that it was given to."""
        text = said(shared.run(*arguments, check=False), 2, "invalid_spiffe_id")
        assert re.search(r"--(spiffe-id|workload): 'nonsense' is not a SPIFFE ID", text)


class TestSwitches:
    def test_a_workload_that_nobody_is(self, shared: AgentProcess) -> None:
        """Who switches off an identity that no entry has is told so: it is off, but perhaps misspelled."""
        shared.register("/switched", "unix:uid:4720")
        for name, warned in (("nobody-has-this", True), ("switched", False)):
            id_ = ("--spiffe-id", f"spiffe://example.org/{name}")
            done = shared.run("task", "block", *id_)
            assert f"switched off {id_[1]}; 0 tasks ended" in done.stdout
            assert warned is (f"warning: no entry names {id_[1]} now" in done.stderr)
            shared.run("task", "unblock", *id_)


class TestEntries:
    def test_one_that_is_not_there(self, shared: AgentProcess) -> None:
        """Deleting what is not there names it, as an error, and says how to see what is."""
        text = said(shared.run("entry", "delete", "no-such", check=False), 1, "not_found")
        assert "error: no-such: entry not found" in text
        assert "`sojourn entry list`" in text

    def test_one_that_is_there(self, shared: AgentProcess) -> None:
        """Registering the same again names the entry that is there."""
        made = shared.register("/twice", "unix:uid:4711")
        arguments = ("entry", "create", "--spiffe-id", made["spiffe_id"], "--selector", "unix:uid:4711")
        assert made["id"] in said(shared.run(*arguments, check=False), 1, "already_exists")

    def test_one_that_is_over(self, shared: AgentProcess) -> None:
        """An entry whose end has passed is registered, with a warning: most likely its time was meant as a span."""
        id_ = ("--spiffe-id", "spiffe://example.org/over")
        made = shared.run("entry", "create", *id_, "--selector", "unix:uid:4712", "--entry-expiry", "3600")
        assert "warning: it has expired already" in made.stderr
        later = str(int(time.time()) + 3600)
        made = shared.run("entry", "create", *id_, "--selector", "unix:uid:4713", "--entry-expiry", later)
        assert "" == made.stderr

    def test_a_folder_without_any(self, shared: AgentProcess, tmp_path: Path) -> None:
        """A folder with no file of entries is refused, and `--prune` of the wrong folder deletes nothing."""
        (tmp_path / "entries.yml.bak").write_text("entries: []")
        before = shared.json("entry", "count")
        text = said(shared.run("entry", "apply", "-f", str(tmp_path), "--prune", check=False), 2, "invalid_input")
        assert ".yaml, .yml or .json" in text
        assert before == shared.json("entry", "count")


def test_a_fact_that_nobody_reads(shared: AgentProcess) -> None:
    """A fact that no task type reads is taken, with a warning: its name is most likely misspelled."""
    assert "warning: no task type reads 'nosuch'" in shared.run("fact", "set", "nosuch", "true").stderr
