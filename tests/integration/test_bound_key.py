"""Nodes whose names are bound to keys, on a real server: without a second token, and found out where they are copied."""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import COMMAND, AgentProcess, clean_environment
from harness.looking import until
from harness.nodes import has_entry, node_config
from harness.servers import ServerProcess
from sojourn.cli.output import moment

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]
DOMAIN = "spire.example"
WAIT = 90.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose nodes attest anew every few seconds."""
    with ServerProcess(tmp_path / "server", node_svid_ttl="20s") as running:
        yield running


def bound_token(server: ServerProcess, name: str) -> dict[str, Any]:
    made: dict[str, Any] = server.json("token", "generate", "--node", name, "--bound")
    return made


def bound(server: ServerProcess, folder: Path, name: str) -> AgentProcess:
    """A node that joins by a token which binds its key to this name."""
    folder.mkdir()
    agent = AgentProcess(config=node_config(server, folder, attestor='"bound_key"'), folder=folder)
    (folder / "token").write_text(bound_token(server, name)["token"])
    return agent


def copied(agent: AgentProcess, folder: Path) -> AgentProcess:
    """Another machine with a copy of the data folder, the configuration and the token."""
    folder.mkdir()
    text = agent.config.read_text().replace(str(agent.folder), str(folder))
    other = AgentProcess(config=text, folder=folder)
    for each in ("bundle.pem", "token"):
        shutil.copy2(agent.folder / each, folder / each)
    shutil.copytree(agent.data_dir, other.data_dir, dirs_exist_ok=True)
    return other


def node_id(name: str) -> str:
    return f"spiffe://{DOMAIN}/spire/agent/sojourn/{name}"


def joins(server: ServerProcess) -> list[int]:
    return [each["joins"] for each in server.events("node_joined")]


class TestWithoutAnotherToken:
    def test_it_goes_on(self, server: ServerProcess, tmp_path: Path) -> None:
        """A node attests anew by its key as often as it has to, over restarts, and after its SVID has ended."""
        entry = server.register("/web", node="web")
        with bound(server, tmp_path / "node", "web") as agent:
            assert node_id("web") == agent.json("status")["node_id"]
            has_entry(agent, entry)
            until(lambda: len(joins(server)) >= 3, "it attests anew", WAIT)
            agent.stop(signal.SIGKILL)
            (tmp_path / "node" / "token").unlink()
            ends = server.json("agent", "show", "web")["svid_until"]
            until(lambda: server.json("agent", "show", "web")["svid_until"] < _now(), "its SVID has ended", WAIT)
            assert ends == server.json("agent", "show", "web")["svid_until"]
            before = len(joins(server))
            agent.start()
            until(lambda: len(joins(server)) > before, "it joins once more", WAIT)
            found = until(lambda: agent.json("svid", "x509")["svids"], "it has its SVID", WAIT)
            assert [f"spiffe://{DOMAIN}/web"] == [each["spiffe_id"] for each in found]
        assert joins(server) == list(range(1, len(joins(server)) + 1))
        shown = server.json("agent", "show", "web")
        assert ("bound_key", True, False) == (shown["attestor"], shown["can_reattest"], shown["locked"])
        assert [] == server.events("node_locked")

    def test_by_one_text(self, server: ServerProcess, tmp_path: Path) -> None:
        """The one text of a token says how it is good, and what is left behind joins again by itself."""
        (tmp_path / "node").mkdir()
        files = ["--config", str(tmp_path / "node" / "agent.toml"), "--data-dir", str(tmp_path / "node" / "data")]
        done = subprocess.run(
            [*COMMAND, "agent", "join", "-", "--server", server.address, *files],
            input=bound_token(server, "by-text")["join"],
            capture_output=True, text=True, timeout=60, env=clean_environment(),
        )  # fmt: skip
        assert 0 == done.returncode, done.stderr
        assert "another join token is needed" not in done.stdout
        assert 'attestor = "bound_key"' in (tmp_path / "node" / "agent.toml").read_text()
        agent = AgentProcess(folder=tmp_path / "node")
        agent.config = tmp_path / "node" / "agent.toml"
        with agent:
            until(lambda: len(joins(server)) >= 2, "it attests anew", WAIT)
            assert node_id("by-text") == agent.json("status")["node_id"]

    def test_a_server_that_is_killed(self, server: ServerProcess, tmp_path: Path) -> None:
        """Whenever the server is killed, what it has said of a node's stamp is so, or the node shows both."""
        with bound(server, tmp_path / "node", "web"):
            for _ in range(3):
                before = joins(server)[-1]
                until(lambda before=before: joins(server)[-1] > before, "it attests anew", WAIT)  # type: ignore[misc]
                server.stop(signal.SIGKILL)
                server.start()
            before = joins(server)[-1]
            until(lambda: joins(server)[-1] > before, "it attests anew", WAIT)
        assert [] == server.events("node_locked")


