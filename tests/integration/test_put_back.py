"""A data folder that is put back by hand is noticed by a mark outside of it, and then nothing of before is good."""

import asyncio
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.backups import back_up, command, put_back
from harness.callers import Caller
from harness.looking import until
from harness.program import Program
from harness.raw import Wire
from harness.starting import refused
from harness.taskagent import TICKETS, make_agent
from sojourn import Client, TaskVerifier
from sojourn.errors import SojournError
from sojourn.spiffe import jwtsvid

pytestmark = pytest.mark.full
AUDIENCE = "https://tickets.example.org"
TOKENS = 500  # of each of two kinds


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """An agent with a mark, on which this user is /agent/triage."""
    made = make_agent()
    (made.folder / "mark").mkdir(mode=0o700)
    made.config.write_text(f'mark_dir = "mark"\n{made.config.read_text()}')
    with made as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running


def marked(agent: AgentProcess) -> int:
    """How far the mark is: the number of the last record that it knows of."""
    return int(json.loads((agent.folder / "mark" / "mark").read_text())["seq"])


def is_good(agent: AgentProcess, token: str) -> bool:
    return agent.run("validate", token, "--audience", AUDIENCE, check=False).returncode == 0


def jwt_svid(agent: AgentProcess, audience: str = AUDIENCE) -> str:
    with Wire(agent.socket) as wire:
        return wire.jwt(audience).svids[0].svid


def jwt_svids(agent: AgentProcess, number: int) -> dict[str, str]:
    """As many JWT-SVIDs, by their audiences."""
    audiences = [f"https://a.example/{each}" for each in range(number)]
    with Wire(agent.socket) as wire:
        return {audience: wire.jwt(audience).svids[0].svid for audience in audiences}


def snapshot_of(agent: AgentProcess) -> Path:
    """A copy of the data folder of an agent that has stopped."""
    agent.stop()
    kept = agent.folder / "kept"
    shutil.copytree(agent.data_dir, kept)
    agent.start()
    return kept


def test_a_revoked_token_stays_so(agent: AgentProcess) -> None:
    """A token that was good when the folder was copied, and revoked since, is not good when the folder is put back."""
    token = jwt_svid(agent)
    kept = snapshot_of(agent)
    assert is_good(agent, token)
    epoch = agent.json("status")["epoch"]
    agent.run("svid", "revoke", "--spiffe-id", "spiffe://example.org/agent/triage")
    assert not is_good(agent, token)
    agent.stop()
    put_back(kept, agent)
    agent.start()
    assert not is_good(agent, token)
    assert is_good(agent, jwt_svid(agent))
    assert ["database_restored"] == [each["what"] for each in agent.failures()]
    told = agent.json("status")
    assert epoch < told["epoch"]
    assert "folder" == told["data_folder"]["restored"]["how"]
    assert 0 < told["data_folder"]["restored"]["lost_records"]
    assert agent.json("audit", "verify")["intact"]
    agent.stop()
    agent.start()
    assert [] == agent.failures()


def test_one_of_an_agent_that_was_killed(agent: AgentProcess) -> None:
    """The mark follows what is revoked at once: it is noticed also where the agent was killed soon after."""
    token = jwt_svid(agent)
    kept = snapshot_of(agent)
    before = marked(agent)
    agent.run("svid", "revoke", "--spiffe-id", "spiffe://example.org/agent/triage")
    until(lambda: marked(agent) > before, "the mark has followed")
    agent.kill()
    put_back(kept, agent)
    agent.start()
    assert not is_good(agent, token)


def test_a_task_does_not_come_back(agent: AgentProcess) -> None:
    """A task that was live when the folder was copied, and was revoked since, is over when the folder is put back: it
    does not wait for its holder, which still lives.
    """
    with Caller(agent.socket) as holder:
        task = holder.ask("begin", type="triage-ticket")["id"]
        agent.kill()
        kept = agent.folder / "kept"
        shutil.copytree(agent.data_dir, kept)
        agent.start()
        agent.run("task", "revoke", task)
        agent.stop()
        put_back(kept, agent)
        agent.start()
        assert "database_restored" in [each["what"] for each in agent.failures()]
        assert [] == agent.json("task", "list")["tasks"]
        [ended] = agent.json("audit", "tail", "--event", "task_ended", "--task", task)["records"]
        assert ("revoked", "agent_restart") == (ended["fields"]["state"], ended["fields"]["reason"])


