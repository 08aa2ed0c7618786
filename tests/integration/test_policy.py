"""Task types on the real agent and command: checked, tested, explained, reloaded, and a candidate beside them."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import COMMAND, SAMPLES, AgentProcess, clean_environment
from harness.callers import Caller
from harness.looking import until
from harness.taskagent import CONFIG, PLACE_A, PLACE_B, TRIAGE, TYPES, write_type
from harness.taskcalls import Feed
from sojourn import SyncClient

pytestmark = [pytest.mark.full, pytest.mark.forked]

READ_ONLY = '@id("read-only") permit (principal, action == Sojourn::Action::"doc:read", resource);'
PAY = """allowed_workloads = ["spiffe://example.org/agent/triage"]
binding = ["session", "process"]
[params]
amount = {type = "long", min = 1, max = 100, required = true}
[[ceiling]]
resource = "https://pay.example.org"
actions = ["pay"]
"""
PERMIT = '@id("all") permit (principal, action, resource);'


@pytest.fixture
def own() -> Iterator[AgentProcess]:
    """An agent with one task type, `two-places`, and a candidate set that is the same; this user is /agent/triage."""
    agent = AgentProcess(config=CONFIG.format(level="info").replace("[log]", 'shadow_types_dir = "candidate"\n[log]'))
    for name in ("types", "candidate"):
        (agent.folder / name).mkdir()
        write_type(agent.folder / name, "two-places", *TYPES["two-places"])
    with agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield agent


def put(agent: AgentProcess, cedar: str, *, folder: str = "types", name: str = "two-places") -> None:
    """Put another policy into the folder, as one should: written elsewhere, and moved there."""
    written = agent.folder / "written"
    written.write_text(cedar)
    os.replace(written, agent.folder / folder / f"{name}.cedar")


def policy(agent: AgentProcess, which: str = "policy") -> dict[str, Any]:
    found: dict[str, Any] = agent.json("status")[which]
    return found


def events(agent: AgentProcess, name: str) -> list[dict[str, Any]]:
    return [each["fields"] for each in agent.json("audit", "tail", "-n", "100")["records"] if each["event"] == name]


def grants(agent: AgentProcess, task: str) -> dict[str, list[str]]:
    return {each["resource"]: each["actions"] for each in agent.json("task", "show", task)["grants"]}


def offline(*arguments: object, status: int = 0, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command without an agent."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert status == done.returncode, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


# --- reloading ------------------------------------------------------------------------------------------------------


def test_a_change_takes_from_live_tasks(own: AgentProcess) -> None:
    """A changed policy is in force by itself: a live task loses what it denies, its tokens die, its holder lives on."""
    with Caller(own.socket) as holder, SyncClient(own.socket) as service, Feed(own.socket, [PLACE_A]) as feed:
        task = holder.ask("begin", type="two-places")["id"]
        token = holder.ask("token", task=task, resource=PLACE_A)["token"]
        assert service.validate_token(token, PLACE_A, "doc:write").valid
        before = policy(own)["digest"]
        put(own, READ_ONLY)
        until(
            lambda: feed.delta(task, live=True).version > json.loads(_claims(token))["task"]["ver"], "validators know"
        )
        assert {PLACE_A: ["doc:read"], PLACE_B: ["doc:read"]} == grants(own, task)
        assert "task_over" == service.validate_token(token, PLACE_A, "doc:read").code
        refused = holder.ask("token", task=task, resource=PLACE_A, actions=["doc:write"])
        assert ("error", "action_outside_type") == (refused["event"], refused["code"])
        assert ["doc:read"] == holder.ask("token", task=task, resource=PLACE_A)["actions"]
    loaded = events(own, "policy_loaded")[-1]
    assert (1, 0, ["two-places"]) == (loaded["narrowed"], loaded["ended"], loaded["changed"])
    assert [before, loaded["digest"]] == [events(own, "policy_loaded")[0]["digest"], policy(own)["digest"]]
    assert (before, ["all"]) == tuple(events(own, "task_begun")[0][name] for name in ("policy_set", "policies"))
    issued = events(own, "token_issued")
    assert [(before, ["all"]), (loaded["digest"], ["read-only"])] == [(e["policy_set"], e["policies"]) for e in issued]


def _claims(token: str) -> bytes:
    import base64

    part = token.split(".")[1]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_nothing_is_left(own: AgentProcess) -> None:
    """A task that a changed policy leaves nothing, and one whose type is gone, are over, with the reason."""
    with Caller(own.socket) as holder:
        first = holder.ask("begin", type="two-places")["id"]
        put(own, '@id("none") forbid (principal, action, resource);')
        ended = holder.hear("ended")
        assert (first, "revoked", "policy_changed") == (ended["id"], ended["state"], ended["reason"])
        put(own, PERMIT)
        until(lambda: 3 == len(events(own, "policy_loaded")), "the policy is in force again")
        second = holder.ask("begin", type="two-places")["id"]
        (own.folder / "types" / "two-places.toml").unlink()
        ended = holder.hear("ended")
        assert (second, "policy_changed") == (ended["id"], ended["reason"])
        assert "unknown_task_type" == holder.ask("begin", type="two-places")["code"]


def test_an_invalid_set(own: AgentProcess) -> None:
    """A set with a fault leaves the old one in force, and log, status and audit say so; mended it is in force."""
    with Caller(own.socket) as holder:
        task = holder.ask("begin", type="two-places")["id"]
        digest = policy(own)["digest"]
        put(own, PERMIT + "\npermit (principal, action, resource);")
        says = "two-places.cedar:2: every policy needs an id"
        until(lambda: says in policy(own)["fault"], "the fault is shown")
        done = own.run("policy", "reload", check=False)
        assert (1, True) == (done.returncode, says in done.stderr)
        assert digest == policy(own)["digest"]
        assert "doc:write" in grants(own, task)[PLACE_A]
        assert "task" == holder.ask("begin", type="two-places")["event"]
        status = own.run("status").stdout
        assert ("NOT in force", True) == (status[status.index("NOT in force") :][:12], "policy_refused" in status)
        assert any("policy_refused" == line["event"] and "error" == line["level"] for line in own.log_lines())
        assert [digest] == [each["in_force"] for each in events(own, "policy_refused")]
        put(own, READ_ONLY)
        until(lambda: "doc:write" not in grants(own, task)[PLACE_A], "the mended set is in force")
        assert "" == policy(own)["fault"]


def test_a_dry_run(own: AgentProcess) -> None:
    """A dry run says what a folder would do to live tasks, and changes nothing; then it does that."""
    other = own.folder / "other"
    shutil.copytree(own.folder / "types", other)
    put(own, READ_ONLY, folder="other")
    with Caller(own.socket) as holder:
        both = holder.ask("begin", type="two-places")["id"]
        writer = holder.ask("begin", type="two-places", grants=[[PLACE_A, ["doc:write"]]])["id"]
        reader = holder.ask("begin", type="two-places", grants=[[PLACE_B, ["doc:read"]]])["id"]
        found = own.json("policy", "reload", "--dry-run", "--folder", str(other))
        assert {both: "narrow", writer: "end", reader: "keep"} == {
            each["task"]: each["outcome"] for each in found["tasks"]
        }
        lost = next(each for each in found["tasks"] if each["task"] == both)
        assert ([{"resource": PLACE_A, "actions": ["doc:write"]}], "policy denies it") == (lost["lost"], lost["why"])
        shown = own.run("policy", "reload", "--dry-run", "--folder", str(other)).stdout
        assert (True, True) == ("would replace" in shown, "doc:write at https://a.example.org" in shown)
        assert {PLACE_A: ["doc:read", "doc:write"], PLACE_B: ["doc:read"]} == grants(own, both)
        assert [] == own.json("policy", "reload", "--dry-run")["tasks"]
        assert "nothing has changed" in own.run("policy", "reload").stdout
        put(own, READ_ONLY)
        assert writer == holder.hear("ended")["id"]
        assert found["digest"] == policy(own)["digest"]
    done = own.run("policy", "reload", "--folder", str(other), check=False)
    assert (2, True) == (done.returncode, "--folder goes with --dry-run" in done.stderr)
    done = own.run("policy", "reload", "--dry-run", "--folder", str(own.folder / "none"), check=False)
    assert (1, True) == (done.returncode, "cannot be read" in done.stderr)


def test_sighup(own: AgentProcess) -> None:
    """SIGHUP has the folder read and does not end the agent."""
    put(own, READ_ONLY)
    assert own.process is not None
    own.process.send_signal(signal.SIGHUP)
    until(lambda: 2 == len(events(own, "policy_loaded")), "the change is in force")
    assert own.process.poll() is None


def test_many_changes(own: AgentProcess) -> None:
    """Whatever comes and goes in the folder: an agent under load ends with what is there, and no task has more."""
    with Caller(own.socket) as holder:
        for number in range(10):
            put(own, f"// {number}\n" + (READ_ONLY if number % 2 else PERMIT))
            assert "task" == holder.ask("begin", type="two-places")["event"]
        until(
            lambda: all("doc:write" not in each["grants"][0]["actions"] for each in own.json("task", "list")["tasks"]),
            "every task has what the last policy allows",
        )
        assert 10 == len(own.json("task", "list")["tasks"])
    assert own.json("audit", "verify")["intact"]


# --- a candidate beside ---------------------------------------------------------------------------------------------


def test_shadow(own: AgentProcess) -> None:
    """What a candidate set would answer otherwise is reported and audited once, and is answered as before."""
    assert ([], 0) == tuple(own.json("policy", "shadow-report")[name] for name in ("differences", "compared"))
    put(own, READ_ONLY, folder="candidate")
    until(lambda: 2 == len(events(own, "shadow_policy_loaded")), "the candidate is loaded")
    with Caller(own.socket) as holder:
        for _ in range(2):
            task = holder.ask("begin", type="two-places")["id"]
            assert "doc:write" in holder.ask("token", task=task, resource=PLACE_A)["actions"]
    report = own.json("policy", "shadow-report")
    [found] = report["differences"]
    assert (True, ["all"], False, "policy", []) == tuple(
        found[name] for name in ("allowed", "policies", "candidate_allows", "candidate_rule", "candidate_policies")
    )
    assert (4, 10, 0) == (found["count"], report["compared"], report["errors"])
    assert policy(own, "shadow")["digest"] == report["shadow"]["digest"] != policy(own)["digest"]
    [recorded] = events(own, "shadow_difference")
    assert ("doc:write", report["shadow"]["digest"]) == (recorded["action"], recorded["candidate_set"])
    shown = own.run("policy", "shadow-report").stdout
    assert "allowed by all" in shown
    assert "denied by policy" in shown


def test_a_bad_candidate(own: AgentProcess) -> None:
    """A candidate that cannot be used is told, and hinders neither decisions nor the start."""
    put(own, "nonsense", folder="candidate")
    until(lambda: "two-places.cedar:1" in policy(own, "shadow")["fault"], "the fault is shown")
    with Caller(own.socket) as holder:
        assert "task" == holder.ask("begin", type="two-places")["event"]
    own.stop()
    own.start()
    assert ("", True) == (policy(own)["fault"], "two-places.cedar:1" in policy(own, "shadow")["fault"])
    with Caller(own.socket) as holder:
        assert "task" == holder.ask("begin", type="two-places")["event"]
    assert "none could be loaded" in own.run("policy", "shadow-report").stdout


# --- parameters and bindings ----------------------------------------------------------------------------------------


def test_parameters_and_bindings(own: AgentProcess) -> None:
    """A task whose parameters or binding are not as its type says is refused, with the parameter and the rule."""
    write_type(own.folder / "types", "pay", PAY, PERMIT)
    until(lambda: "pay" in own.json("status")["task_types"], "the new type is there")

    def begin(*options: str) -> "subprocess.CompletedProcess[str]":
        return own.run("task", "begin", "--type", "pay", *options, "--holder-pid", str(os.getpid()), check=False)

    for params, says in (
        ([], "parameter 'amount' is required"),
        (["--param", "amount=101"], "parameter 'amount' breaks max: it must be at most 100"),
        (["--param", "amount=-1"], "parameter 'amount' breaks min: it must be at least 1"),
        (["--param", "amount=1.5"], "parameter 'amount' is not a whole number"),
        (["--param", f"amount={2**64}"], "parameter 'amount' is not a whole number"),
    ):
        done = begin(*params)
        assert (1, True) == (done.returncode, f"{says}" in done.stderr), done.stderr
    assert 0 == begin("--param", "amount=100").returncode
    with Caller(own.socket) as holder:
        refused = holder.ask("begin", type="pay", params={"amount": "5"})
        assert ("policy_denied", True) == (refused["code"], "may not be held as stream" in refused["message"])


# --- the command without an agent -----------------------------------------------------------------------------------


def test_check_of_providers(tmp_path: Path) -> None:
    """A check without an agent says that providers were not looked at, and by what they are; only where there are any."""
    write_type(tmp_path, "two-places", *TYPES["two-places"])
    assert "providers" not in offline("policy", "check", tmp_path).stdout
    write_type(tmp_path, "pay", PAY + 'provider = "corp"\nask = {}\n', PERMIT)
    assert "`sojourn policy reload` does that (of corp)" in offline("policy", "check", tmp_path).stdout


def test_check_warns(tmp_path: Path) -> None:
    """Warnings are printed and are no faults, unless that is wished; the injected forbid is shown."""
    write_type(tmp_path, "careful", *TYPES["careful"])
    done = offline("policy", "check", tmp_path)
    warning = (
        f"{tmp_path}/careful.cedar:1: policy 'all' permits any action and any resource, in a type of high consequence"
    )
    assert (True, True) == (f"warning: {warning}" in done.stdout, "sojourn.task-not-active" in done.stdout)
    value = json.loads(offline("policy", "check", tmp_path, "-o", "json").stdout)
    assert (["sojourn.task-not-active"], [f"{tmp_path}/careful.cedar", 1]) == (
        value["injected"],
        [value["warnings"][0][name] for name in ("file", "line")],
    )
    assert f"error: {warning}" in offline("policy", "check", "--strict", tmp_path, status=2).stderr


def test_check_against_the_configuration(tmp_path: Path) -> None:
    """Workloads of another trust domain than the machine's configuration has are warned of, and nothing else is."""
    types, etc = tmp_path / "types", tmp_path / "etc"
    types.mkdir()
    etc.mkdir()
    write_type(types, "two-places", *TYPES["two-places"])
    strange = "allowed_workloads: 'spiffe://example.org/agent/triage' is not in trust domain 'corp.example'"
    (etc / "agent.toml").write_text('trust_domain = "corp.example"\n')
    warned = offline("policy", "check", types, CONFIGURATION_DIRECTORY=str(etc)).stdout
    assert f"warning: {types}/two-places.toml:2: {strange}" in warned
    assert strange in offline("policy", "check", types, SOJOURN_TRUST_DOMAIN="corp.example").stdout
    assert strange in offline(
        "policy", "check", "--strict", types, status=2, CONFIGURATION_DIRECTORY=str(etc)
    ).stderr  # fmt: skip
    (etc / "agent.toml").write_text("")
    for environment in ({}, {"CONFIGURATION_DIRECTORY": str(etc)}, {"SOJOURN_TRUST_DOMAIN": "example.org"}):
        assert "trust domain" not in offline("policy", "check", types, **environment).stdout


