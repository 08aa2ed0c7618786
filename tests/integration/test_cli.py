"""The command line: every command, its JSON, its exit statuses, and what it says when something is wrong."""

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from harness.agent import COMMAND, SAMPLES, AgentProcess, clean_environment
from harness.callers import Caller
from harness.exchanges import part
from harness.looking import until
from harness.taskagent import PLACE_A, TICKETS, TRIAGE, write_type
from harness.taskcalls import Feed

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


def check_error(done: "subprocess.CompletedProcess[str]", status: int, code: str) -> None:
    """One error: its exit status, at most three lines, no traceback, nothing on standard output."""
    assert status == done.returncode, done.stderr
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 3, done.stderr
    assert lines[0].startswith("error: ")
    assert lines[0].endswith(f"[{code}]"), lines[0]
    assert "Traceback" not in done.stderr
    assert "" == done.stdout


def keys_of(value: Any) -> set[str]:
    """All keys at any depth that are fixed names (not those of free maps)."""
    if isinstance(value, list):
        return {key for each in value for key in keys_of(each)}
    if isinstance(value, dict):
        free = {"claims", "params", "fields", "bundle", "values"}
        return set(value) | {key for name, each in value.items() if name not in free for key in keys_of(each)}
    return set()


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


# --- each command ---------------------------------------------------------------------------------------------------

ENTRY_KEYS = {
    "id", "spiffe_id", "parent_id", "selectors", "x509_svid_ttl", "jwt_svid_ttl", "hint", "dns_names",
    "federates_with", "expires_at", "revision", "created_at", "priority", "origin", "admin", "downstream", "store_svid",
    "additional_attributes", "disable_x509_svid_prefetch", "jwt_svid_include_jti", "jwt_claims",
}  # fmt: skip
TASK_KEYS = {
    "outside",
    "id", "type", "spiffe_id", "state", "reason", "grants", "params", "created_at", "expires_at", "holder_pid",
    "tokens_issued", "version", "calls", "uses", "parent_id", "depth", "actors",
}  # fmt: skip


# What is only there if there is something to be told, such as an open stream.
SOMETIMES = {
    "explain": {"what", "reason", "serial", "not_after", "rotate_at", "lifetime"},
    "status": {
        "what", "reason", "method", "pid", "uid", "exe", "since", "last_push", "pushes", "entry_id", "spiffe_id",
        "serial", "not_after", "rotate_at", "lifetime", "subject", "first_at", "last_at", "count",
    },
}  # fmt: skip


def test_the_life_of_an_entry(shared: AgentProcess) -> None:
    """An entry is created, shown, listed, changed and deleted, with the same keys each time."""
    made = shared.register(
        "/life", "unix:uid:77", "unix:gid:78", x509_svid_ttl="10s", jwt_svid_ttl="5m", hint="h", dns_name="a.example"
    )
    assert ENTRY_KEYS | {"warnings"} == keys_of(made)
    assert [] == made.pop("warnings")
    assert (["unix:gid:78", "unix:uid:77"], 10, 300, "h", ["a.example"], 0) == (
        sorted(made["selectors"]), made["x509_svid_ttl"], made["jwt_svid_ttl"], made["hint"], made["dns_names"],
        made["revision"],
    )  # fmt: skip
    assert made == shared.json("entry", "show", made["id"])
    assert [made] == shared.json("entry", "list", "--spiffe-id", "spiffe://example.org/life")["entries"]
    assert [made] == shared.json("entry", "show", "--selector", "unix:uid:77")["entries"]
    changed = shared.json("entry", "update", made["id"], "--hint", "other")
    assert {**made, "hint": "other", "revision": 1, "warnings": []} == changed
    assert "spiffe://example.org/life" in shared.run("entry", "list").stdout
    count = shared.json("entry", "count")["count"]
    twin = shared.run(
        "entry", "create", "--spiffe-id", "spiffe://example.org/life", "--selector", "unix:uid:77",
        "--selector", "unix:gid:78", check=False,
    )  # fmt: skip
    check_error(twin, 1, "already_exists")
    deleted = shared.json("entry", "delete", made["id"])["results"]
    assert [(made["id"], True)] == [(each["id"], each["deleted"]) for each in deleted]
    assert count - 1 == shared.json("entry", "count")["count"]
    check_error(shared.run("entry", "show", made["id"], check=False), 1, "not_found")
    again = shared.run("entry", "delete", made["id"], check=False)
    assert (1, "") == (again.returncode, again.stdout)
    assert f"error: {made['id']}: entry not found [not_found]" == again.stderr.splitlines()[0]