class TestACopy:
    def test_it_locks_the_node(self, server: ServerProcess, tmp_path: Path) -> None:
        """Of a copied data folder neither the copy nor the original is anything once both have attested anew, and a
        token has one of them be the node again, with a key that the other has not.
        """
        entry = server.register("/web", node="web")
        with bound(server, tmp_path / "one", "web") as agent:
            agent.stop()
            copy = copied(agent, tmp_path / "two")
            agent.start()
            with copy:
                until(lambda: server.events("node_locked"), "the copy is found", WAIT)
                shown = server.json("agent", "show", "web")
                assert (True, "") == (shown["locked"], shown["serial"].strip("0"))
                assert re.search(r"web\s+bound_key\s+locked", server.ours("agent", "list").stdout)
                for each in (agent, copy):
                    until(
                        lambda each=each: "locked" in each.run("status").stdout,  # type: ignore[misc]
                        "the agent says why it is no node", WAIT,
                    )  # fmt: skip
                count = len(joins(server))
                copy.stop()
                agent.stop()
                (tmp_path / "one" / "token").write_text(bound_token(server, "web")["token"])
                agent.start()
                until(lambda: len(joins(server)) > count, "it joins by the token", WAIT)
                has_entry(agent, entry)
                until(lambda: len(joins(server)) > count + 1, "it attests anew", WAIT)
                denied = len(server.events("node_not_joined"))
                copy.start()
                until(lambda: len(server.events("node_not_joined")) > denied, "the copy is refused", WAIT)
                assert not server.json("agent", "show", "web")["locked"]
                until(lambda: agent.json("svid", "x509")["svids"], "the original goes on", WAIT)


class TestWhatOperatorsDo:
    def test_tokens(self, server: ServerProcess, tmp_path: Path) -> None:
        """A name that is bound has no tokens without a key, until the node is evicted; then its key is good no more."""
        with bound(server, tmp_path / "node", "web") as agent:
            done = server.ours("token", "generate", "--node", "web", check=False)
            assert (1, True) == (done.returncode, "--bound" in done.stderr), done.stderr
            server.ours("agent", "evict", "web")
            until(lambda: server.events("node_not_joined"), "its key is nobody's", WAIT)
            assert server.token("web")
            until(lambda: "no node is bound to this key" in agent.run("status").stdout, "it says why", WAIT)

    def test_ban_and_unban(self, server: ServerProcess, tmp_path: Path) -> None:
        """A banned node joins no more, and by its key again once that is lifted."""
        with bound(server, tmp_path / "node", "web"):
            server.ours("agent", "ban", "web")
            until(lambda: server.events("node_not_joined") or _banned(server), "it is banned", WAIT)
            before = len(joins(server))
            server.ours("agent", "unban", "web")
            # What is banned asks seldom: a start asks at once.
        agent = AgentProcess(config=(tmp_path / "node" / "agent.toml").read_text(), folder=tmp_path / "node")
        with agent:
            until(lambda: len(joins(server)) > before, "it joins again", WAIT)
            assert node_id("web") == agent.json("status")["node_id"]

    def test_what_a_server_is_not_asked_for(self, server: ServerProcess) -> None:
        """SPIRE's command makes no token that looks like one which binds a key."""
        done = server.run("token", "generate", "-spiffeID", f"spiffe://{DOMAIN}/alias")
        assert "bound." not in done.stdout


def _banned(server: ServerProcess) -> bool:
    return bool(server.json("agent", "show", "web")["banned"])


def _now() -> str:
    return str(moment(int(time.time())))
