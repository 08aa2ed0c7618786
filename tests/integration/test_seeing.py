"""`explain` and `status` on the real daemon: what a process gets or would get, why, what failed, and live."""

import json
import os
import re
import time
from collections.abc import Iterator

import pytest
from harness.agent import AgentProcess
from harness.borrowed import Borrowed
from harness.callers import Caller
from harness.disks import failing
from harness.looking import until
from harness.raw import Admin, refusal
from harness.watching import Watch
from sojourn._pb.sojourn.v1 import admin_pb2 as pb

ME = f"unix:uid:{os.getuid()}"
EXPLAIN = "/sojourn.v1.Admin/Explain"


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        running.register("/me", ME)
        running.register("/near", "unix:uid:61201", "unix:path:/opt/a,b")
        yield running


@pytest.fixture
def own() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        running.register("/me", ME)
        yield running


def verdicts(value: dict) -> dict[str, tuple[str, list[str]]]:
    return {
        each["spiffe_id"].removeprefix("spiffe://example.org"): (each["verdict"], each["missing"])
        for each in value["verdicts"]
    }


class TestSelectors:
    def test_what_would_be(self, shared: AgentProcess) -> None:
        """Selectors are explained as a process that had them would be: what it gets, and what is missing for the rest."""
        found = shared.json("explain", "--selectors", f"{ME},unix:uid:61201")
        assert {"/me": ("matched", []), "/near": ("missing_selectors", ["unix:path:/opt/a,b"])} == verdicts(found)
        assert "a process with these selectors has 1 identity: spiffe://example.org/me" == found["conclusion"]
        assert (None, None, sorted([ME, "unix:uid:61201"])) == (found["pid"], found["uid"], found["selectors"])

    def test_one_by_one(self, shared: AgentProcess) -> None:
        """A selector whose value has a comma is given by --selector, which may be repeated and mixed."""
        arguments = ("explain", "--selector", "unix:path:/opt/a,b", "--selectors", "unix:uid:61201")
        assert ("matched", []) == verdicts(shared.json(*arguments))["/near"]
        text = shared.run(*arguments).stdout
        assert text.startswith("selectors\n  unix:path:/opt/a,b\n  unix:uid:61201\nentries\n")

    def test_nothing(self, shared: AgentProcess) -> None:
        """Selectors that earn nothing say what the nearest entry also asks for."""
        found = shared.json("explain", "--selectors", "unix:uid:61201")
        assert found["conclusion"].startswith(
            "no identity: the nearest entry, for spiffe://example.org/near, also asks"
        )

    @pytest.mark.parametrize(
        "arguments", [[], ["--pid", "1", "--selectors", "a:b"], ["--selectors", "x"], ["--selector", "a:"]]
    )
    def test_usage(self, shared: AgentProcess, arguments: list[str]) -> None:
        """A process or selectors: neither, both and what is no selector is exit status 2."""
        done = shared.run("explain", *arguments, check=False)
        assert (2, "") == (done.returncode, done.stdout)
        error, *cure = done.stderr.splitlines()
        assert error.startswith("error: ")
        assert [line[:7] for line in cure] in ([], ["next:  "])

    @pytest.mark.parametrize(
        ("request_", "says"),
        [
            (pb.ExplainRequest(), "pid or selectors must be specified"),
            (pb.ExplainRequest(pid=1, selectors=["a:b"]), "exclude each other"),
            (pb.ExplainRequest(selectors=["x"]), "is not TYPE:VALUE"),
            (pb.ExplainRequest(selectors=[f"a:{n}" for n in range(2001)]), "more than 2000 selectors"),
        ],
    )
    def test_by_api(self, shared: AgentProcess, request_: pb.ExplainRequest, says: str) -> None:
        """The API refuses what it cannot explain."""
        with Admin(shared.admin_socket) as admin:
            code, text = refusal(lambda: admin.unary(EXPLAIN, request_, pb.ExplainResponse))
        assert "INVALID_ARGUMENT" == code
        assert says in text


