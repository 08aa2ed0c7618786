"""`sojourn review` on a real agent: what is to be reviewed, a reviewer with a spreadsheet, and what a late review stops."""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import approvals as people
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.looking import until
from harness.taskagent import OTHER_UID, PLACE_A, THIRD_UID, TRIAGE, inner_failures, make_agent, write_type

pytestmark = pytest.mark.root  # operators have to be another user than the workloads

PERMIT = '@id("all") permit (principal, action, resource);'
THIRD = "spiffe://example.org/third"
_TYPE = f"""
{{}}
allowed_workloads = ["{TRIAGE}"]
[delegation]
to = ["{THIRD}"]
[[ceiling]]
resource = "{PLACE_A}"
actions = ["doc:read", "doc:write"]
"""
LATE = 'owner = "support"\nsponsor = "it"\nreview_every = "1s"\n'
BLOCKED = LATE + 'when_overdue = "block_new"'
SOON = 'owner = "support"\nreview_every = "10d"'
FORMULA = '=HYPERLINK("https://evil.example")'


def reviewed(**types: str) -> AgentProcess:
    """An agent with these types beside others; it is not started. OTHER_UID is /agent/triage, and nobody is root."""
    agent = make_agent()
    for name, keys in types.items():
        change(agent, name, keys)
    return agent


def change(agent: AgentProcess, name: str, keys: str) -> None:
    write_type(agent.folder / "types", name.replace("_", "-"), _TYPE.format(keys), PERMIT)


def register(agent: AgentProcess, owner: str = "support") -> None:
    entry = ("entry", "create", "--spiffe-id", TRIAGE, "--selector", f"unix:uid:{OTHER_UID}")
    agent.run(*entry, "--owner", owner, "--sponsor", "it")


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with reviewed(late=LATE, blocked=BLOCKED, soon=SOON) as running:
        register(running)
        yield running
        assert [] == inner_failures(running)


def begin(agent: AgentProcess, kind: str) -> dict[str, Any]:
    """What a workload hears that begins a task."""
    with Caller(agent.socket, uid=OTHER_UID) as caller:
        caller.tell("begin", type=kind)
        return caller.hear("task", "error")


def records(agent: AgentProcess, *events: str) -> list[dict[str, Any]]:
    """Records of these events, the oldest first."""
    options = [part for event in events for part in ("--event", event)]
    found = agent.json("audit", "list", "--oldest", *options)["records"]
    return [{"event": each["event"], **each["fields"]} for each in found]


def is_overdue(agent: AgentProcess, *items: str) -> None:
    """Wait until these have become overdue, and it is recorded."""
    until(lambda: set(items) <= {each["item"] for each in records(agent, "review_overdue")}, 30)


def shown(agent: AgentProcess, item: str) -> dict[str, Any]:
    found: dict[str, Any] = agent.json("review", "show", item)
    return found


def refused(agent: AgentProcess, *arguments: str) -> str:
    """The stable code with which a command is refused."""
    done = agent.run(*arguments, "--output", "json", check=False)
    assert 0 != done.returncode, done.stdout
    return str(json.loads(done.stderr.splitlines()[-1])["error"]["code"])


def filled(file: Path, decisions: dict[str, tuple[str, str]], delimiter: str = ",") -> None:
    """A spreadsheet with these decisions, each with its reason, saved as spreadsheets do."""
    rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8-sig"))))
    for row in rows:
        row["decision"], row["reason"] = decisions.get(row["item"], ("", ""))
    with file.open("w", encoding="utf-8-sig", newline="") as opened:
        made = csv.DictWriter(opened, list(rows[0]), delimiter=delimiter)
        made.writeheader()
        made.writerows(rows)


