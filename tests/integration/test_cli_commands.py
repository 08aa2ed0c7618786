"""The command line: what each command does, and the keys of its JSON."""

import json
import os
import signal
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from harness.agent import COMMAND, SAMPLES, AgentProcess
from harness.callers import Caller
from harness.clioutput import TASK_KEYS, check_error, keys_of
from harness.lines import lines_of
from harness.looking import until
from harness.taskagent import PLACE_A, TICKETS, TRIAGE

# --- each command ---------------------------------------------------------------------------------------------------

ENTRY_KEYS = {
    "id", "spiffe_id", "parent_id", "selectors", "x509_svid_ttl", "jwt_svid_ttl", "hint", "dns_names",
    "federates_with", "expires_at", "revision", "created_at", "priority", "origin", "owner", "sponsor", "admin", "downstream", "store_svid",
    "additional_attributes", "disable_x509_svid_prefetch", "jwt_svid_include_jti", "jwt_claims",
}  # fmt: skip


# What is only there if there is something to be told, such as an open stream.
CHAIN_KEYS = {  # of an agent that is its own root
    *("chain", "role", "serial", "subject", "key"), *("roots", "own", "signs", "needed_until"), "upstream", "fault",
}  # fmt: skip
SOMETIMES = {
    "explain": {"what", "reason", "serial", "not_after", "rotate_at", "lifetime"},
    "status": {
        "what", "reason", "method", "pid", "uid", "exe", "since", "last_push", "pushes", "entry_id", "spiffe_id",
        "serial", "not_after", "rotate_at", "lifetime", "subject", "first_at", "last_at", "count", "node",
        "longest_seconds", "last_seconds", "last_computing_seconds", "last_doing", "last_caller", "found", "tasks",
        "limit",
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


CONDITION_KEYS = {
    "conditions",
    "review",
    "approval",
    "break_glass",
    "delegation",
    "to",
    "max_depth",
    "max_children",
    "facts",
    "limits",
    "person",
}
AUTHORITY_KEYS = {"keys", "authority_id", "status", "tainted", "created_at", "not_after"}


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["status"], {"trust_domain", "node_id", "version", "started_at", "epoch", "entries", "live_tasks", "connections",
                      "task_types", "authority", "limitations", "followed", "streams", "streams_left_out", "svids", "svids_left_out", "failures", "kind", "root_serial",
                      "root_not_after", "issuer_serial", "issuer_not_after", "jwt_key_ids", "key_uri", *AUTHORITY_KEYS - {"not_after"},
                      *CHAIN_KEYS - SOMETIMES["status"],
                      "policy", "shadow", "folder", "digest", "loaded_at", "fault", "approvals_waiting", "reviews", "review_dates", "items", "due", "overdue",
                      "signals", "listeners", "federation", "attestors", "name", "other_nodes", "standstills",
                      "data_folder", "restored", "backup", "mark",
                      "audit_sinks", "audit_witnesses", "audit_timestamps", "journal_room",
                      "audit_log", "begun_at", "checkpoint", "checkpoint_at", "earlier", "first_seq", "size", "unsigned",
                      "vkey",
                      "asked", "failed", "seconds", "failing", "failure", "failed_at",
                      "origin", "accepted_at", "without", "config", "file", "read_at", "restart_needed",
                      "state", "faults", "task_owners", "task_owners_left_out", "data_dir", "socket",
                      "admin_socket", "upstream"}),
        (["authority", "show"], {"kind", "root_serial", "root_not_after", "issuer_serial", "issuer_not_after",
                                 "jwt_key_ids", "key_uri", *AUTHORITY_KEYS, *CHAIN_KEYS}),
        (["authority", "test"], {"roots", "authority_id", "status", "key", "seconds", "fault", "code"}),
        (["svid", "revoked"], {"revoked", "identities", "left_out"}),
        (["bundle", "show"], {"trust_domain", "bundle", "pem"}),
        (["federation", "list"], {"relationships"}),
        (["audit", "tail", "-n", "3"], {"records", "seq", "at", "event", "fields", "digest"}),
        (["audit", "verify"], {"intact", "records", "first_bad_seq", "reason", "first_seq", "unwritten"}),
        (["svid", "jwt", "--audience", "a"], {"spiffe_id", "token", "hint", "audience", "expires_at"}),
        (["svid", "x509"], {"svids", "spiffe_id", "serial", "not_before", "not_after", "hint", "dns_names", "x509_svid",
                            "bundle", "files"}),
        (["explain", "--pid", str(os.getpid())], {"pid", "uid", "gid", "exe", "selectors", "selectors_left_out", "withheld",
                                                  "failed_attestors", "verdicts", "entry_id", "spiffe_id", "verdict",
                                                  "missing", "priority", "x509_svid", "conclusion", "attestors",
                                                  "name", "seconds", "age_seconds", "failure", "needed", "template",
                                                  "jwt_claims"}),
        (["task", "list", "--all"], {"tasks", *TASK_KEYS, "resource", "actions", "action", "tokens", "counted", "limit"}),
        (["task", "blocks"], {"blocks"}),
        (["config", "show"], {"values"}),
        (["config", "explain", "listen.tcp"], {"name", "kind", "default", "limits", "meaning", "at_once", "flag", "variable"}),
        (["policy", "check", str(SAMPLES / "task-types")], {"digest", "task_types", "name", "description", "consequence",
                                                            "bound", "ceiling", "resource", "actions", "policies", "injected",
                                                            "warnings", *CONDITION_KEYS, "approvers", "count", "when",
                                                            "within_seconds", "type", "required", "sources",
                                                            "max_age_seconds", "on_deny", "high", "action", "uses",
                                                            "need", "issuers", "groups", "acr", "claims", "owner", "sponsor",
                                                            "max_auth_age_seconds", "several", "max_live"}),
        (["policy", "test", str(SAMPLES / "task-types")], {"task_types", "task_type", "cases", "failed",
                                                           "undecided_policies"}),
        (["policy", "explain", "triage-ticket", "--workload", TRIAGE, "--action", "ticket:read", "--resource", TICKETS],
         {"type", "digest", "allowed", "rule", "reason", "policies", "attributes", "standings", "id", "effect", "line",
          "applies", "misses", "changes", "what", "name", "value", "needs_approval",
          *CONDITION_KEYS}),
        (["policy", "reload", "--dry-run"], {"digest", "digest_before", "dry_run", "tasks", "left_out", "review_blocked"}),
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
    assert {"valid", "code", "reason", "kind", "spiffe_id", "actors", "claims", "person"} == set(good)
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


@pytest.mark.forked
def test_svid_watch(agent: AgentProcess, tmp_path: Path) -> None:
    """`svid x509 --watch` prints and writes each update at once, into a pipe too, and ends with SIGINT."""
    entry = agent.register("/watched", f"unix:uid:{os.getuid()}")
    command = [*COMMAND, "svid", "x509", "--watch", "--write", str(tmp_path / "w")]
    with subprocess.Popen(
        command, env=agent.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as it:
        lines = lines_of(it)
        serial = next(line.split()[1] for line in lines if line.strip().startswith("serial"))
        agent.run("entry", "update", entry["id"], "--dns-name", "changed.example")
        second = next(line.split()[1] for line in lines if line.strip().startswith("serial"))
        assert serial != second
        until(lambda: second == serial_in(tmp_path / "w" / "svid.0.pem"), "the new certificate is written")
        it.send_signal(signal.SIGINT)
        assert 0 == it.wait(timeout=15)
        assert "Traceback" not in (it.stderr.read() if it.stderr else "")


def serial_in(path: Path) -> str:
    return f"{x509.load_pem_x509_certificate(path.read_bytes()).serial_number:x}"


# --- the steps, from one script -------------------------------------------------------------------------------------


@pytest.mark.forked
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
    """`task begin` prints what the task is; its holder is whoever started the command."""
    begun = json.loads(
        subprocess.check_output(
            [*COMMAND, "task", "begin", "--type", "triage-ticket", "--ttl", "30s", "-o", "json"], env=shared.environment
        )
    )  # whoever starts the command holds the task
    assert {
        "id",
        "type",
        "spiffe_id",
        "state",
        "reason",
        "explanation",
        "grants",
        "expires_at",
        "parent_id",
        "actors",
        "outside",
        "person",
    } == set(begun)
    assert os.getpid() == shared.json("task", "show", begun["id"])["holder_pid"]
    completed = shared.json("task", "complete", begun["id"], "--failed")
    assert ("completed", "failure") == (completed["state"], completed["reason"])


def test_tasks_of_a_type_and_of_a_workload(shared: AgentProcess) -> None:
    """The list of tasks is narrowed by type and by workload, and status counts live tasks by user with the limit."""
    uid = os.getuid()
    with Caller(shared.socket) as caller:
        task = caller.ask("begin_process", type="triage-ticket", params={"ticket": "1"})["id"]

        def listed(*arguments: str) -> set[str]:
            return {each["id"] for each in shared.json("task", "list", *arguments)["tasks"]}

        assert task in listed("--type", "triage-ticket") & listed("--spiffe-id", TRIAGE)
        assert task in listed("--type", "triage-ticket", "--spiffe-id", TRIAGE)
        assert task not in listed("--type", "careful") | listed("--spiffe-id", "spiffe://example.org/nobody")
        owner = next(each for each in shared.json("status")["task_owners"] if each["uid"] == uid)
        assert 1 <= owner["tasks"] < owner["limit"]
        assert f"tasks of       uid {uid}: " in shared.run("status").stdout
    check_error(shared.run("task", "list", "--spiffe-id", "triage", check=False), 2, "invalid_spiffe_id")