class TestWhy:
    def test_the_svid_in_use(self, own: AgentProcess) -> None:
        """A process is told each identity's X.509-SVID, with its end and why it lives as long, once there is one."""
        own.register("/long", ME, x509_svid_ttl="72h", priority="5")
        own.register("/short", ME, x509_svid_ttl="30m")
        before = own.json("explain", "--pid", str(os.getpid()))
        assert [None] * 3 == [each["x509_svid"] for each in before["verdicts"]]
        held = {each["spiffe_id"]: each for each in own.json("svid", "x509")["svids"]}
        found = own.json("explain", "--pid", str(os.getpid()))["verdicts"]
        assert "spiffe://example.org/long" == found[0]["spiffe_id"]
        for each in found:
            svid, mine = each["x509_svid"], held[each["spiffe_id"]]
            assert (mine["serial"], mine["not_after"]) == (svid["serial"], svid["not_after"])
        why = {each["spiffe_id"].rpartition("/")[2]: each["x509_svid"]["lifetime"] for each in found}
        assert ("the agent's default x509_svid_ttl, 1h", "the entry's x509_svid_ttl, 30m") == (why["me"], why["short"])
        issuers_end = own.json("authority", "show")["issuer_not_after"]
        assert f"3d asked by the entry's x509_svid_ttl; the issuer ends earlier, at {issuers_end}" == why["long"]
        assert {each["lifetime"] for each in own.json("status")["svids"]} == set(why.values())
        assert "its life: the entry's x509_svid_ttl, 30m" in own.run("explain", "--pid", str(os.getpid())).stdout

    def test_a_taken_hint(self, own: AgentProcess) -> None:
        """An entry whose hint another has gives nothing, and explain says so, as the Workload API does."""
        own.register("/first", ME, hint="h", priority="1")
        own.register("/second", ME, hint="h")
        found = verdicts(own.json("explain", "--pid", str(os.getpid())))
        assert (("matched", []), ("hint_taken", [])) == (found["/first"], found["/second"])
        got = {each["spiffe_id"].rpartition("/")[2] for each in own.json("svid", "x509")["svids"]}
        assert {"first", "me"} == got


class TestFailures:
    @pytest.mark.forked
    @pytest.mark.root
    def test_who_was_refused(self, own: AgentProcess) -> None:
        """Refusals for want of an identity are shown by user, with the last process and how often, the newest first."""
        for uid in (61301, 61301, 61302):
            with Borrowed(own.socket, uid) as stranger, stranger.wire() as wire:
                assert "PERMISSION_DENIED" == refusal(wire.x509)[0]
                last = stranger.pid
        found = own.failures()
        assert [("refused_no_identity", "uid 61302", 1), ("refused_no_identity", "uid 61301", 2)] == [
            (each["what"], each["subject"], each["count"]) for each in found
        ]
        assert f"no identity issued, last for pid {last}" == found[0]["reason"]
        assert found[0]["first_at"] <= found[0]["last_at"]
        text = own.run("status").stdout
        assert re.search(r"LAST +TIMES +FAILURE +OF +REASON", text)
        assert "refused_no_identity  uid 61301" in text

    def test_a_store_that_fails(self, own: AgentProcess) -> None:
        """A database that takes no writes is shown: the registration that failed, and the journal that waits."""
        with failing(own):
            done = own.run("entry", "create", "--spiffe-id", "spiffe://example.org/x", "--selector", "a:b", check=False)
            assert 1 == done.returncode
            own.run("svid", "x509")  # which the journal has to record

            def seen() -> set[str]:
                return {each["what"] for each in own.json("status")["failures"]}

            until(lambda: {"refused_store_failed", "audit_not_written"} <= seen(), "both failures")
        told = own.json("status")["failures"]
        assert all(each["reason"] and each["last_at"] and each["count"] for each in told)

    def test_none(self, own: AgentProcess) -> None:
        """An agent to which nothing happened has no failures to show."""
        assert [] == own.failures()
        assert own.json("status")["failures"] or "FAILURE" not in own.run("status").stdout


