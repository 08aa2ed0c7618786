"""The command line: help, usage, what it says when something is wrong, configuration and policy."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness.agent import COMMAND, SAMPLES, AgentProcess, clean_environment
from harness.clioutput import check_error
from harness.taskagent import PLACE_A, TICKETS, TRIAGE, write_type

pytestmark = pytest.mark.full

GROUPS: dict[str, tuple[str, ...]] = {
    "": ("validate", "explain", "status"),
    "agent": ("run",),
    "entry": ("create", "show", "list", "update", "delete", "count", "apply", "export"),
    "svid": ("x509", "jwt", "rotate", "revoke", "revoked"),
    "task": (
        "run",
        "begin",
        "token",
        "narrow",
        "delegate",
        "accept",
        "complete",
        "list",
        "show",
        "why",
        "suspend",
        "resume",
        "revoke",
        "block",
        "unblock",
        "blocks",
    ),
    "fact": ("set", "unset", "list", "publish"),
    "policy": ("check", "test", "explain", "reload", "shadow-report"),
    "authority": ("show", "prepare", "activate", "rotate", "taint", "revoke"),
    "bundle": ("show", "list", "set", "delete"),
    "federation": ("create", "list", "show", "update", "refresh", "delete"),
    "audit": ("tail", "verify"),
    "config": ("show",),
}
COMMANDS = [f"{group} {name}".strip() for group, names in GROUPS.items() for name in names]


# --- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *filter(None, GROUPS), *COMMANDS])
def test_help(command: str) -> None:
    """Every command and group has help, which names its options and needs no agent."""
    done = subprocess.run(
        [*COMMAND, *command.split(), "--help"], env=clean_environment(), capture_output=True, text=True, timeout=30
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert f"Usage: sojourn {command}".rstrip() in done.stdout
    assert "--help" in done.stdout


def test_version() -> None:
    """`--version` prints the version."""
    done = subprocess.run([*COMMAND, "--version"], env=clean_environment(), capture_output=True, text=True, timeout=30)
    assert (0, "sojourn 0.") == (done.returncode, done.stdout[:10])


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["entry", "nonsense"],
        ["entry", "create"],
        ["entry", "create", "--spiffe-id", "spiffe://example.org/x"],
        ["entry", "create", "--spiffe-id", "example.org/x", "--selector", "unix:uid:1"],
        ["entry", "create", "--spiffe-id", "spiffe://example.org/x", "--selector", "unix"],
        ["entry", "create", "--spiffe-id", "spiffe://example.org/x", "--selector", "a:b", "--x509-svid-ttl", "long"],
        ["entry", "update", "x"],
        ["federation", "create", "x.org"],
        ["federation", "create", "x.org", "--url", "https://x.org/b"],
        ["federation", "create", "x.org", "--url", "https://x.org/b", "--profile", "https"],
        ["svid", "jwt"],
        ["svid", "x509", "--output", "yaml"],
        ["validate", "x"],
        ["explain", "--pid", "x"],
        ["task", "run", "--type", "x"],
        ["task", "run", "--type", "x", "--param", "novalue", "--", "true"],
        ["task", "begin", "--type", "x", "--resource", "https://a.example"],
        ["task", "begin", "--type", "x", "--ttl", "soon"],
        ["task", "run", "--", "true"],
        ["task", "run", "--type", "x", "--ticket-file", "y", "--", "true"],
        ["task", "run", "--ticket-file", "y", "--ttl", "5m", "--", "true"],
        ["task", "accept", "--ticket-file", "/does/not/exist"],
        ["task", "delegate", "x", "--to", TRIAGE, "--max", "soon"],
        ["audit", "tail", "--lines", "0"],
        ["svid", "x509", "--socket", "tcp://127.0.0.1:80"],
        ["config", "show", "--config", "/does/not/exist"],
        ["config", "show", "--trust-domain", "UPPER"],
        ["policy", "check", "/does/not/exist"],
    ],
    ids=" ".join,
)
def test_usage(shared: AgentProcess, arguments: list[str]) -> None:
    """What is said wrongly is exit status 2, with a sentence on standard error and nothing on standard output."""
    done = shared.run(*arguments, check=False)
    assert (2, "") == (done.returncode, done.stdout)
    *errors, last = done.stderr.splitlines()
    assert all(re.fullmatch(r"error: .+ \[[a-z_]+\]", line) for line in errors or [last]), done.stderr
    assert last.startswith("next:  " if errors else "error: ")


AWAY = [
    ["entry", "create", "--spiffe-id", "spiffe://example.org/x", "--selector", "unix:uid:1"],
    ["entry", "list"],
    ["entry", "show", "x"],
    ["entry", "update", "x", "--hint", "h"],
    ["entry", "delete", "x"],
    ["entry", "count"],
    ["svid", "x509"],
    ["svid", "jwt", "--audience", "a"],
    ["validate", "x", "--audience", "a"],
    ["explain", "--pid", "1"],
    ["status"],
    ["task", "run", "--type", "x", "--", "true"],
    ["task", "begin", "--type", "x"],
    ["task", "token", "x"],
    ["task", "complete", "x"],
    ["task", "delegate", "x", "--to", TRIAGE],
    ["task", "list"],
    ["task", "show", "x"],
    ["task", "revoke", "x"],
    ["policy", "reload"],
    ["policy", "shadow-report"],
    ["policy", "explain", "x", "--workload", TRIAGE, "--action", "a", "--resource", TICKETS],
    ["authority", "show"],
    ["bundle", "show"],
    ["federation", "list"],
    ["federation", "refresh", "x.org"],
    ["audit", "tail"],
    ["audit", "verify"],
]


@pytest.mark.parametrize("arguments", AWAY, ids=" ".join)
def test_no_agent(tmp_path: Path, arguments: list[str]) -> None:
    """Without an agent every command that needs one is exit status 3, names the socket and says what to do."""
    nobody = AgentProcess(folder=tmp_path)
    done = nobody.run(*arguments, check=False)
    check_error(done, 3, "unreachable")
    assert str(tmp_path) in done.stderr
    assert "sojourn agent run" in done.stderr


def test_errors_as_json(shared: AgentProcess) -> None:
    """With `--output json` an error is one JSON object on standard error, with a stable code."""
    done = shared.run("entry", "show", "no-such", "--output", "json", check=False)
    assert (1, "") == (done.returncode, done.stdout)
    error = json.loads(done.stderr)["error"]
    assert ("not_found", {"code", "message"}) == (error["code"], set(error))


def test_output_that_nobody_reads(shared: AgentProcess) -> None:
    """A reader that closes the pipe early causes no traceback."""
    command = f"{COMMAND[0]} bundle show --output json | true"
    done = subprocess.run(["sh", "-c", command], env=shared.environment, capture_output=True, text=True, timeout=30)
    assert "" == done.stderr


# --- configuration and policy ---------------------------------------------------------------------------------------


def shown(environment: dict[str, str], *arguments: str) -> dict[str, tuple[Any, str]]:
    done = subprocess.run(
        [*COMMAND, "config", "show", *arguments, "--output", "json"],
        env={**clean_environment(), **environment}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr)
    return {each["key"]: (each["value"], each["origin"]) for each in json.loads(done.stdout)["values"]}


def test_where_a_value_comes_from(tmp_path: Path) -> None:
    """`config show` tells of each key what it is and whether flag, variable, file or default said so, in that order."""
    file = tmp_path / "agent.toml"
    file.write_text(
        'trust_domain = "file.example"\nnode_name = "n"\n\n[identity]\njwt_svid_ttl = "10m"\n[log]\nlevel = "debug"\n'
    )
    found = shown(
        {"SOJOURN_NODE_NAME": "v", "SOJOURN_LOG_LEVEL": "error", "SOJOURN_TRUST_DOMAIN": "variable.example"},
        "--config", str(file), "--trust-domain", "flag.example",
    )  # fmt: skip
    assert ("flag.example", "flag") == found["trust_domain"]
    assert ("v", "SOJOURN_NODE_NAME") == found["node_name"]
    assert ("error", "SOJOURN_LOG_LEVEL") == found["log.level"]
    assert ("10m", f"{file}:5") == found["identity.jwt_svid_ttl"]
    assert ("1h", "default") == found["identity.x509_svid_ttl"]
    by_variable = shown({"SOJOURN_CONFIG": str(file)})
    assert ("file.example", f"{file}:1") == by_variable["trust_domain"]


def test_the_sample_configuration() -> None:
    """The quickstart sample is a good configuration whose task types are beside it."""
    found = shown({}, "--config", str(SAMPLES / "quickstart.toml"))
    assert str(SAMPLES / "task-types") == found["tasks.types_dir"][0]


def test_all_faults_of_a_configuration(tmp_path: Path) -> None:
    """A configuration with faults is refused with all of them, each with its line."""
    file = tmp_path / "agent.toml"
    file.write_text('trust_domain = "NO"\nnonsense = 1\n[identity]\nx509_svid_ttl = "1s"\n')
    for command in (["config", "show"], ["agent", "run"]):
        done = subprocess.run(
            [*COMMAND, *command, "--config", str(file)],
            env=clean_environment(), capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert (2, "") == (done.returncode, done.stdout)
        assert {f"error: {file}:{line}: {key}" for line, key in
                ((1, "trust_domain"), (2, "nonsense"), (4, "identity.x509_svid_ttl"))} == {
            ":".join(line.split(":")[:4]) for line in done.stderr.splitlines() if not line.startswith("next:  ")
        }  # fmt: skip


def test_policy_check_of_the_samples(shared: AgentProcess) -> None:
    """The sample task types are good, without an agent."""
    types = shared.json("policy", "check", str(SAMPLES / "task-types"))["task_types"]
    [triage] = [each for each in types if each["name"] == "triage-ticket"]
    assert (9, [{"resource": TICKETS, "actions": ["ticket:read"]}]) == (len(types), triage["ceiling"])


def test_policy_check_of_broken_types(tmp_path: Path) -> None:
    """`policy check` tells the faults of all files of a folder; an agent with such a folder has no task types."""
    good = '@id("a") permit (principal, action, resource);'
    head = f'allowed_workloads = ["{TRIAGE}"]\n'
    ceiling = f'[[ceiling]]\nresource = "{PLACE_A}"\nactions = ["doc:read"]\n'
    write_type(tmp_path, "not-toml", "= 1", good)
    write_type(tmp_path, "unknown-key", head + "colour = 1\n" + ceiling, good)
    write_type(tmp_path, "not-cedar", head + ceiling, "permit (")
    write_type(tmp_path, "no-id", head + ceiling, "permit (principal, action, resource);")
    write_type(
        tmp_path,
        "unknown-action",
        head + ceiling,
        '@id("a") permit (principal, action == Sojourn::Action::"x", resource);',
    )
    write_type(tmp_path, "long", head + 'max_duration = "2d"\n' + ceiling, good)
    (tmp_path / "alone.toml").write_text(head + ceiling)
    names = ["not-toml", "unknown-key", "not-cedar", "no-id", "unknown-action", "long", "alone"]
    done = subprocess.run(
        [*COMMAND, "policy", "check", str(tmp_path)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (2, "") == (done.returncode, done.stdout)
    assert [] == [name for name in names if f"{tmp_path}/{name}." not in done.stderr]
    assert "Traceback" not in done.stderr
    config = tmp_path / "agent.toml.txt"
    config.write_text(f'[tasks]\ntypes_dir = "{tmp_path}"\n')
    with AgentProcess(config=config.read_text()) as agent:
        status = agent.json("status")
        assert ("none", []) == (status["policy"]["origin"], status["task_types"])
        assert [] == [name for name in names if f"{tmp_path}/{name}." not in status["policy"]["fault"]]
