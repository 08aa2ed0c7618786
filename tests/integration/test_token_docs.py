"""docs/tokens.md and README.md: each request that they show works as it stands."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import COMMAND, ROOT, AgentProcess
from harness.taskagent import TICKETS, shared_agent
from sojourn import TaskVerifier
from sojourn.errors import InvalidToken
from sojourn.sdk.client.client import Client

pytestmark = [pytest.mark.full, pytest.mark.curl]
BLOCK = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
BLOCKS = BLOCK.findall((ROOT / "docs" / "tokens.md").read_text())


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with shared_agent() as running:
        yield running


def shell(agent: AgentProcess, *lines: str) -> "subprocess.CompletedProcess[str]":
    """One shell that is given these lines, as a reader would try them.

    Unlike a reader's it would become its last command, and so another program than the one that holds tasks: `:` is last.
    """
    environment = {
        **agent.environment,
        "SOJOURN_SOCKET": agent.socket,  # the agent is not at the default place
        "PATH": f"{Path(COMMAND[0]).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        ["bash", "-c", "\n".join([*lines, ":"])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_the_requests_of_the_guide(agent: AgentProcess) -> None:
    """Every curl line of the guide gets a token, each as it stands, in one shell, as a reader would try them."""
    first, *requests = BLOCKS
    assert 5 == len(requests)
    shown = re.sub(r'S="[^\n]*', "", first)
    lines = [f"S='{agent.socket}'", shown]
    for request in requests:
        lines += [request, "sleep 0.3", "echo" if request.startswith("    curl") else 'echo "$ANSWER"']
    done = shell(agent, *lines)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert 0 == done.returncode, done.stderr
    assert [True] * 5 == ["access_token" in each for each in answers], answers
    assert answers[3]["task_id"] == answers[4]["task_id"]


def readmes(start: str) -> str:
    """The block of README.md that begins so."""
    [block] = [each for each in BLOCK.findall((ROOT / "README.md").read_text()) if each.lstrip().startswith(start)]
    return block


def test_the_lines_of_the_readme(agent: AgentProcess) -> None:
    """The exchange by curl and `task run`, as README.md has them, each print that their token is good."""
    done = shell(agent, readmes("ANSWER="), readmes("sojourn task run --type triage-ticket -- sh"))
    assert (0, 2) == (done.returncode, done.stdout.count("valid: task of spiffe://example.org/agent/triage")), done


async def test_a_token_out_of_a_pipe(agent: AgentProcess) -> None:
    """The token of curl in a pipe is dead when the shell has it, and whoever is asked about it says why and what to read."""
    answer = readmes("ANSWER=").partition("\n    TOKEN=")[0].strip().removeprefix("ANSWER=$(").removesuffix(")")
    take = """python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])'"""
    done = shell(
        agent,
        f"TOKEN=$({answer} | {take})",
        'for _ in $(seq 50); do echo "$TOKEN" | sojourn validate - --audience https://tickets.example.org || break; done',
        'echo "$TOKEN"',
    )
    *_, said, token = done.stdout.splitlines()
    assert said.startswith("not valid: the task is over: revoked, holder_exited (the process that asked for the token")
    assert "docs/tokens.md#curl" in said
    assert "\n### curl\n" in (ROOT / "docs" / "tokens.md").read_text()
    async with Client(agent.socket) as client, TaskVerifier(client, TICKETS) as service:
        with pytest.raises(InvalidToken, match=r"docs/tokens\.md#curl"):
            await service.verify(token, "ticket:read")
