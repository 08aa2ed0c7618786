"""Whom a client of the agent believes: whoever has put the socket at its path."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess, clean_environment
from sojourn import Client, SyncClient, TaskVerifier
from sojourn.errors import SojournError, Unreachable

pytestmark = pytest.mark.forked

ATTACKER = 4894
PLACE = "https://tickets.example.org"


@contextlib.contextmanager
def false_agent(path: str) -> Iterator[list[str]]:
    """Another user's process in the agent's place; what it said is there afterwards."""
    heard: list[str] = []
    script = str(Path(__file__).parent.parent / "harness" / "falseagent.py")
    process = subprocess.Popen(
        [sys.executable, "-I", script, str(ATTACKER), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    assert process.stdout is not None
    try:
        assert "there\n" == process.stdout.readline()
        yield heard
    finally:
        out, _ = process.communicate(timeout=20)
        heard += out.split()


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    agent = AgentProcess()
    with agent:
        agent.register("/me", f"unix:uid:{os.getuid()}")
        yield agent


@pytest.mark.root
async def test_S3_another_users_socket_in_the_agents_place(agent: AgentProcess) -> None:
    """Once the agent has stopped, in a folder that all may write, nobody calls who stands in its place then, whether
    they had called the agent before or not; and the agent is called again when it is back.
    """
    folder = Path(agent.socket).parent
    async with Client(agent.socket, wait_for_agent=20) as client, TaskVerifier(client, PLACE) as verifier:
        await verifier.feed.wait_ready(20)
        [svid] = await client.fetch_jwt_svids(["a"])
        agent.stop()
        folder.chmod(0o1777)
        with false_agent(agent.socket) as heard:
            with pytest.raises(Unreachable, match=f"belongs to user {ATTACKER}, and was user 0's before"):
                await client.fetch_jwt_svids(["a"])
            with pytest.raises(SojournError):
                await verifier.verify(svid.token, "x:write")
            with SyncClient(agent.socket) as other, pytest.raises(Unreachable, match="a folder that others may write"):
                other.fetch_jwt_svids(["a"])
            with pytest.raises(Unreachable, match=f"belongs to user {ATTACKER}"):
                async with Client(agent.socket, wait_for_agent=0.5):
                    pass
            done = agent.run("svid", "jwt", "--audience", "a", check=False)
            assert (3, "") == (done.returncode, done.stdout)
            assert f"belongs to user {ATTACKER}" in done.stderr
        assert [] == heard
        folder.chmod(0o755)
        agent.start()
        [again] = await client.fetch_jwt_svids(["a"])
        assert svid.spiffe_id == again.spiffe_id
        await verifier.feed.wait_ready(20)


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder like /tmp, in one that only root may write."""
    with tempfile.TemporaryDirectory(prefix="sojourn-test-", dir="/tmp") as above:
        os.chmod(above, 0o755)
        made = Path(above, "common")
        made.mkdir()
        made.chmod(0o1777)
        yield made


@pytest.mark.root
@pytest.mark.parametrize("by", ["a link", "a folder"])
def test_S3_a_place_that_another_user_made(common: Path, by: str) -> None:
    """Where an agent's folder would be in one like /tmp, and is not yet, another user makes it, or a link to one of
    their own: nobody calls who listens there.
    """
    path = common / "sojourn" / "agent.sock"
    theirs = path.parent if by == "a folder" else common.parent / "theirs"
    theirs.mkdir(mode=0o755)
    os.chown(theirs, ATTACKER, ATTACKER)
    if theirs != path.parent:
        path.parent.symlink_to(theirs)
        os.lchown(path.parent, ATTACKER, ATTACKER)
    with false_agent(str(theirs / "agent.sock")) as heard:
        because = f"belongs to user {ATTACKER}, in a folder that others may write"
        with SyncClient(str(path)) as client, pytest.raises(Unreachable, match=because):
            client.fetch_jwt_svids(["a"])
    assert [] == heard