def write(file: Path, rows: list[dict[str, str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        made = csv.DictWriter(opened, list(rows[0]))
        made.writeheader()
        made.writerows(rows)


def everything(agent: AgentProcess) -> dict[str, Any]:
    """What somebody may have here: entries, task types, live tasks and what waits."""
    found: dict[str, Any] = {
        "entries": agent.json("entry", "list"),
        "tasks": agent.json("task", "list")["tasks"],
        "approvals": agent.json("approval", "list"),
        "blocks": agent.json("task", "blocks"),
        "types": agent.json("status")["policy"]["digest"],
    }
    return found


class TestSpreadsheet:
    @pytest.mark.forked
    def test_an_ordinary_session(self, agent: AgentProcess, tmp_path: Path) -> None:
        """A reviewer sees what is overdue, has it written to a spreadsheet, decides there, and has the decisions made:
        each is a record with its evidence, and nothing is granted or changed by it.
        """
        assert "task" == begin(agent, "soon")["event"]
        is_overdue(agent, "type:late", "type:blocked")
        status = agent.json("status")["review_dates"]
        assert (2, 1, ["type:blocked", "type:late"]) == (status["overdue"], status["due"], sorted(status["items"]))
        late = agent.json("review", "list", "--overdue")
        assert ["type:blocked", "type:late"] == sorted(each["item"] for each in late["items"])
        mine = agent.json("review", "list", "--owner", "support")
        assert f"workload:{TRIAGE}" in [each["item"] for each in mine["items"]]

        file = tmp_path / "review.csv"
        agent.run("review", "export", "--csv", str(file), "--owner", "support")
        (soon,) = [
            each for each in csv.DictReader(io.StringIO(file.read_text("utf-8-sig"))) if each["item"] == "type:soon"
        ]
        assert ("support", "yes", "1") == (soon["owner"], soon["used"], soon["tasks"])
        filled(
            file,
            {
                "type:late": ("Retire", "nobody has needed it"),
                "type:soon": ("keep", ""),
                "type:blocked": ("narrow", "=one action is enough"),
                f"workload:{TRIAGE}": ("keep", ""),
            },
            delimiter=";",
        )
        types = agent.json("status")["policy"]["digest"]
        looked = agent.json("review", "import", str(file), "--dry-run")
        assert (0, 0, []) == (looked["decided"], looked["undecided"], looked["faults"])
        assert [] == records(agent, "review_decided")
        made = agent.json("review", "import", str(file))
        assert 4 == made["decided"]
        following = {each["item"]: each["next"] for each in made["next"]}
        assert "late.toml" in following["type:late"]
        assert "sojourn policy narrow blocked" in following["type:blocked"]

        decided = {each["item"]: each for each in records(agent, "review_decided")}
        assert {"type:late", "type:soon", "type:blocked", f"workload:{TRIAGE}"} == set(decided)
        one = decided["type:blocked"]
        assert ("narrow", "=one action is enough", "support") == (one["decision"], one["reason"], one["owner"])
        assert (str(os.getuid()), soon["digest"]) == (one["by"], decided["type:soon"]["digest"])
        assert types == agent.json("status")["policy"]["digest"]

        again = {each["item"]: each for each in agent.json("review", "list", "--owner", "support")["items"]}
        assert again["type:late"]["overdue"]  # until it is gone
        assert "keep" == again["type:soon"]["last"]["decision"]
        evidence = agent.json("review", "show", "type:soon", "--digest", soon["digest"])
        assert 1 == evidence["evidence"]["tasks"]

    def test_a_row_that_is_wrong(self, agent: AgentProcess, tmp_path: Path) -> None:
        """With a fault in one row nothing is decided, and each row that is wrong is named with its reason."""
        begin(agent, "soon")
        file = tmp_path / "review.csv"
        agent.run("review", "export", "--csv", str(file))
        filled(
            file,
            {
                "type:soon": ("keep", "used each day"),
                "type:late": ("keep", ""),
                "type:blocked": ("perhaps", "?"),
                "type:careful": ("", "later"),
            },
        )
        done = agent.run("review", "import", str(file), "--output", "json", check=False)
        found = json.loads(done.stdout)
        assert (1, 0) == (done.returncode, found["decided"])
        assert {
            "type:late": "reason_needed",
            "type:blocked": "invalid_input",
            "type:careful": "invalid_input",
        } == {each["item"]: each["code"] for each in found["faults"]}
        assert [] == records(agent, "review_decided")

    @pytest.mark.forked
    def test_it_grants_nothing(self, agent: AgentProcess, tmp_path: Path) -> None:
        """Whatever stands in a spreadsheet that is read back, nobody has more by it than before: rows of what there is
        not, verdicts that grant, further columns, and the digest of another item.
        """
        file = tmp_path / "review.csv"
        agent.run("review", "export", "--csv", str(file))
        digest = shown(agent, "type:careful")["digest"]
        before = everything(agent)
        rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8-sig"))))
        more = {"allowed_workloads": THIRD, "selectors": "unix:uid:0", "ceiling": PLACE_A, "about": "all"}
        hostile = [
            {**rows[0], "item": item, "decision": verdict, "reason": "give it", "digest": digest, **more}
            for item in ("type:new", f"workload:{THIRD}", "entry:x", "task:tsk_x", "type:soon", "*", "")
            for verdict in ("keep", "grant", "approve", "widen")
        ]
        for several in ([each] for each in hostile):
            write(file, several)
            assert 0 != agent.run("review", "import", str(file), check=False).returncode
        write(file, [{**each, "decision": "keep", "reason": "all of it", **more} for each in rows])
        assert len(rows) == agent.json("review", "import", str(file))["decided"]
        assert before == everything(agent)

    def test_what_is_there_is_not_written_over(self, agent: AgentProcess, tmp_path: Path) -> None:
        """A spreadsheet that is there already is left alone: it may have decisions in it."""
        file = tmp_path / "review.csv"
        agent.run("review", "export", "--csv", str(file))
        before = file.read_bytes()
        assert "invalid_input" == refused(agent, "review", "export", "--csv", str(file))
        assert (before, 0o600) == (file.read_bytes(), file.stat().st_mode & 0o777)

    def test_formulas(self, agent: AgentProcess, tmp_path: Path) -> None:
        """What others have written, such as an owner, is no formula in a spreadsheet, and is read back as it was."""
        agent.run(*("entry", "create", "--spiffe-id", THIRD, "--selector", f"unix:uid:{THIRD_UID}", "--owner", FORMULA))
        file = tmp_path / "review.csv"
        agent.run("review", "export", "--csv", str(file), "--owner", FORMULA)
        (row,) = csv.DictReader(io.StringIO(file.read_text("utf-8-sig")))
        assert (f"workload:{THIRD}", f"'{FORMULA}") == (row["item"], row["owner"])
        filled(file, {f"workload:{THIRD}": ("keep", "'-1 is what it is")})
        agent.run("review", "import", str(file))
        (decided,) = records(agent, "review_decided")
        assert ("-1 is what it is", FORMULA) == (decided["reason"], decided["owner"])


class TestDecide:
    def test_by_what_was_shown(self, agent: AgentProcess) -> None:
        """A decision is made by the digest of evidence that was shown of this item as it is; by no other."""
        begin(agent, "soon")
        decide = ("review", "decide", "type:soon", "--keep", "--digest")
        assert "review_not_shown" == refused(agent, *decide, "0" * 64)
        other = shown(agent, "type:late")["digest"]
        assert "review_not_shown" == refused(agent, *decide, other)
        digest = shown(agent, "type:soon")["digest"]
        change(agent, "soon", SOON + '\nmax_duration = "1m"')
        agent.run("policy", "reload")
        assert "review_stale" == refused(agent, *decide, digest)
        assert "not_found" == refused(agent, "review", "decide", "type:nothing", "--keep", "--digest", digest)
        assert [] == records(agent, "review_decided")

    def test_what_nobody_used(self, agent: AgentProcess) -> None:
        """What nobody used is kept or narrowed with a reason alone; to give it up needs none. Each is looked at anew."""
        digest = shown(agent, "type:soon")["digest"]
        decide = ("review", "decide", "type:soon", "--digest", digest)
        for verdict in ("--keep", "--narrow"):
            assert "reason_needed" == refused(agent, *decide, verdict)
        agent.run(*decide, "--keep", "--reason", "for the end of the year")
        assert "for the end of the year" == shown(agent, "type:soon")["item"]["last"]["reason"]
        assert "review_stale" == refused(agent, *decide, "--retire")
        agent.run(*decide[:-1], shown(agent, "type:soon")["digest"], "--retire")
        assert ["keep", "retire"] == [each["decision"] for each in records(agent, "review_decided")]

    def test_whoever_reloaded_it(self, agent: AgentProcess) -> None:
        """Whoever brought a type into force as it is does not review it; another who logged in does."""
        for minutes in range(1, 20):  # the agent follows the folder, too, and may be faster
            change(agent, "soon", f'{SOON}\nmax_duration = "{minutes}m"')
            agent.run("policy", "reload")
            item = shown(agent, "type:soon")
            if item["item"]["changed_by_uid"] is not None:
                break
        assert os.getuid() == item["item"]["changed_by_uid"]
        decide = ("review", "decide", "type:soon", "--narrow", "--digest", item["digest"])
        assert "own_review" == refused(agent, *decide)
        other = shown(agent, "type:late")
        agent.run("review", "decide", "type:late", "--narrow", "--digest", other["digest"], "--reason", "less of it")

    def test_no_workload(self, agent: AgentProcess) -> None:
        """A process that is a workload reviews nothing, though its user may use the admin socket."""
        digest = shown(agent, "type:late")["digest"]
        agent.register("/root", f"unix:uid:{os.getuid()}")
        assert "own_review" == refused(agent, "review", "decide", "type:late", "--narrow", "--digest", digest)

    @pytest.mark.skipif(not people.can_log_in(), reason="this kernel has no login users")
    def test_people_are_told_apart_by_login(self, agent: AgentProcess) -> None:
        """Two operators who are root are two people if they have logged in as two; the record says who it was."""
        digest = shown(agent, "type:late")["digest"]
        decide = ("review", "decide", "type:late", "--narrow", "--digest", digest, "--reason", "less of it")
        done = people.as_login(4711, agent, *decide)
        assert 0 == done.returncode, done.stderr
        (decided,) = records(agent, "review_decided")
        assert ("4711", os.getuid(), 4711) == (decided["by"], decided["by_uid"], decided["by_login_uid"])


class TestOverdue:
    @pytest.mark.forked
    def test_no_new_task(self, agent: AgentProcess) -> None:
        """With `block_new` no task begins and none is accepted while the review is overdue; live ones go on, and once
        somebody has reviewed it tasks begin again. A reload that would block one more type says so before.
        """
        is_overdue(agent, "type:blocked")
        assert "review_overdue" == begin(agent, "blocked")["code"]
        assert "task" == begin(agent, "late")["event"]  # it is only told
        asked = ("policy", "explain", "blocked", "--workload", TRIAGE, "--action", "doc:read", "--resource", PLACE_A)
        explained = agent.json(*asked)["conditions"]["review"]
        assert (True, True) == (explained["block_new"], explained["overdue"])
        assert "NO new task" in agent.run(*asked).stdout
        refusals = agent.json("audit", "list", "--denied", "--by", str(OTHER_UID))["records"]
        assert ("begin_denied", "review_overdue") in [(each["event"], each["fields"]["code"]) for each in refusals]
        (agent.folder / "next").mkdir()
        for each in (agent.folder / "types").iterdir():
            (agent.folder / "next" / each.name).write_text(each.read_text())
        write_type(agent.folder / "next", "late", _TYPE.format(BLOCKED), PERMIT)
        asked = ("policy", "reload", "--dry-run", "--folder", str(agent.folder / "next"))
        assert ["late"] == agent.json(*asked)["review_blocked"]
        assert "no new task of late begins" in agent.run(*asked).stdout
        change(agent, "blocked", BLOCKED.replace("1s", "30d"))
        until(lambda: not agent.json("review", "list", "--overdue", "--owner", "nobody")["items"], 30)
        until(lambda: "task" == begin(agent, "blocked")["event"], 30)

    @pytest.mark.forked
    def test_live_tasks_go_on(self, agent: AgentProcess) -> None:
        """A task that lives when the review of its type becomes overdue goes on, and is handed on to nobody new."""
        agent.register("/third", f"unix:uid:{THIRD_UID}")
        with Caller(agent.socket, uid=OTHER_UID) as caller, Caller(agent.socket, uid=THIRD_UID) as third:
            task = caller.ask("begin", type="soon")["id"]
            ticket = caller.ask("delegate", task=task, to=THIRD)["ticket"]
            change(agent, "soon", BLOCKED)
            is_overdue(agent, "type:soon")
            assert "review_overdue" == third.ask("accept", ticket=ticket)["code"]
            assert "review_overdue" == caller.ask("begin", type="soon")["code"]
            assert "token" == caller.ask("token", task=task, resource=PLACE_A)["event"]
            denied = agent.json("audit", "list", "--denied", "--by", str(THIRD_UID))["records"]
            assert "delegation_denied" in [each["event"] for each in denied]

    @pytest.mark.forked
    def test_it_is_told_once(self, agent: AgentProcess) -> None:
        """A review that becomes overdue is recorded and logged once, also over restarts and reloads, and is told by
        `sojourn doctor` and `sojourn status` for as long as it is so.
        """
        is_overdue(agent, "type:late", "type:blocked")
        agent.stop()
        agent.start()
        change(agent, "late", LATE + 'description = "another"')
        agent.run("policy", "reload")
        until(lambda: agent.json("status")["review_dates"]["overdue"] == 2, 30)
        told = records(agent, "review_overdue")
        assert ["type:blocked", "type:late"] == sorted(each["item"] for each in told)
        assert {"support"} == {each["owner"] for each in told}
        logged = [line["item"] for line in agent.log_lines() if line["event"] == "review_overdue"]
        assert ["type:blocked", "type:late"] == sorted(logged)
        report = agent.run("doctor", "--output", "json", check=False).stdout
        (found,) = [each for each in json.loads(report)["checks"] if each["id"] == "reviews"]
        assert "warn" == found["verdict"]

    def test_a_file_that_cannot_be(self, agent: AgentProcess) -> None:
        """A type that would stop new tasks and has no date is a fault of its file."""
        change(agent, "soon", 'when_overdue = "block_new"')
        done = agent.run("policy", "check", str(agent.folder / "types"), check=False)
        assert "needs review_every" in done.stdout + done.stderr

    @pytest.mark.forked
    def test_dates_outlive_the_agent(self, agent: AgentProcess) -> None:
        """The date of a type is the same after a restart, and after its file was taken away and came back."""
        before = shown(agent, "type:soon")["item"]["due_at"]
        toml = agent.folder / "types" / "soon.toml"
        text = toml.read_text()
        toml.unlink()
        until(lambda: "soon" not in agent.json("status")["task_types"], 30)
        agent.stop()
        toml.write_text(text)
        agent.start()
        assert before == shown(agent, "type:soon")["item"]["due_at"]


def test_pages(agent: AgentProcess) -> None:
    """A list has pages that miss nothing, and says how much there is."""
    whole = agent.json("review", "list")
    found: list[str] = []
    page: list[str] = []
    while True:
        part = agent.json("review", "list", "--limit", "3", *page)
        assert len(part["items"]) <= 3
        found += [each["item"] for each in part["items"]]
        if part["next_page"] is None:
            break
        page = ["--page", part["next_page"]]
    assert [each["item"] for each in whole["items"]] == found
    assert whole["total"] == len(found)
    assert "items are shown" in agent.run("review", "list", "--limit", "3").stderr


@pytest.mark.forked
def test_approval_history() -> None:
    """What was asked for is found again with what came of it: approved, denied, or given up, by whom, and how long it
    waited.
    """
    with people.approval_agent() as agent, Caller(agent.socket, uid=OTHER_UID) as caller:
        asked: dict[str, str] = {}
        for outcome, kind in (("approved", "asked"), ("denied", "asked"), ("expired", "hurried")):
            made = people.ask(caller, kind)
            asked[made["approval"]] = outcome
            if outcome == "expired":
                caller.hear("error")
            else:
                verb, reason = ("approve", "by phone") if outcome == "approved" else ("deny", "not today")
                agent.run("approval", verb, made["approval"], "--reason", reason)
                caller.hear("task", "error")
        with Caller(agent.socket, uid=OTHER_UID) as other:
            asked[people.ask(other)["approval"]] = "waiting"
            found = {each["approval"]: each for each in agent.json("approval", "history", "--since", "1h")["approvals"]}
        assert asked == {name: each["outcome"] for name, each in found.items()}
        for each in found.values():
            assert (OTHER_UID, True) == (each["requester"]["uid"], each["waited_seconds"] >= 0)
        said = {each["outcome"]: each for each in found.values()}
        assert ("not today", os.getuid()) == (said["denied"]["reason"], said["denied"]["decisions"][0]["by_uid"])
        assert "by phone" == said["approved"]["reason"]
        hurried = agent.json("approval", "history", "--type", "hurried")["approvals"]
        assert ["expired"] == [each["outcome"] for each in hurried]
        assert [] == agent.json("approval", "history", "--until", "1h")["approvals"]
        first = agent.json("approval", "history", "--limit", "1")
        rest = agent.json("approval", "history", "--page", first["next_page"])["approvals"]
        assert [*asked] == [each["approval"] for each in reversed([*first["approvals"], *rest])]
