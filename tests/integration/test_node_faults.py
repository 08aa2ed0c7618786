"""A node of a real spire-server in bad weather: a server that hangs or has lost its keys, clocks that are wrong, a disk
that is full, restarts of either and of both; what goes on, and how soon all is well again.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import nodes
from harness.agent import AgentProcess
from harness.clocks import SteppedAgent
from harness.disks import full, small_disk
from harness.federating import SpireServer
from harness.looking import until
from harness.raw import Wire, refusal
from harness.spirecli import binary
from sojourn.limits import UPSTREAM_POLL_MAX_SECONDS, UPSTREAM_SIGN_SECONDS
from sojourn.spiffe.x509svid import parse_certificates

pytestmark = [pytest.mark.full, pytest.mark.forked]

DOMAIN = "example.org"
ME = f"unix:uid:{os.geteuid()}"
WEB = f"spiffe://{DOMAIN}/web"
BACK_SECONDS = UPSTREAM_POLL_MAX_SECONDS * 1.1  # the longest pause between two looks whether a server is back
SLOW_MACHINE_SECONDS = 20.0  # that a loaded machine may take for what takes one


@contextmanager
def server_in(folder: Path, *, keys_stay: bool = True) -> Iterator[SpireServer]:
    quick = 'experimental { cache_reload_interval = "200ms" }'
    server = SpireServer(binary("spire-server"), folder / "server", DOMAIN, keys_stay=keys_stay, lines=quick)
    with server:
        yield server
        if server.process.poll() is not None:  # a test has ended it
            server.__enter__()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SpireServer]:
    with server_in(tmp_path) as running:
        yield running


@pytest.fixture
def agent(server: SpireServer, tmp_path: Path) -> Iterator[AgentProcess]:
    """A node on which this user is /web."""
    with AgentProcess(config=nodes.node_config(server, tmp_path)) as running:
        serve(server, running)
        yield running


def serve(server: SpireServer, agent: AgentProcess) -> None:
    nodes.sees(agent, nodes.register(server, agent, "/web", ME), there=True)
    with Wire(agent.socket) as wire:
        assert [WEB] == wire.x509_ids()


def upstream_of(agent: AgentProcess) -> dict[str, Any]:
    found: dict[str, Any] = agent.json("status")["upstream"]
    return found


def serial(answer: Any) -> int:
    return parse_certificates(answer.svids[0].x509_svid)[0].serial_number


def is_back(agent: AgentProcess, server: SpireServer, stream: Any = None) -> float:
    """Seconds until the node has what is registered now; pushed over a stream if there is one."""
    began = time.monotonic()
    made = nodes.register(server, agent, f"/later/{began}", ME)
    nodes.has_entry(agent, made, BACK_SECONDS + SLOW_MACHINE_SECONDS)
    if stream is not None:
        for answer in stream:
            if any(each.spiffe_id.endswith(f"/later/{began}") for each in answer.svids):
                break
    return time.monotonic() - began


class TestServerThatHangs:
    def test_it_answers_nothing(self, agent: AgentProcess, server: SpireServer) -> None:
        """While a server takes connections and answers nothing, what is in use is served at once, who needs a new
        signature hears within its time that there is none, and all goes on when the server does.
        """
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            before = serial(next(stream))
            token = wire.jwt("known").svids[0].svid
            server.process.send_signal(signal.SIGSTOP)
            try:
                for _ in range(3):
                    began = time.monotonic()
                    assert (before, token) == (serial(wire.x509()), wire.jwt("known").svids[0].svid)
                    assert time.monotonic() - began < 2
                began = time.monotonic()
                name, _ = refusal(lambda: wire.jwt("new"))
                took = time.monotonic() - began
                assert "UNAVAILABLE" == name
                assert took < UPSTREAM_SIGN_SECONDS + SLOW_MACHINE_SECONDS
                began = time.monotonic()
                assert before == serial(wire.x509())
                assert time.monotonic() - began < 2
            finally:
                server.process.send_signal(signal.SIGCONT)
            assert is_back(agent, server, stream) < BACK_SECONDS + SLOW_MACHINE_SECONDS
            assert wire.jwt("new").svids


class TestRestarts:
    @pytest.mark.parametrize("first", ["server", "agent"])
    def test_both(self, agent: AgentProcess, server: SpireServer, first: str) -> None:
        """Server and agent are down at once: an agent that is started first serves what it had at once, and whichever is
        first, all is well again within the longest pause between two tries.
        """
        with Wire(agent.socket) as wire:
            before = serial(wire.x509())
        node = nodes.node_id(agent)
        kept = agent.data_dir / "node"
        until(lambda: list(kept.glob("svids-*.sealed")), "the SVID is kept", 30)
        server.__exit__()
        agent.kill()
        if first == "server":
            server.__enter__()
        agent.start()
        with Wire(agent.socket) as wire:
            assert before == serial(wire.x509())
        if first == "agent":
            until(lambda: upstream_of(agent)["away_seconds"] is not None, "it knows that the server is away", 60)
            server.__enter__()
        assert is_back(agent, server) < BACK_SECONDS + SLOW_MACHINE_SECONDS
        assert node == nodes.node_id(agent)

    def test_server_alone(self, agent: AgentProcess, server: SpireServer) -> None:
        """A server that is restarted is missed by nobody: a stream stays open, and hears of the next change."""
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            before = serial(next(stream))
            server.__exit__()
            server.__enter__()
            assert is_back(agent, server, stream) < BACK_SECONDS + SLOW_MACHINE_SECONDS
            assert before in [
                parse_certificates(each.x509_svid)[0].serial_number for each in wire.x509().svids
            ]  # it was not signed anew


class TestServerThatLostItsKeys:
    def test_another_authority(self, tmp_path: Path) -> None:
        """A server that has lost its keys has an authority of which the node cannot know: it serves on, says why there is
        no connection and what to do, and with the new bundle it goes on as the same node.
        """
        with (
            server_in(tmp_path, keys_stay=False) as server,
            AgentProcess(config=nodes.node_config(server, tmp_path)) as agent,
        ):
            serve(server, agent)
            node = nodes.node_id(agent)
            with Wire(agent.socket) as wire:
                before = serial(wire.x509())
            server.__exit__()
            server.__enter__()
            until(lambda: "spire-server bundle show" in upstream_of(agent)["fault"], "it says what to do", 60)
            with Wire(agent.socket) as wire:
                assert before == serial(wire.x509())
            (tmp_path / "bundle.pem").write_text(server.run("bundle", "show", "-format", "pem").stdout)
            agent.stop()
            agent.start()
            assert is_back(agent, server) < BACK_SECONDS + SLOW_MACHINE_SECONDS
            assert node == nodes.node_id(agent)
            with Wire(agent.socket) as wire:
                assert before in [parse_certificates(each.x509_svid)[0].serial_number for each in wire.x509().svids]


class TestClocks:
    @pytest.mark.parametrize("by", [timedelta(hours=3), timedelta(hours=-3)], ids=["ahead", "behind"])
    def test_set_wrong_and_right_again(self, server: SpireServer, tmp_path: Path, by: timedelta) -> None:
        """A machine whose clock is three hours wrong gives out nothing that is not good by it, says what is amiss, and is
        the same node with the same entries as soon as the clock is right, although its token is used up.
        """
        with SteppedAgent(config=nodes.node_config(server, tmp_path)) as agent:
            serve(server, agent)
            node = nodes.node_id(agent)
            agent.step(by)
            with Wire(agent.socket) as wire:
                until(lambda: "UNAVAILABLE" == answer(wire), "nothing is good by this clock", 30)
            until(lambda: agent.json("status")["faults"], "it says that something is amiss", 60)
            if by < timedelta():
                assert "behind the SPIRE server's: set it right" in str(agent.json("status")["faults"])
            agent.step(-by)
            with Wire(agent.socket) as wire:
                until(lambda: "OK" == answer(wire), "what is good is served", 30)
            assert is_back(agent, server) < BACK_SECONDS + SLOW_MACHINE_SECONDS
            assert node == nodes.node_id(agent)
            until(lambda: "" == upstream_of(agent)["fault"], "nothing is amiss", 150)


def answer(wire: Wire) -> str:
    try:
        return "OK" if wire.x509_ids() else "nothing"
    except Exception as error:
        return str(error.code().name)  # type: ignore[attr-defined]  # gRPC's


@pytest.mark.root
def test_a_full_disk(server: SpireServer, tmp_path: Path) -> None:
    """While the disk is full the node serves what it has, and syncs; once there is room, what came meanwhile is kept, and
    an agent that is restarted without a server has it.
    """
    agent = AgentProcess(config=nodes.node_config(server, tmp_path))
    with small_disk(agent, "8m"), agent:
        serve(server, agent)
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            before = serial(next(stream))
            entries = agent.data_dir / "node" / "entries.sealed"
            until(entries.exists, "the entries are kept", 30)
            kept = entries.stat().st_mtime_ns
            with full(agent.data_dir):
                made = nodes.register(server, agent, "/meanwhile", "unix:uid:54321")
                nodes.sees(agent, made, there=True)
                assert before == serial(wire.x509())
                until(lambda: "node_not_kept" in {line["event"] for line in agent.log_lines()}, "it says so", 30)
            nodes.sees(agent, nodes.register(server, agent, "/after", ME), there=True)
            for answered in stream:
                if len(answered.svids) == 2:
                    break
            until(lambda: entries.stat().st_mtime_ns > kept, "all is kept", BACK_SECONDS + SLOW_MACHINE_SECONDS)
        server.__exit__()
        agent.kill()
        agent.start()
        listed = {each["spiffe_id"] for each in agent.json("entry", "list")["entries"]}
        assert {WEB, f"spiffe://{DOMAIN}/meanwhile", f"spiffe://{DOMAIN}/after"} == listed
