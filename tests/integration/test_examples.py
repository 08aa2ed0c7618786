"""docs/examples: each program runs as its first lines say, against a real agent."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from harness.agent import COMMAND, ROOT, AgentProcess
from harness.lacking import lacking
from harness.looking import until

pytestmark = pytest.mark.full

EXAMPLES = ROOT / "docs" / "examples"


@dataclass
class Place:
    agent: AgentProcess
    environment: dict[str, str]
    ports: tuple[int, int]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The agent of the examples; their services are at ports of this test's own."""
    for library in ("fastapi", "mcp", "uvicorn", "httpx2"):
        pytest.importorskip(library)
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    tickets, tools = (each.getsockname()[1] for each in held)
    agent = AgentProcess(config=(EXAMPLES / "agent.toml").read_text())
    shutil.copytree(EXAMPLES / "types", agent.folder / "types")
    for file in (agent.folder / "types").glob("*.toml"):
        file.write_text(file.read_text().replace(":8091", f":{tickets}").replace(":8092", f":{tools}"))
    types = agent.folder / "types"
    high = 'consequence = "high"\n' + (types / "triage-with-tools.toml").read_text().replace("bound = true\n", "")
    (types / "triage-with-care.toml").write_text(high)
    shutil.copy(types / "triage-with-tools.cedar", types / "triage-with-care.cedar")
    for each in held:
        each.close()
    with agent:
        for name in ("triage", "summarise"):
            agent.register(f"/agent/{name}", f"unix:uid:{os.getuid()}")
        urls = {"TICKETS": f"http://localhost:{tickets}", "TOOLS": f"http://localhost:{tools}/mcp"}
        yield Place(agent, {**agent.environment, **urls}, (tickets, tools))


@contextmanager
def serving(place: Place, name: str, port: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, str(EXAMPLES / name)], env=place.environment)
    try:
        until(lambda: process.poll() is not None or answers(port), f"{name} answers", 30)
        assert process.poll() is None
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def tickets(place: Place) -> Iterator[Place]:
    with serving(place, "guarded_service.py", place.ports[0]):
        yield place


def run(place: Place, *command: str) -> str:
    done = subprocess.run(command, env=place.environment, capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def example(place: Place, name: str) -> list[str]:
    return run(place, sys.executable, str(EXAMPLES / name)).splitlines()


def test_task_with_client(tickets: Place) -> None:
    """A task reads its own ticket, no other one, and nothing goes elsewhere."""
    assert [
        "read 42 200 the printer is on fire",
        "read 43 403 insufficient_scope",
        "not sent: https://elsewhere.example.org is not within the task: it has no grant for this URL",
        "ended: success",
    ] == example(tickets, "task_with_client.py")


def test_delegation(tickets: Place) -> None:
    """What was handed on is read by the other workload, and no more than that."""
    said = example(tickets, "delegation.py")
    assert [
        "read by spiffe://example.org/agent/summarise for spiffe://example.org/agent/triage",
        "a note: 403",
    ] == said


@pytest.mark.curl
def test_egress_proxy(tickets: Place) -> None:
    """curl reads the ticket, and is told why not what is elsewhere."""
    inside, outside = example(tickets, "egress_proxy.py")
    assert "the printer is on fire" in inside
    assert "outside_task" in outside


@pytest.mark.curl
def test_egress_proxy_by_command(tickets: Place) -> None:
    """The command that the example's first lines name reads the ticket too."""
    url = f"{tickets.environment['TICKETS']}/tickets/42"
    said = run(
        tickets,
        *COMMAND,
        "task",
        "run",
        "--type",
        "read-tickets",
        "--param",
        "ticket=42",
        "--proxy",
        "--",
        "curl",
        "-sS",
        url,
    )
    assert "the printer is on fire" in said


@pytest.mark.parametrize("kind", ["triage-with-tools", "triage-with-care"])
def test_agent_loop(place: Place, kind: str) -> None:
    """The loop reads its ticket and notes on it; what it was talked into is refused; it never holds a token. So it is
    too where each call has a token for that call alone.
    """
    with serving(place, "mcp_server.py", place.ports[1]):
        command = ["task", "run", "--type", kind, "--param", "ticket=42", "--proxy", "--"]
        said = run(place, *COMMAND, *command, sys.executable, str(EXAMPLES / "agent_loop.py"))
    lines = said.splitlines()
    assert ["tools: read_ticket, add_note"] == lines[:1]
    results = [line.partition(" -> ")[2] for line in lines[1:]]
    assert 5 == len(results)
    assert results[0].startswith("ticket 42: the printer is on fire")
    assert "refused: token is for another 'ticket' than the request is" == results[1]
    assert results[2].startswith("refused: ")
    assert "ticket:delete" in results[2]
    assert "outside_task" in results[3]
    assert "noted on 42: asked the fire brigade" == results[4]
    assert "eyJ" not in said


@pytest.fixture(scope="module", params=["go", "node"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of an example in another language."""
    language: str = request.param
    if shutil.which(language) is None:
        lacking(f"needs {'Go 1.24' if language == 'go' else 'Node 20'} or newer")
    if language == "node":
        return ["node", str(EXAMPLES / "node" / "note.mjs")]
    program = tmp_path_factory.mktemp("go") / "note"
    offline = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}  # it needs nothing of others
    built = subprocess.run(
        ["go", "build", "-o", str(program), "."],
        cwd=EXAMPLES / "go",
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert 0 == built.returncode, built.stderr
    return [str(program)]


@pytest.mark.timeout(900)
def test_digests_in_other_languages(other: list[str]) -> None:
    """Go and Node make the digests of the vectors, with no library of ours, and refuse what has none."""
    file = EXAMPLES / "request-digests.json"
    vectors = json.loads(file.read_text())
    expected = [each["digest"] for form in ("http", "grpc", "mcp") for each in vectors[form]]
    expected += ["refused" for _ in vectors["refused"]]
    done = subprocess.run([*other, "--digests", str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert expected == done.stdout.splitlines(), done.stderr


@pytest.mark.timeout(900)
def test_one_request_in_other_languages(tickets: Place, other: list[str]) -> None:
    """Programs in Go and Node get a token of class high for one request, with a key of their own, and make it."""
    for text in ("asked the fire brigade", "ü, and again"):
        status, _, answer = run(tickets, *other, "42", text).partition(" ")
        assert ("200", {"ticket": "42", "noted": text}) == (status, json.loads(answer))