def test_nothing_is_replaced_without_need(agent: AgentProcess) -> None:
    """Stops, kills and a folder that is put back as it was replace nothing."""
    token = jwt_svid(agent)
    for stop in (agent.stop, agent.kill):
        stop()
        agent.start()
        assert is_good(agent, token)
    agent.stop()
    kept = agent.folder / "kept"
    shutil.copytree(agent.data_dir, kept)
    put_back(kept, agent)
    agent.start()
    assert is_good(agent, token)
    assert [] == agent.failures()


def test_a_mark_and_no_folder(agent: AgentProcess) -> None:
    """Where the mark is and the folder is gone the agent says what it has lost, and counts its starts on."""
    epoch = agent.json("status")["epoch"]
    agent.stop()
    shutil.rmtree(agent.data_dir)
    agent.start()
    assert ["database_lost"] == [each["what"] for each in agent.failures()]
    assert epoch < agent.json("status")["epoch"]


def test_a_restored_backup_counts_on(agent: AgentProcess) -> None:
    """A backup that is restored where nothing else is left begins above all starts that the mark knows of."""
    made = back_up(agent)
    for _ in range(2):
        agent.stop()
        agent.start()
    agent.stop()
    shutil.rmtree(agent.data_dir)
    assert 0 == command(agent, "restore", str(made)).returncode
    agent.start()
    told = agent.json("status")["data_folder"]["restored"]
    assert ("restore", True) == (told["how"], told["lost_records"] > 0)
    assert ["database_restored"] == [each["what"] for each in agent.failures()]


def test_a_machine_that_was_put_back_as_it_ran(agent: AgentProcess) -> None:
    """An agent whose mark has gone on without it ends and leaves it alone; after its next start nothing of before is good."""
    token = jwt_svid(agent)
    assert is_good(agent, token)
    path = agent.folder / "mark" / "mark"
    ahead = json.dumps({**json.loads(path.read_text()), "seq": marked(agent) + 1_000})
    path.write_text(ahead)
    assert agent.process is not None
    assert 0 != agent.process.wait(30)
    assert ahead == path.read_text()
    assert "is not what this agent wrote last" in agent.log.read_text()
    agent.stop()
    agent.start()
    assert not is_good(agent, token)
    assert "folder" == agent.json("status")["data_folder"]["restored"]["how"]


def test_a_mark_that_is_not_there(agent: AgentProcess) -> None:
    """An agent whose mark is not there does not start, and says by which command somebody says that it is gone for good.
    After that nothing of before is good, and there is a mark.
    """
    token = jwt_svid(agent)
    agent.stop()
    shutil.rmtree(agent.folder / "mark")
    assert "there is no folder" in refused(agent, "--config", str(agent.config))
    (agent.folder / "mark").mkdir(mode=0o700)
    said = refused(agent, "--config", str(agent.config))
    assert f"{str(agent.folder / 'mark' / 'mark')!r}, and that is not there" in said
    subprocess.run(shlex.split(said.split("`")[1]), check=True)
    agent.start()
    assert not is_good(agent, token)
    assert "mark_gone" == agent.json("status")["data_folder"]["restored"]["how"]
    assert marked(agent)
    agent.stop()
    agent.start()
    assert [] == agent.failures()


def test_status_says_since_when(agent: AgentProcess) -> None:
    """Status names the mark and since when it is there; without one it says that nothing is noticed."""
    told = agent.json("status")["data_folder"]["mark"]
    assert (str(agent.folder / "mark" / "mark"), "") == (told["file"], told["fault"])
    assert told["since"]
    with AgentProcess() as other:
        assert other.json("status")["data_folder"]["mark"] is None
        assert "a data folder that is put back whole is not noticed" in other.run("status").stdout


@pytest.mark.parametrize("content", ["", "{}", "nonsense", '{"seq": "1"}'])
def test_a_mark_that_cannot_be_read(agent: AgentProcess, content: str) -> None:
    """A mark that says nothing refuses the start, in a sentence with what to do."""
    agent.stop()
    (agent.folder / "mark" / "mark").write_text(content)
    assert "cannot be read" in refused(agent, "--config", str(agent.config))