class TestWatch:
    @pytest.mark.forked
    def test_blocks(self, own: AgentProcess) -> None:
        """Without a terminal each change is one block, and nothing is printed as long as nothing changes."""
        with Watch(own, "explain", "--selectors", "unix:uid:7", "--watch", "--interval", "100ms") as watch:
            watch.says(f"also asks for {ME}\n")
            assert "" == watch.quiet(0.5)
            own.register("/seven", "unix:uid:7")
            block = watch.says("has 1 identity: spiffe://example.org/seven\n")
            assert block.startswith("\nselectors\n  unix:uid:7\n")
            assert 0 == watch.stop()
            assert "\x1b" not in block

    def test_json_lines(self, own: AgentProcess) -> None:
        """As JSON each change is one line."""
        with Watch(own, "status", "--watch", "--interval", "100ms", "-o", "json") as watch:
            first = json.loads(watch.says("\n"))
            own.register("/seven", "unix:uid:7")
            second = json.loads(watch.says("\n"))
            assert first["entries"] + 1 == second["entries"]
            assert 0 == watch.stop()

    def test_a_process_that_ends(self, own: AgentProcess) -> None:
        """The view of a process ends well when the process does; a process that was never there is an error."""
        with Caller(own.socket) as caller:
            pid = caller.pid
            with Watch(own, "explain", "--pid", str(pid), "--watch", "--interval", "100ms") as watch:
                watch.says("the process has 1 identity")
                caller.kill()
                watch.notes(f"there is no process {pid}")
                assert 0 == watch.process.wait(timeout=15)
        assert 1 == own.run("explain", "--pid", str(pid), "--watch", check=False).returncode

    def test_a_stream_comes_and_goes(self, own: AgentProcess) -> None:
        """A stream is seen when it opens, with its process, and when it closes."""
        with Watch(own, "status", "--watch", "--interval", "100ms", "-o", "json") as watch:
            watch.says("\n")
            with Caller(own.socket) as caller:
                caller.tell("watch")
                caller.hear("update")
                watch.says(f'"pid": {caller.pid}, "uid": {os.getuid()}')
            watch.says('"streams": []')
            assert 0 == watch.stop()

    @pytest.mark.forked
    def test_a_restart(self, own: AgentProcess) -> None:
        """An agent that stops is waited for, told once, and shown again when it is back."""
        with Watch(own, "status", "--watch", "--interval", "100ms") as watch:
            watch.says("started at")
            own.stop()
            note = watch.notes("waiting: ")
            time.sleep(0.5)
            own.start()
            watch.says("started at")
            assert 1 == note.count("waiting")
            assert 0 == watch.stop()

    @pytest.mark.parametrize("arguments", [["status"], ["explain", "--selectors", ME]])
    def test_a_terminal(self, own: AgentProcess, arguments: list[str]) -> None:
        """On a terminal the screen is drawn anew with each change, and Ctrl-C ends it well."""
        with Watch(own, *arguments, "--watch", "--interval", "100ms", terminal=True) as watch:
            watch.says("\x1b[H\x1b[2J")
            own.register("/more", ME)
            assert watch.says("\x1b[H\x1b[2J").count("Traceback") == 0
            own.stop()
            watch.says("waiting: ")
            assert 0 == watch.stop()

    @pytest.mark.forked
    def test_a_small_terminal(self, own: AgentProcess) -> None:
        """What has no room on the screen is counted, so that the top stays in view."""
        for number in range(40):
            own.register(f"/n{number}", ME)
        with Watch(own, "explain", "--selectors", ME, "--watch", terminal=True) as watch:
            shown = watch.says("more lines")
        screen = shown.split("\x1b[H\x1b[2J")[1].splitlines()
        assert ("selectors", True) == (screen[0], len(screen) <= 28)
        assert all(len(line) <= 100 for line in screen)

    @pytest.mark.parametrize("interval", ["50ms", "0s", "soon"])
    def test_interval(self, shared: AgentProcess, interval: str) -> None:
        """An interval that is none, or too short, is exit status 2."""
        done = shared.run("status", "--watch", "--interval", interval, check=False)
        assert (2, "") == (done.returncode, done.stdout)
        assert "--interval" in done.stderr

    def test_nobody_there(self, own: AgentProcess) -> None:
        """An agent that was never there is exit status 3 at once, also with --watch."""
        own.stop()
        assert 3 == own.run("status", "--watch", check=False).returncode