def test_an_entry_that_is_not_accepted(shared: AgentProcess) -> None:
    """An entry that the agent does not accept is exit status 1, with the rule."""
    done = shared.run(
        "entry", "create", "--spiffe-id", "spiffe://elsewhere.example/x", "--selector", "unix:uid:1", check=False
    )
    check_error(done, 1, "invalid_entry")


CONDITION_KEYS = {"conditions", "approval", "break_glass", "delegation", "to", "max_depth", "max_children", "facts"}
AUTHORITY_KEYS = {"keys", "authority_id", "status", "tainted", "created_at", "not_after"}


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["status"], {"trust_domain", "node_id", "version", "started_at", "epoch", "entries", "live_tasks", "connections",
                      "task_types", "authority", "limitations", "followed", "streams", "svids", "failures", "kind", "root_serial",
                      "root_not_after", "issuer_serial", "issuer_not_after", "jwt_key_ids", *AUTHORITY_KEYS - {"not_after"},
                      "policy", "shadow", "folder", "digest", "loaded_at", "fault", "approvals_waiting", "reviews",
                      "signals", "listeners", "federation", "attestors", "name",
                      "asked", "failed", "seconds", "failing", "failure", "failed_at"}),
        (["authority", "show"], {"kind", "root_serial", "root_not_after", "issuer_serial", "issuer_not_after",
                                 "jwt_key_ids", *AUTHORITY_KEYS}),
        (["svid", "revoked"], {"revoked"}),
        (["bundle", "show"], {"trust_domain", "bundle", "pem"}),
        (["federation", "list"], {"relationships"}),
        (["audit", "tail", "-n", "3"], {"records", "seq", "at", "event", "fields", "digest"}),
        (["audit", "verify"], {"intact", "records", "first_bad_seq", "reason", "first_seq"}),
        (["svid", "jwt", "--audience", "a"], {"spiffe_id", "token", "hint", "audience", "expires_at"}),
        (["svid", "x509"], {"svids", "spiffe_id", "serial", "not_before", "not_after", "hint", "dns_names", "x509_svid",
                            "bundle", "files"}),
        (["explain", "--pid", str(os.getpid())], {"pid", "uid", "gid", "exe", "selectors", "withheld",
                                                  "failed_attestors", "verdicts", "entry_id", "spiffe_id", "verdict",
                                                  "missing", "priority", "x509_svid", "conclusion", "attestors",
                                                  "name", "seconds", "age_seconds", "failure", "needed", "template",
                                                  "jwt_claims"}),
        (["task", "list", "--all"], {"tasks", *TASK_KEYS, "resource", "actions", "action", "tokens"}),
        (["task", "blocks"], {"blocks"}),
        (["config", "show"], {"values"}),
        (["policy", "check", str(SAMPLES / "task-types")], {"digest", "task_types", "name", "description", "consequence",
                                                            "bound", "ceiling", "resource", "actions", "policies", "injected",
                                                            "warnings", *CONDITION_KEYS, "approvers", "count",
                                                            "within_seconds", "type", "required", "sources",
                                                            "max_age_seconds", "on_deny"}),
        (["policy", "test", str(SAMPLES / "task-types")], {"task_types", "task_type", "cases", "failed",
                                                           "undecided_policies"}),
        (["policy", "explain", "triage-ticket", "--workload", TRIAGE, "--action", "ticket:read", "--resource", TICKETS],
         {"type", "digest", "allowed", "rule", "reason", "policies", "attributes", "standings", "id", "effect", "line",
          "applies", "misses", "changes", "what", "name", "value", *CONDITION_KEYS}),
        (["policy", "reload", "--dry-run"], {"digest", "digest_before", "dry_run", "tasks"}),
        (["policy", "shadow-report"], {"shadow", "compared", "errors", "beyond", "differences"}),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)  # fmt: skip
