"""Tasks whose holder ends, stops, or multiplies, and clocks that are set: cases 20 and 25. Nothing outlives its task."""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fakes.clock import FakeClock
from fakes.task_room import Room
from fakes.task_types import TICKETS as FAKE_TICKETS
from fakes.task_types import task_type
from harness.agent import AgentProcess, clean_environment
from harness.callers import Caller
from harness.cgroups import removed
from harness.exchanges import form, post
from harness.lacking import lacking
from harness.looking import until
from harness.taskagent import TICKETS, TRIAGE, make_agent, write_type
from harness.taskcalls import refusal
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.errors import TaskOver

# Has the kernel stop a process when a signal has ended it and before it is gone, for as long as this runs.
TRACER = """
import ctypes, sys, time
SEIZE, TRACE_EXIT = 0x4206, 0x40
trace = ctypes.CDLL(None, use_errno=True).ptrace
trace.argtypes = [ctypes.c_long] * 4
print(trace(SEIZE, int(sys.argv[1]), 0, TRACE_EXIT), flush=True)
time.sleep(600)
"""
UNKNOWN = "tsk_AAAAAAAAAAAAAAAAAAAAAA"
BRIEF = f"""
allowed_workloads = ["{TRIAGE}"]
idle_timeout = "1s"
[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:read"]
"""


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    running = make_agent()
    write_type(running.folder / "types", "brief", BRIEF, '@id("all") permit (principal, action, resource);')
    with running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running


@pytest.fixture(scope="module")
def service(agent: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(agent.socket) as client:
        yield client


def held(holder: Caller, kind: str = "triage-ticket", begin: str = "begin_process") -> tuple[str, str]:
    """A task of this process, and a token of it."""
    task = str(holder.ask(begin, type=kind)["id"])
    return task, str(holder.ask("token", task=task)["token"])


def why_dead(service: SyncClient, token: str) -> str:
    """Why a token is dead, once it is."""

    def look() -> str:
        verdict = service.validate_token(token, TICKETS)
        return "" if verdict.valid else verdict.reason

    return until(look, "the token is dead")


class TestCase20:
    """The holder is killed, stopped, out of memory, or has left others behind."""

    @pytest.mark.parametrize("begin", ["begin", "begin_process"], ids=["stream", "process"])
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
    def test_a_signal(self, agent: AgentProcess, service: SyncClient, begin: str, number: signal.Signals) -> None:
        """Whatever signal ends it, its token is dead, and with the reason."""
        with Caller(agent.socket) as holder:
            _, token = held(holder, begin=begin)
            os.kill(holder.pid, number)
            assert "the task is over: revoked, holder_" in why_dead(service, token)

    @pytest.mark.root  # others may trace none but their children, on some machines
    @pytest.mark.parametrize("begin", ["begin", "begin_process"], ids=["stream", "process"])
    def test_killed_and_kept_from_going(self, agent: AgentProcess, service: SyncClient, begin: str) -> None:
        """Who traces the holder can keep it from going once it is killed, and what runs beside it would go on: its task
        is over all the same, also if nobody asks.
        """
        with Caller(agent.socket) as holder:
            task, token = held(holder, begin=begin)
            tracer = subprocess.Popen(
                [sys.executable, "-c", TRACER, str(holder.pid)], stdout=subprocess.PIPE, text=True
            )
            try:
                assert tracer.stdout is not None
                assert "0\n" == tracer.stdout.readline()
                os.kill(holder.pid, signal.SIGKILL)
                until(lambda: agent.json("task", "show", task)["state"] == "revoked", "the task has ended")
                assert "(tracing stop)" in Path(f"/proc/{holder.pid}/status").read_text()
                assert "the task is over: revoked, holder_exited" == why_dead(service, token)
            finally:
                tracer.kill()
                tracer.communicate()

    @pytest.mark.parametrize("begin", ["begin", "begin_process"], ids=["stream", "process"])
    def test_stopped(self, agent: AgentProcess, service: SyncClient, begin: str) -> None:
        """A holder that is stopped uses nothing: its idle time ends the task, and going on does not bring it back."""
        with Caller(agent.socket) as holder:
            task, token = held(holder, "brief", begin)
            os.kill(holder.pid, signal.SIGSTOP)
            try:
                # Not by asking about the token: a service that accepts it uses the task.
                until(lambda: agent.json("task", "show", task)["state"] == "expired", "the task has ended")
                assert "the task is over: expired, idle" == why_dead(service, token)
            finally:
                os.kill(holder.pid, signal.SIGCONT)
            holder.tell("token", task=task)
            assert "task_not_active" == holder.hear("error")["code"]

    @pytest.mark.root
    def test_out_of_memory(self, agent: AgentProcess, service: SyncClient) -> None:
        """A holder that the kernel ends for want of memory has no task any more."""
        folder = Path(f"/sys/fs/cgroup/memory/sojourn-test-oom-{os.getpid()}")
        try:
            folder.mkdir()
        except OSError:
            lacking("needs a memory cgroup that can be written")
        try:
            with Caller(agent.socket) as holder:
                _, token = held(holder)
                (folder / "memory.limit_in_bytes").write_text(str(8 * 1024 * 1024))
                (folder / "cgroup.procs").write_text(str(holder.pid))
                holder.tell("allocate", bytes=256 * 1024 * 1024)
                assert -signal.SIGKILL == holder.wait()
                assert "revoked" in why_dead(service, token)
        finally:
            until(lambda: removed(folder), "the cgroup is empty")

    @pytest.mark.parametrize("session", [False, True], ids=["its own", "a session"])
    def test_a_daemon_of_its_own(self, agent: AgentProcess, service: SyncClient, session: bool, tmp_path: Path) -> None:
        """What forked twice is no descendant of the holder any more: it never has the task, and cannot keep it alive."""
        told, script = tmp_path / "told", tmp_path / "holder.py"
        script.write_text(DAEMON)
        arguments = [sys.executable, str(script), agent.socket, str(told), str(session)]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, text=True, env=clean_environment()) as holder:
            assert holder.stdin is not None
            token, early = until(lambda: lines(told, 2), "the daemon has asked")
            assert "not_found" == early
            assert service.validate_token(token, TICKETS).valid
            holder.kill()
        assert "holder_" in why_dead(service, token)
        assert {"not_found", "task_not_active"} >= {until(lambda: lines(told, 3), "the daemon has asked again")[2]}