def test_check_tells_place_and_fault(tmp_path: Path) -> None:
    """Every fault of a folder has its file and line, in JSON as numbers; the trust domain and the cases count too."""
    write_type(tmp_path, "one", PAY.replace("min = 1,", "min = 1000,"), "\n" + PERMIT.replace('@id("all") ', ""))
    write_type(tmp_path, "two", PAY, PERMIT)
    done = offline("policy", "check", tmp_path, "-o", "json", status=2)
    error = json.loads(done.stderr)["error"]
    assert [(f"{tmp_path}/one.toml", 4), (f"{tmp_path}/one.cedar", 2)] == [
        (each["file"], each["line"]) for each in error["faults"]
    ]
    (tmp_path / "one.toml").unlink()
    assert (
        "two.toml:1: allowed_workloads"
        in offline("policy", "check", tmp_path, "--trust-domain", "o.org", status=2).stderr
    )
    (tmp_path / "two.test.toml").write_text('[[case]]\nname = "x"\n')
    assert "two.test.toml:1: case.0.expect" in offline("policy", "check", tmp_path, status=2).stderr


def test_cases(tmp_path: Path) -> None:
    """A case that is answered otherwise is printed with both answers, and is exit status 1; so are policies left out."""
    write_type(
        tmp_path,
        "two-places",
        TYPES["two-places"][0],
        READ_ONLY + '@id("spare") forbid (principal, action, resource) when { principal.reported_calls > 9 };',
    )
    cases = tmp_path / "two-places.test.toml"
    head = f'[default]\nresource = "{PLACE_A}"\n'
    good = '[[case]]\nname = "reads"\naction = "doc:read"\nexpect = "allow"\npolicies = ["read-only"]\n'
    cases.write_text(head + good)
    done = offline("policy", "test", tmp_path)
    assert "1 cases of 1 task types, 0 failed" in done.stdout
    assert "warning: two-places: no case is decided by spare" in done.stdout
    cases.write_text(head + good + '[[case]]\nname = "writes"\naction = "doc:write"\nexpect = "allow"\n')
    done = offline("policy", "test", tmp_path, status=1)
    assert "FAILED two-places: writes: expected allow, got deny (no policy permits it)" in done.stdout
    value = json.loads(offline("policy", "test", tmp_path, "-o", "json", status=1).stdout)
    assert (2, 1, ["spare"]) == (value["cases"], value["failed"], value["task_types"][0]["undecided_policies"])
    cases.unlink()
    assert "warning: two-places has no cases" in offline("policy", "test", tmp_path).stdout


