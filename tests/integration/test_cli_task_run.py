"""`sojourn task run`: a command with a task of its own, from its start to its exit status."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest
from harness.agent import COMMAND, AgentProcess
from harness.clioutput import TASK_KEYS, check_error
from harness.exchanges import part
from harness.taskagent import PLACE_A, TICKETS
from harness.taskcalls import Feed


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


@pytest.mark.forked
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