def lines(path: Path, number: int) -> list[str]:
    """The lines of a file, once it has so many."""
    found = path.read_text().splitlines() if path.exists() else []
    return found if len(found) >= number else []


DAEMON = """
import os, sys, time
from sojourn import SyncClient
from sojourn.errors import SojournError

socket, told, session = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
holder = os.getpid()

def tell(line):
    with open(told, "a") as file:
        file.write(line + "\\n")

reads, writes = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    task = os.read(reads, 100).decode()
    def ask():
        try:
            with SyncClient(socket) as client:
                client.get_token(task)
                return "yes"
        except SojournError as error:
            return error.remote_code or error.code
    tell(ask())
    while os.path.exists(f"/proc/{holder}") and open(f"/proc/{holder}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    answer = ask()
    ends = time.monotonic() + 10
    while answer == "yes" and time.monotonic() < ends:
        time.sleep(0.01)
        answer = ask()
    tell(answer)
    os._exit(0)
with SyncClient(socket) as client, client.task("triage-ticket", session=session) as task:
    tell(task.token().token)
    os.write(writes, task.id.encode())
    sys.stdin.read()
"""


class TestCase25:
    """Clocks that are set back and forth, and a machine that sleeps: deadlines are on the boot clock."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def room(self, clock: FakeClock) -> AsyncIterator[Room]:
        made = Room(clock, {"triage": task_type(idle_timeout='"5m"')})
        yield made
        made.end_everything()

    @pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(hours=1), timedelta(days=-3650)], ids=str)
    async def test_a_step_prolongs_nothing(self, room: Room, clock: FakeClock, step: timedelta) -> None:
        """Whatever the wall clock says, a task ends when it would have; not sooner and not later."""
        task = await room.begin(max_seconds=60)
        clock.step_wall(step.total_seconds())
        room.alarms.ring_due()
        assert task.live
        clock.advance(59)
        room.alarms.ring_due()
        assert task.live
        clock.advance(1)
        with pytest.raises(TaskOver):
            await room.engine.token(task, FAKE_TICKETS, ())
        room.alarms.ring_due()
        assert ("expired", "deadline") == (task.state, task.reason)

    async def test_sleep(self, room: Room, clock: FakeClock) -> None:
        """Time that the machine slept counts: the first that is asked after it is refused, before any alarm rings."""
        task = await room.begin()
        token = await room.engine.token(task, FAKE_TICKETS, ())
        clock.advance(6 * 60)
        with pytest.raises(TaskOver, match="not used for too long"):
            room.engine.check_token(token)
        with pytest.raises(TaskOver):
            await room.engine.token(task, FAKE_TICKETS, ())


CALLS: dict[str, Callable[[str, str], object]] = {
    "GetToken": lambda socket, task: refusal(
        socket, "/sojourn.v1.Tasks/GetToken", pb.GetTokenRequest(task_id=task), pb.GetTokenResponse
    ),
    "CompleteTask": lambda socket, task: refusal(
        socket, "/sojourn.v1.Tasks/CompleteTask", pb.CompleteTaskRequest(task_id=task), pb.Task
    ),
    "AttachTask": lambda socket, task: refusal(
        socket, "/sojourn.v1.Tasks/AttachTask", pb.AttachTaskRequest(task_id=task), pb.Task
    ),
    "NarrowTask": lambda socket, task: refusal(
        socket,
        "/sojourn.v1.Tasks/NarrowTask",
        pb.NarrowTaskRequest(task_id=task, grants=[pb.Grant(resource=TICKETS, actions=["ticket:read"])]),
        pb.Task,
    ),
}


class TestCase41:
    """An unknown task and another's cannot be told apart, in text or time."""

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    @pytest.mark.parametrize("state", ["live", "ended"])
    def test_in_text(self, agent: AgentProcess, call: Callable[[str, str], object], state: str) -> None:
        """Of another's task the answer has the same status and sentence, whether it lives, has ended, or never was."""
        with Caller(agent.socket) as other:
            task, _ = held(other)
            if state == "ended":
                other.ask("complete", task=task)
            foreign, unknown = call(agent.socket, task), call(agent.socket, UNKNOWN)
        assert ("NOT_FOUND", "there is no such task") == unknown == foreign

    def test_at_the_token_endpoint(self, agent: AgentProcess) -> None:
        """An exchange under another's task is answered alike, whether that lives, has ended, or never was."""
        with Caller(agent.socket) as other, SyncClient(agent.socket) as own:
            task, _ = held(other)
            subject = own.fetch_jwt_svid("https://sojourn.example.org").token
            answers = [
                post(agent.socket, form(subject, authorization_details=None, task_id=each)) for each in (task, UNKNOWN)
            ]
        assert answers[0].status_code == answers[1].status_code == 400
        said = [{name: value for name, value in each.json().items() if name != "decision_id"} for each in answers]
        assert said[0] == said[1]

    @pytest.mark.timing
    def test_in_time(self, agent: AgentProcess) -> None:
        """Asked in turn, many times, neither takes longer than the other by more than machines are noisy."""
        with Caller(agent.socket) as other, SyncClient(agent.socket) as own:
            task, _ = held(other)
            for _ in range(3):  # a machine may be busy at one of them
                ratio = self._ratio(own, task)
                if 0.8 < ratio < 1.25:
                    return
        pytest.fail(f"the answer for another's task takes {ratio:.2f} times as long as that for none")

    def _ratio(self, client: SyncClient, task: str) -> float:
        taken: dict[str, list[float]] = {task: [], UNKNOWN: []}
        for number in range(400):
            for each in (task, UNKNOWN) if number % 2 else (UNKNOWN, task):
                began = time.perf_counter()
                with pytest.raises(Exception, match="no such task"):
                    client.get_token(each)
                taken[each].append(time.perf_counter() - began)
        return statistics.median(taken[task]) / statistics.median(taken[UNKNOWN])