def test_explain(own: AgentProcess) -> None:
    """What is explained of a folder and of the agent's set is the same; after a reload the agent's is another."""
    question = ["policy", "explain", "two-places", "--workload", TRIAGE, "--action", "doc:write", "--resource", PLACE_A]
    folder = ["--folder", str(own.folder / "types")]
    asked, read = own.json(*question), own.json(*question, *folder)
    assert asked == read
    assert (True, ["all"]) == (asked["allowed"], asked["policies"])
    put(own, READ_ONLY)
    until(lambda: not own.json(*question)["allowed"], "the change is in force")
    assert own.json(*question) == own.json(*question, *folder)
    shown = own.run(*question).stdout
    assert 'permit read-only: it is for action == Action::"doc:read"' in shown
    assert "with action doc:read: allowed" in shown
    for said, allowed in (("state=active", True), ("state=suspended", False)):
        reading = [*question[:6], "doc:read", *question[7:], "--task", said]
        assert own.json(*reading) == (asked := own.json(*reading, *folder))
        assert allowed == asked["allowed"]
    for said in ("mood=odd", "uses[doc:read]=1"):  # there is no such attribute, and the type does not limit the action
        done = own.run(*question, "--task", said, check=False)
        assert (1, True) == (done.returncode, "[invalid_input]" in done.stderr)
    toml = own.folder / "types" / "two-places.toml"
    more = (
        f'[approval]\n[delegation]\nto = ["{TRIAGE}/reader"]\n[facts]\nfreeze = {{type = "boolean", max_age = "5m"}}\n'
    )
    toml.write_text(toml.read_text() + more)
    deeper = [*question[:4], f"{TRIAGE}/reader", *question[5:], "--depth", "1"]
    until(lambda: own.json(*question)["conditions"]["delegation"], "the change is in force")
    asked, read = own.json(*deeper), own.json(*deeper, *folder)
    assert (asked, "policy", ["freeze"]) == (
        read,
        asked["rule"],
        [each["name"] for each in read["conditions"]["facts"]],
    )
    assert "1 of operator must agree, within 10m" in own.run(*deeper).stdout
    assert "workload" == own.json(*deeper[:-2])["rule"]
    done = own.run("policy", "explain", "none", *question[3:], check=False)
    assert (1, True) == (done.returncode, "[unknown_task_type]" in done.stderr)