def test_json_keys(shared: AgentProcess, arguments: list[str], keys: set[str]) -> None:
    """What a command prints as JSON has the keys that scripts rely on, in snake_case; and there is a form for people."""
    if arguments[0] == "task":
        with Caller(shared.socket) as holder:
            holder.ask("begin_process", type="triage-ticket")
    found = keys_of(shared.json(*arguments))
    assert keys == found - SOMETIMES.get(arguments[0], set())
    assert [] == [key for key in found if not key.isidentifier() or key != key.lower()]
    assert shared.run(*arguments).stdout.strip()


def test_explain(shared: AgentProcess) -> None:
    """`explain` tells which entries a process has and what it lacks for the others."""
    told = shared.json("explain", "--pid", str(os.getpid()))
    verdicts = {each["spiffe_id"]: each for each in told["verdicts"] if each["missing"] or each["verdict"] == "matches"}
    assert f"unix:uid:{os.getuid()}" in told["selectors"]
    assert any(each["missing"] for each in told["verdicts"]), verdicts
    assert TRIAGE in {each["spiffe_id"] for each in told["verdicts"] if not each["missing"]}
    check = shared.run("explain", "--pid", "4194301", check=False)
    assert (1, "") == (check.returncode, check.stdout)
    assert "there is no process 4194301" in check.stderr


def test_foreign_bundles(shared: AgentProcess, tmp_path: Path) -> None:
    """A foreign bundle is set from a SPIFFE document or PEM, listed, and deleted as it is told."""
    for name, arguments in (("spiffe", ["--format", "spiffe"]), ("pem", [])):
        (tmp_path / name).write_text(shared.run("bundle", "show", *arguments).stdout)
    told = shared.json("bundle", "set", "other.example", str(tmp_path / "spiffe"))
    assert ("other.example", 1, 1) == (told["trust_domain"], told["x509_authorities"], told["jwt_authorities"])
    assert 0 == shared.json("bundle", "set", "pem.example", str(tmp_path / "pem"))["jwt_authorities"]
    listed = shared.json("bundle", "list")["bundles"]
    assert ["other.example", "pem.example"] == [each["trust_domain"] for each in listed]
    made = shared.run("entry", "create", "--spiffe-id", "spiffe://example.org/friend", "--selector", "unix:uid:77",
                      "--federates-with", "other.example", "--output", "json").stdout  # fmt: skip
    check_error(shared.run("bundle", "delete", "other.example", check=False), 1, "failed_precondition")
    shared.run("bundle", "delete", "other.example", "--mode", "dissociate")
    shared.run("bundle", "delete", "pem.example")
    assert [] == shared.json("bundle", "list")["bundles"]
    shared.run("entry", "delete", json.loads(made)["id"])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"keys": []}', "-----BEGIN CERTIFICATE-----\nx", "[" * 100_000])
def test_a_file_that_is_no_bundle(shared: AgentProcess, tmp_path: Path, content: str) -> None:
    """A file that is no bundle, or one without keys, is refused, and nothing is set."""
    (tmp_path / "file").write_text(content)
    done = shared.run("bundle", "set", "other.example", str(tmp_path / "file"), check=False)
    check_error(done, 2, "invalid_bundle")
    assert [] == shared.json("bundle", "list")["bundles"]


def test_bundle_formats(shared: AgentProcess) -> None:
    """The bundle is printed as PEM or as a SPIFFE document, and the two are alike."""
    pem = shared.run("bundle", "show").stdout
    document = json.loads(shared.run("bundle", "show", "--format", "spiffe").stdout)
    assert {"x509-svid", "jwt-svid"} == {key["use"] for key in document["keys"]}
    assert len(x509.load_pem_x509_certificates(pem.encode())) == len(
        [key for key in document["keys"] if key["use"] == "x509-svid"]
    )


