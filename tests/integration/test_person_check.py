"""`sojourn person check` on a real agent, beside an issuer on loopback: which step fails, and that no token is told."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.people import ALICE, CHAT, STEPS, PeopleIssuer
from harness.agent import COMMAND, AgentProcess
from harness.authserver import AuthServer

CONFIG = """
trust_domain = "example.org"
[people.corp]
issuer = "{issuer}"
plain_http = true
timeout = "5s"
[[people.corp.presenters]]
workloads = ["{chat}"]
id_token_audiences = ["chat-app"]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[AuthServer]:
    with AuthServer(path="/realms/corp") as server:
        yield server


@pytest.fixture(scope="module")
def agent(server: AuthServer) -> Iterator[AgentProcess]:
    with AgentProcess(config=CONFIG.format(issuer=server.issuer, chat=CHAT)) as agent:
        yield agent


@pytest.fixture(scope="module")
def idp(server: AuthServer) -> PeopleIssuer:
    made = PeopleIssuer(time.time(), url=server.issuer, algorithm="RS256")
    server.jwks = made.jwks()
    return made


def checked(agent: AgentProcess, file: Path, *arguments: str, spiffe_id: str = str(CHAT)) -> tuple[int, dict[str, Any]]:
    asked = ("person", "check", "corp", "--token-file", str(file), "--spiffe-id", spiffe_id, *arguments)
    done = agent.run(*asked, "--output", "json", check=False)
    return done.returncode, json.loads(done.stdout)


def test_a_good_token(agent: AgentProcess, idp: PeopleIssuer, tmp_path: Path) -> None:
    """A token that was given to the workload goes through all steps; as lines the last says that all is well."""
    file = tmp_path / "id.jwt"
    file.write_text(idp.id_token() + "\n")
    status, told = checked(agent, file)
    assert (0, True, "corp", STEPS) == (status, told["ok"], told["issuer"], [each["name"] for each in told["steps"]])
    lines = agent.run(
        "person", "check", "corp", "--token-file", str(file), "--spiffe-id", str(CHAT)
    ).stdout.splitlines()
    assert "corp: ok" == lines[-1]


def test_which_step_fails(agent: AgentProcess, idp: PeopleIssuer, tmp_path: Path) -> None:
    """The step that fails is the last one, with what to set; exit status 1. Another issuer's name has those there are."""
    file = tmp_path / "id.jwt"
    for changes, step in (
        ({"typ": "Refresh"}, "kind"),
        ({"aud": "desk-app", "azp": "desk-app"}, "audience"),
        ({"exp": idp.at - 1}, "freshness"),
        ({"groups": "support"}, "claims"),
    ):
        file.write_text(idp.id_token(**changes))
        status, told = checked(agent, file)
        last = told["steps"][-1]
        assert (1, False, step, "failed") == (status, told["ok"], last["name"], last["outcome"]), last
        assert last["hint"]
    file.write_text(idp.id_token())
    status, told = checked(agent, file, spiffe_id="spiffe://example.org/agent/other")
    assert (1, "presenter") == (status, told["steps"][-1]["name"])
    status, told = checked(agent, file, "--token-type", "access_token")
    assert (1, "kind") == (status, told["steps"][-1]["name"])


def test_from_standard_input(agent: AgentProcess, idp: PeopleIssuer) -> None:
    """A token comes on standard input, so that it need be in no file and is in no argument."""
    command = [
        "person",
        "check",
        "corp",
        "--token-file",
        "-",
        "--spiffe-id",
        str(CHAT),
        "--admin-socket",
        agent.admin_socket,
    ]
    done = subprocess.run(
        [*COMMAND, *command], input=idp.id_token(), capture_output=True, text=True, timeout=30, check=True
    )
    assert "corp: ok" == done.stdout.splitlines()[-1]


def test_nothing_of_a_token_is_told(agent: AgentProcess, idp: PeopleIssuer, tmp_path: Path) -> None:
    """Neither a token nor its subject is in what the command prints, in the log or in the journal, which has who asked."""
    file = tmp_path / "id.jwt"
    tokens = [
        idp.id_token(nonce="n1"),
        idp.id_token(nonce="n2", groups=7),
        PeopleIssuer(time.time(), url=idp.url).id_token(),
    ]
    said = ""
    for token in tokens:
        file.write_text(token)
        done = agent.run("person", "check", "corp", "--token-file", str(file), "--spiffe-id", str(CHAT), check=False)
        said += done.stdout + done.stderr
    records = agent.json("audit", "tail", "--lines", "50")["records"]
    found = [each["fields"] for each in records if each["event"] == "person_checked"][-3:]
    assert [("ok", None), ("failed", "claims"), ("failed", "signature")] == [
        (each["outcome"], each.get("step")) for each in found
    ]
    said += json.dumps(records) + agent.log.read_text()
    for token in tokens:
        for part in (token, *token.split(".")[1:], ALICE):
            assert part not in said


def test_what_is_no_token(agent: AgentProcess, tmp_path: Path) -> None:
    """A file that is missing, larger than any token or of other characters is told before anything is asked."""
    for content in (None, b"a" * 20_000, b"\xff"):
        file = tmp_path / "x"
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        done = agent.run("person", "check", "corp", "--token-file", str(file), "--spiffe-id", str(CHAT), check=False)
        assert 0 != done.returncode
        assert "file" in done.stderr or "read" in done.stderr