REFUND = """allowed_workloads = ["spiffe://example.org/agent/triage"]
[person]
need = "required"
issuers = ["corp"]
max_auth_age = "1h"
claims = {department = "string", level = "long"}
[[ceiling]]
resource = "https://shop.example.org"
actions = ["refund"]
"""
SUPPORT = """@id("support") permit (principal, action, resource)
when { principal.user in Sojourn::Group::"corp/support" && principal.user has level && principal.user.level > 2 };"""


def test_explain_for_a_person(own: AgentProcess) -> None:
    """What is explained of a person is the same of a folder and of the agent's set; it says whom the type is for."""
    write_type(own.folder / "types", "refund", REFUND, SUPPORT)
    until(lambda: policy(own)["task_types"] == 2, "it is in force")
    place = ["--action", "refund", "--resource", "https://shop.example.org"]
    question = ["policy", "explain", "refund", "--workload", TRIAGE, *place]
    folder = ["--folder", str(own.folder / "types")]
    alice = ["--user", "corp/alice", "--group", "support", "--group", "lead", "--acr", "mfa", "--amr", "otp"]
    for said, rule, allowed in (
        ([*alice, "--claim", "level=3", "--auth-age", "60"], "policy", True),
        ([*alice, "--claim", "level=2", "--auth-age", "60"], "policy", False),
        ([*alice, "--claim", "level=3", "--auth-age", "3601"], "person", False),
        (["--user", "partner/alice", "--group", "support"], "person", False),
        ([], "person", False),
    ):
        asked = own.json(*question, *said)
        assert own.json(*question, *said, *folder) == asked
        assert (rule, allowed) == (asked["rule"], asked["allowed"])
        assert (["corp"], 3600, ["department", "level"]) == (
            asked["conditions"]["person"]["issuers"],
            asked["conditions"]["person"]["max_auth_age_seconds"],
            [each["name"] for each in asked["conditions"]["person"]["claims"]],
        )
    shown = own.run(*question, *alice, "--claim", "level=3").stdout
    for line in (
        "principal.user = corp|alice",
        'principal.user.groups = ["lead", "support"]',
        "principal.user.level = 3",
    ):
        assert f"  {line}\n" in shown
    assert "it is for a person of corp, at most 1h ago" in shown
    for wrong in (
        ["--group", "support"],
        ["--user", "corp"],
        [*alice, "--claim", "mood=odd"],
        [*alice, "--claim", "level=x"],
    ):
        for where in ([], folder):
            done = own.run(*question, *wrong, *where, check=False)
            local = where or "--user" not in wrong  # then the command itself says so
            assert (2 if local else 1, True) == (done.returncode, "[invalid_input]" in done.stderr)


def test_the_samples_answer() -> None:
    """The sample types pass their own cases, and nothing is to be said of them."""
    folder = SAMPLES / "task-types"
    assert "warning" not in offline("policy", "check", "--strict", folder).stdout
    assert ", 0 failed" in offline("policy", "test", folder).stdout