def test_the_mark_of_another_folder(agent: AgentProcess) -> None:
    """The mark of one data folder is not taken for that of another."""
    agent.stop()
    was = agent.data_dir
    agent.data_dir = was.rename(agent.folder / "elsewhere")
    assert f"is of the data folder {str(was)!r}" in refused(agent, "--config", str(agent.config))


async def test_no_token_of_a_thousand(agent: AgentProcess) -> None:
    """Of a thousand tokens of before a restore, JWT-SVIDs and task tokens, none is good: neither at the agent, nor for
    who has its bundle, nor at a service whose guard has followed the agent all the while.
    """
    made = back_up(agent)
    svids = jwt_svids(agent, TOKENS)
    async with Client(agent.socket) as client, TaskVerifier(client, TICKETS) as guard:
        with Caller(agent.socket) as holder:
            task = holder.ask("begin", type="triage-ticket")["id"]
            tokens = [holder.ask("token", task=task)["token"] for _ in range(TOKENS)]
            assert TOKENS * 2 == len({*svids.values(), *tokens})
            await guard.feed.wait_ready(20)
            assert [] == await refused_by(guard, tokens)
            assert svids.keys() == {*await good_by_bundle(agent, svids)}
            before = guard.feed.epoch
            await asyncio.to_thread(restored_meanwhile, agent, made)
            async with asyncio.timeout(20):
                while guard.feed.epoch == before:
                    await asyncio.sleep(0.02)
            assert TOKENS == len(await refused_by(guard, tokens))
            assert [] == await good_by_bundle(agent, svids)
            async with Client(agent.socket) as asking:
                for audience, token in [*svids.items(), *((TICKETS, each) for each in tokens)]:
                    assert not (await asking.validate_token(token, audience)).valid


def test_no_svid_of_a_thousand_for_go_spiffe(agent: AgentProcess, go_client: Path) -> None:
    """Of a thousand JWT-SVIDs of before a restore a service with go-spiffe finds none good that has followed the agent's
    bundle all the while, nor one that begins then; neither by the bundle nor by asking the agent. Those of after it are.
    """
    made = back_up(agent)
    svids = jwt_svids(agent, 2 * TOKENS)
    argv = [str(go_client), "verify"]
    with Program(argv, agent.environment, asked=True) as service:
        assert "ready" == service.hear()["event"]
        assert (svids.keys(), svids.keys()) == good_for(service, svids)
        restored_meanwhile(agent, made)
        fresh = jwt_svids(agent, 1)
        until(lambda: good_for(service, fresh) == (fresh.keys(), fresh.keys()), "it has the bundle of now", 40)
        assert (set(), set()) == good_for(service, svids)
    with Program(argv, agent.environment, asked=True) as another:
        assert "ready" == another.hear()["event"]
        assert (fresh.keys(), fresh.keys()) == good_for(another, fresh)
        assert (set(), set()) == good_for(another, svids)


def good_for(service: Program, svids: dict[str, str]) -> tuple[set[str], set[str]]:
    """The audiences of those JWT-SVIDs that go-spiffe finds good: by the bundle, and by asking the agent."""
    told = service.ask(svids)
    assert "verified" == told["event"]
    return set(told["bundle"]), set(told["agent"])


def restored_meanwhile(agent: AgentProcess, made: Path) -> None:
    """Stop, restore and start it."""
    agent.stop()
    assert 0 == command(agent, "restore", str(made), "--accept-loss").returncode
    agent.start()


async def refused_by(guard: TaskVerifier, tokens: list[str]) -> list[str]:
    """Those tokens that a service's guard does not take."""
    found = []
    for token in tokens:
        try:
            await guard.verify(token, "ticket:read")
        except SojournError:
            found.append(token)
    return found


async def good_by_bundle(agent: AgentProcess, svids: dict[str, str]) -> list[str]:
    """Of JWT-SVIDs by their audiences, those that verify by the bundle of now."""
    async with Client(agent.socket) as client:
        bundles = await client.fetch_jwt_bundles()
    found = []
    for audience, token in svids.items():
        try:
            jwtsvid.verify(token, [audience], bundles, datetime.now(UTC))
        except SojournError:
            continue
        found.append(audience)
    return found