def test_validate(shared: AgentProcess) -> None:
    """`validate` is exit status 0 for a token that is good, from its argument or standard input, and 1 for others."""
    token = shared.run("svid", "jwt", "--audience", "a").stdout.strip()
    good = shared.json("validate", token, "--audience", "a")
    assert {"valid", "code", "reason", "kind", "spiffe_id", "actors", "claims"} == set(good)
    assert (True, "jwt_svid", TRIAGE) == (good["valid"], good["kind"], good["spiffe_id"])
    piped = subprocess.run(
        [*COMMAND, "validate", "-", "--audience", "a"],
        input=token + "\n", env=shared.environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (0, f"valid: jwt_svid of {TRIAGE}") == (piped.returncode, piped.stdout.splitlines()[0])
    said = dict(line.split(maxsplit=1) for line in piped.stdout.splitlines()[1:])
    ends = datetime.fromtimestamp(good["claims"]["exp"], UTC)  # for people a time, in JSON the claim as it is
    assert ends == datetime.fromisoformat(said["exp"])
    for arguments, code in ((["--audience", "b"], "wrong_audience"), (["--audience", "a", "--task"], "wrong_type")):
        done = shared.run("validate", token, *arguments, check=False)
        assert (1, "") == (done.returncode, done.stderr)
        assert done.stdout.startswith("not valid: ")
        assert done.stdout.endswith(f"[{code}]\n")


def test_svid_write(shared: AgentProcess, tmp_path: Path) -> None:
    """`svid x509 --write` writes whole files with the documented modes, and replaces them whole."""
    folder = tmp_path / "svid"
    for _ in range(2):
        svid = shared.json("svid", "x509", "--write", str(folder))["svids"][0]
        assert {"svid.0.key": 0o600, "svid.0.pem": 0o644, "bundle.0.pem": 0o644} == {
            path.name: stat.S_IMODE(path.stat().st_mode) & 0o666 for path in folder.iterdir()
        }
        assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
        leaf, *_ = x509.load_pem_x509_certificates((folder / "svid.0.pem").read_bytes())
        key = load_pem_private_key((folder / "svid.0.key").read_bytes(), None)
        assert leaf.public_key() == key.public_key()
        assert f"{leaf.serial_number:x}" == svid["serial"]
        assert x509.load_pem_x509_certificates((folder / "bundle.0.pem").read_bytes())
        assert {"svid": str(folder / "svid.0.pem"), "key": str(folder / "svid.0.key"),
                "bundle": str(folder / "bundle.0.pem")} == svid["files"]  # fmt: skip


def test_svid_write_where_it_cannot(shared: AgentProcess, tmp_path: Path) -> None:
    """`svid x509 --write` into what is no folder is an error in one sentence."""
    (tmp_path / "file").write_text("")
    done = shared.run("svid", "x509", "--write", str(tmp_path / "file"), check=False)
    assert done.returncode in {1, 2}
    assert done.stderr.startswith(f"error: cannot write to '{tmp_path}/file'")


def test_svid_watch(agent: AgentProcess, tmp_path: Path) -> None:
    """`svid x509 --watch` prints and writes each update, and ends with SIGTERM or SIGINT."""
    entry = agent.register("/watched", f"unix:uid:{os.getuid()}")
    command = [*COMMAND, "svid", "x509", "--watch", "--write", str(tmp_path / "w")]
    with subprocess.Popen(
        command, env=agent.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as it:
        lines = reader(it)
        serial = next(line.split()[1] for line in lines if line.strip().startswith("serial"))
        agent.run("entry", "update", entry["id"], "--dns-name", "changed.example")
        second = next(line.split()[1] for line in lines if line.strip().startswith("serial"))
        assert serial != second
        until(lambda: second == serial_in(tmp_path / "w" / "svid.0.pem"), "the new certificate is written")
        it.send_signal(signal.SIGINT)
        assert 0 == it.wait(timeout=15)
        assert "Traceback" not in (it.stderr.read() if it.stderr else "")


def reader(process: "subprocess.Popen[str]") -> Iterator[str]:
    """The lines of a process, with a deadline on all of them."""
    guard = threading.Timer(30, process.kill)
    guard.start()
    assert process.stdout is not None
    try:
        yield from process.stdout
    finally:
        guard.cancel()


def serial_in(path: Path) -> str:
    return f"{x509.load_pem_x509_certificate(path.read_bytes()).serial_number:x}"


# --- task run -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(shared: AgentProcess, script: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """`task run` of a shell script, in a session of its own, of which nothing is left afterwards."""
    process = subprocess.Popen(
        [*COMMAND, "task", "run", "--type", "triage-ticket", *options, "--", "sh", "-c", script],
        env=shared.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    guard = threading.Timer(20, end)
    guard.start()
    with process:
        try:
            yield process
        finally:
            guard.cancel()
            end()


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def task_run(shared: AgentProcess, *command: str, options: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    return shared.run("task", "run", "--type", "triage-ticket", *options, "--", *command, check=False)


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [("exit 0", 0, "success"), ("exit 7", 7, "failure"), ("kill -TERM $$", 143, "failure"),
     ("kill -KILL $$", 137, "failure")],
)  # fmt: skip
def test_the_exit_status_passes_through(shared: AgentProcess, script: str, status: int, reason: str) -> None:
    """`task run` ends as its command ended, and so does the task."""
    done = task_run(shared, "sh", "-c", f"echo $SOJOURN_TASK_ID $SOJOURN_TASK_TYPE; {script}")
    task, type_ = done.stdout.split()
    assert (status, "triage-ticket", "") == (done.returncode, type_, done.stderr)
    shown = shared.json("task", "show", task)
    assert ("completed", reason) == (shown["state"], shown["reason"])
    assert TASK_KEYS | {"external_credentials", "residual_credentials", "residual_until"} == set(shown)


def test_standard_streams_pass_through(shared: AgentProcess) -> None:
    """`task run` leaves its command's standard input, output and error alone."""
    done = subprocess.run(
        [*COMMAND, "task", "run", "--type", "triage-ticket", "--", "sh", "-c", "cat; echo no >&2"],
        input="yes\n", env=shared.environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (0, "yes\n", "no\n") == (done.returncode, done.stdout, done.stderr)


def test_options_of_the_command_are_its_own(shared: AgentProcess) -> None:
    """What comes after the command's name is the command's, even if `task run` has an option of that name."""
    done = task_run(shared, "echo", "--type", "x", "--help", "--output", "json")
    assert (0, "--type x --help --output json\n") == (done.returncode, done.stdout)


def test_no_token_in_arguments_or_environment(shared: AgentProcess) -> None:
    """A command under `task run` finds the task's ID and the socket in its environment, and no token anywhere."""
    script = f"{COMMAND[0]} task token; env; cat /proc/$PPID/cmdline /proc/$PPID/environ | tr '\\0' '\\n'"
    done = task_run(shared, "sh", "-c", script)
    token, *rest = done.stdout.splitlines()
    assert "ticket:read" in part(token, 1)["authorization_details"][0]["actions"]
    assert [] == [line for line in rest if token in line or "eyJ" in line]
    assert f"SPIFFE_ENDPOINT_SOCKET=unix://{shared.socket}" in rest


@pytest.mark.parametrize(
    ("command", "said"),
    [("no-such-command", "command 'no-such-command' was not found"),
     ("/etc/passwd", "command '/etc/passwd' cannot be run: Permission denied"),
     ("/", "command '/' cannot be run: Permission denied")],
)  # fmt: skip
def test_a_command_that_cannot_be_run(shared: AgentProcess, command: str, said: str) -> None:
    """`task run` of what cannot be run says so, and ends with 127 or 126 as shells do."""
    done = task_run(shared, command)
    assert done.stderr.startswith(f"error: {said}")
    assert "Traceback" not in done.stderr
    assert (127 if "not found" in said else 126) == done.returncode


def test_what_may_not_begin(shared: AgentProcess) -> None:
    """`task run` of a task that may not begin is refused, and does not run the command."""
    for options, code in (
        (("--resource", TICKETS, "--action", "ticket:close"), "action_outside_type"),
        (("--resource", PLACE_A, "--action", "ticket:read"), "invalid_target"),
        (("--param", "x=1"), "invalid_input"),
    ):
        check_error(task_run(shared, "echo", "ran", options=options), 1, code)
    check_error(
        shared.run("task", "run", "--type", "no-such", "--", "echo", "ran", check=False), 1, "unknown_task_type"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(shared: AgentProcess, number: signal.Signals) -> None:
    """A signal to `task run` reaches the command, whose exit status passes through."""
    script = (
        f"trap 'echo heard; exit 9' {number.name[3:]}; echo ready; while :; do read line < /dev/zero; sleep 0.05; done"
    )
    script = f"trap 'echo heard; exit 9' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    with running(shared, script) as run:
        assert run.stdout is not None
        assert "ready\n" == run.stdout.readline()
        run.send_signal(number)
        assert 9 == run.wait(timeout=15)
        assert "heard\n" == run.stdout.readline()


@pytest.mark.parametrize(
    ("script", "status"),
    [("exec sleep 60", 143), ("trap '' TERM; echo; while :; do sleep 1; done", 137), ("trap 'exit 0' TERM; while :; do sleep 0.05; done", 1)],
    ids=["ends", "does not end", "ends well"],
)  # fmt: skip
def test_an_operator_stops_a_command(shared: AgentProcess, script: str, status: int) -> None:
    """A command whose task an operator revokes is stopped: by SIGTERM, then by SIGKILL, and never as a success."""
    with running(shared, f"echo $SOJOURN_TASK_ID; {script}", "--grace", "0.5") as run:
        task = first_line(run)
        shared.run("task", "revoke", task)
        assert status == run.wait(timeout=15)
        assert run.stderr is not None
        assert "sojourn: the task has ended (revoked: admin); stopping the command\n" == run.stderr.read()
    assert "revoked" == shared.json("task", "show", task)["state"]


def test_a_short_life(shared: AgentProcess) -> None:
    """`task run --ttl` ends the task, and with it the command, when that time is up."""
    done = task_run(shared, "sleep", "60", options=("--ttl", "1s"))
    assert (143, "sojourn: the task has ended (expired: deadline); stopping the command\n") == (
        done.returncode,
        done.stderr,
    )


def test_task_run_is_killed(shared: AgentProcess) -> None:
    """The task is over when `task run` itself is killed, whatever its command does."""
    with Feed(shared.socket, [TICKETS]) as feed:
        feed.hear("snapshot")
        with running(shared, "echo $SOJOURN_TASK_ID; exec sleep 60") as run:
            task = first_line(run)
            run.kill()
            assert feed.delta(task, live=False).reason.startswith("revoked: holder_")


# --- the steps, from one script -------------------------------------------------------------------------------------


def test_the_steps_from_a_script(shared: AgentProcess) -> None:
    """One shell script begins a task, uses it and completes it; the task is the script's."""
    script = """set -e
id=$(sojourn task begin --type two-places --resource https://a.example.org --action doc:read)
export SOJOURN_TASK_ID=$id
sojourn task token --output json
sojourn task token "$id" | sojourn validate - --audience https://a.example.org --task --action doc:read > /dev/null
sojourn task complete
if sojourn task token 2>&1; then exit 5; fi
"""
    environment = {**shared.environment, "PATH": f"{Path(COMMAND[0]).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    value, end = json.JSONDecoder().raw_decode(done.stdout)
    assert {
        "access_token",
        "token_type",
        "resource",
        "actions",
        "expires_at",
        "task_id",
        "issued_token_type",
        "provider",
        "recall",
    } == set(value)
    assert (PLACE_A, ["doc:read"], "Bearer") == (value["resource"], value["actions"], value["token_type"])
    completed, refused, advice = done.stdout[end:].strip().splitlines()
    assert f"{value['task_id']} completed: success" == completed
    assert "error: the task is over: completed, success [task_not_active]" == refused
    assert "next:  begin a new task; or, if it is suspended, wait until it is resumed" == advice


def test_task_begin_as_json(shared: AgentProcess) -> None:
    """`task begin` prints what the task is; the caller may name the holder."""
    begun = shared.json("task", "begin", "--type", "triage-ticket", "--ttl", "30s")
    assert {
        "id",
        "type",
        "spiffe_id",
        "state",
        "reason",
        "grants",
        "expires_at",
        "parent_id",
        "actors",
        "outside",
    } == set(begun)
    assert os.getpid() == shared.json("task", "show", begun["id"])["holder_pid"]
    completed = shared.json("task", "complete", begun["id"], "--failed")
    assert ("completed", "failure") == (completed["state"], completed["reason"])


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
    assert (8, [{"resource": TICKETS, "actions": ["ticket:read"]}]) == (len(types), triage["ceiling"])


def test_policy_check_of_broken_types(tmp_path: Path) -> None:
    """`policy check` tells the faults of all files of a folder, and an agent with such a folder does not start."""
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
    agent = AgentProcess(config=config.read_text())
    try:
        process = agent.spawn()
        assert ("", None) == process.communicate(timeout=20)
        assert process.returncode in {1, 2}
        assert agent.log.read_text().startswith("error: task types: ")
    finally:
        agent.__exit__()
