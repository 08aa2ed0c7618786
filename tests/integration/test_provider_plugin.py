"""docs/examples/provider: a provider of somebody's own, installed beside a real agent, and what a check of it tells."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness.agent import ROOT, AgentProcess
from harness.exampleplugins import install, run_own_tests
from harness.looking import until
from sojourn import SyncClient
from sojourn.testing.outside import claims_of

pytestmark = pytest.mark.full

EXAMPLE = ROOT / "docs" / "examples" / "provider"
TICKETS = "https://desk.example.org/tickets"
ME = "spiffe://example.org/agent/triage"
CONFIG = """
trust_domain = "example.org"
[tasks]
types_dir = "types"
[providers.helpdesk]
kind = "desk"
url = "{url}"
plain_http = true
timeout = "5s"
"""
TYPE = f"""
allowed_workloads = ["{ME}"]
[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:read", "ticket:close"]
provider = "helpdesk"
ask = {{ queue = "printers" }}
"""


class Desk:
    """The help desk, on loopback. `live`: keys that are good, with their rights. `refuses`: it knows nobody."""

    def __init__(self) -> None:
        self.live: dict[str, Any] = {}
        self.given: list[str] = []
        self.refuses = False
        self.hangs = threading.Event()
        self.hangs.set()
        desk = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                desk.hangs.wait(30)
                status, answer = desk.answer(self.path, body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        claims = claims_of(body["assertion"])
        if self.refuses or claims["aud"] != self.url:
            return 403, {"said": body["assertion"]}
        if path == "/keys/end":
            self.live.pop(body["id"], None)
            return 200, {}
        number = f"n{len(self.given)}"
        self.given.append(os.urandom(16).hex())
        self.live[number] = {**body, "sub": claims["sub"]}
        return 200, {"key": self.given[-1], "id": number, "seconds": body["seconds"]}

    def __enter__(self) -> "Desk":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hangs.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, as pip installs it."""
    return install(EXAMPLE, tmp_path_factory.mktemp("installed"))


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as desk:
        yield desk


@pytest.fixture
def agent(installed: Path, desk: Desk) -> Iterator[AgentProcess]:
    agent = AgentProcess(config=CONFIG.format(url=desk.url))
    agent.extra_environment["PYTHONPATH"] = str(installed)
    types = agent.folder / "types"
    types.mkdir()
    (types / "sort.toml").write_text(TYPE)
    (types / "sort.cedar").write_text('@id("all") permit (principal, action, resource);')
    with agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield agent


def checked(agent: AgentProcess, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = agent.run("provider", "check", "helpdesk", *arguments, "--output", "json", check=False)
    return done.returncode, json.loads(done.stdout)


def test_a_task_has_its_credentials(agent: AgentProcess, desk: Desk) -> None:
    """A task has a key of the desk for what it asks for, another task has another, and both end with their tasks."""
    with SyncClient(agent.socket) as client:
        with client.task("sort") as first, client.task("sort") as second:
            keys = [first.token(TICKETS, ["ticket:read"]).token, second.token(TICKETS, ["ticket:read"]).token]
            assert desk.given == keys
            assert [(ME, ["ticket:read"], "printers")] * 2 == [
                (each["sub"], each["rights"], each["queue"]) for each in desk.live.values()
            ]
            assert keys[0] == first.token(TICKETS, ["ticket:read"]).token
        until(lambda: not desk.live, "both keys are taken back", 20)
    (listed,) = agent.json("provider", "list")["providers"]
    assert ("helpdesk", "desk", "revoke", False, ["sort"]) == tuple(
        listed[name] for name in ("name", "kind", "recall", "offline", "task_types")
    )
    assert listed["exchanges"] >= 2
    assert "sort" in agent.run("provider", "show", "helpdesk").stdout


def test_check_goes_well(agent: AgentProcess, desk: Desk) -> None:
    """A check has a key and gives it back; it is told step by step, without the key, and is in the audit."""
    status, told = checked(agent, "--spiffe-id", ME, "--action", "ticket:read")
    assert (0, True) == (status, told["ok"]), told
    assert ["configured", "own_clock", "task_types", "identity", "key", "end"] == [
        each["name"] for each in told["steps"]
    ]
    assert {} == desk.live
    assert desk.given[0] not in json.dumps(told)
    done = agent.run("provider", "check", "helpdesk", "--spiffe-id", ME)
    assert "helpdesk: ok" == done.stdout.splitlines()[-1]
    audit = agent.json("audit", "tail")["records"]
    records = [each["fields"] for each in audit if each["event"] == "provider_checked"]
    assert [("ok", ME, os.getuid())] * 2 == [(each["outcome"], each["spiffe_id"], each["by_uid"]) for each in records]


def test_check_for_nobody(agent: AgentProcess, desk: Desk) -> None:
    """Without a SPIFFE ID nothing is obtained."""
    status, told = checked(agent)
    assert 0 == status
    assert "skipped" == told["steps"][-1]["outcome"]
    assert [] == desk.given


def test_check_says_which_step_fails(agent: AgentProcess, desk: Desk) -> None:
    """The step that the desk refuses is told with what to set there, and without what the desk repeats; status 1."""
    desk.refuses = True
    status, told = checked(agent, "--spiffe-id", ME)
    assert (1, False) == (status, told["ok"])
    last = told["steps"][-1]
    assert ("key", "failed", "the desk says no (403)") == (last["name"], last["outcome"], last["told"])
    assert last["hint"].startswith("let the desk trust this agent's keys")
    done = agent.run("provider", "check", "helpdesk", "--spiffe-id", ME, check=False)
    assert 1 == done.returncode
    assert "next:" in done.stdout
    assert "helpdesk: failed at key" == done.stdout.splitlines()[-1]
    assert "eyJ" not in done.stdout


def test_check_of_a_slow_one(agent: AgentProcess, desk: Desk) -> None:
    """A desk that does not answer is a failed step within its time, and other calls are answered meanwhile."""
    desk.hangs.clear()
    status, told = checked(agent, "--spiffe-id", ME)
    assert (1, "failed") == (status, told["steps"][-1]["outcome"])
    assert told["steps"][-1]["milliseconds"] < 15_000


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        (("--spiffe-id", "spiffe://example.org/who"), "identity"),
        (("--spiffe-id", ME, "--type", "none"), "task_types"),
        (("--spiffe-id", ME, "--action", "ticket:burn"), "task_types"),
    ],
)
def test_check_of_what_is_not_here(agent: AgentProcess, arguments: tuple[str, ...], step: str) -> None:
    """What the agent itself lacks is told as the step that fails, with status 1."""
    status, told = checked(agent, *arguments)
    assert (1, step) == (status, told["steps"][-1]["name"])


def test_no_such_provider(agent: AgentProcess) -> None:
    """A name that the configuration has not: status 1, and which there are; no step of it was tried."""
    for verb in ("check", "show"):
        done = agent.run("provider", verb, "other", check=False)
        assert (1, "") == (done.returncode, done.stdout)
        assert "has no [providers.other]; there are: helpdesk [not_found]" in done.stderr


def test_its_own_test(installed: Path) -> None:
    """The test that comes with the example passes, as its author would run it."""
    run_own_tests(EXAMPLE, "test_desk.py", installed)


def test_samples() -> None:
    """The configuration and the task types of deploy/samples/providers are taken, with every kind of provider."""
    folder = ROOT / "deploy" / "samples" / "providers"
    agent = AgentProcess(config=(folder / "agent.toml").read_text().replace('"task-types"', f'"{folder}/task-types"'))
    with agent:
        found = {each["name"]: each for each in agent.json("provider", "list")["providers"]}
    assert {"keycloak", "oidc", "bearer", "aws", "gcp", "entra", "vault"} == {each["kind"] for each in found.values()}
    assert {("handle-orders",)} == {tuple(each["task_types"]) for each in found.values()}
