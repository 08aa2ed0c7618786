"""What an agent has acknowledged of tasks until it is killed, and whether all of that is so when it is back."""

import random
import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import admin_pb2, tasks_pb2
from sojourn.errors import SojournError

from harness.agent import AgentProcess
from harness.exchanges import part
from harness.taskagent import TICKETS
from harness.taskcalls import unary

ADMIN = "/sojourn.v1.Admin/"
CALL_SECONDS = 20.0  # on a busy machine; a call to an agent that was killed fails at once
LIVING = {"active", "suspended"}


@dataclass
class Known:
    """What the agent has acknowledged. Written by one thread, read when that has ended."""

    live: dict[str, int] = field(default_factory=dict)  # task -> the greatest version that was seen
    asked_to_end: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    tokens: dict[str, int] = field(default_factory=dict)
    suspended: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)  # a change was asked for, and not acknowledged
    dead: list[str] = field(default_factory=list)  # tokens that nobody may ever accept again
    outside: set[str] = field(default_factory=set)  # tasks whose tokens are a provider's

    def saw(self, task: str, version: int) -> None:
        assert self.live.get(task, 0) <= version, "a version ran backwards"
        self.live[task] = version


class Work(threading.Thread):
    """One process's tasks, all bound to it: begins some, uses, suspends and ends others, until the agent has gone."""

    def __init__(self, agent: AgentProcess, known: Known, chance: random.Random) -> None:
        super().__init__()
        self._agent = agent
        self._known = known
        self._chance = chance
        self.failure: BaseException | None = None
        self.steps = 0

    def run(self) -> None:
        try:
            with SyncClient(self._agent.socket, deadline_seconds=CALL_SECONDS) as client:
                while True:
                    self._step(client)
                    self.steps += 1
        except SojournError as error:
            if error.code not in {"unavailable", "unreachable"}:
                self.failure = error
        except BaseException as error:
            if "StatusCode.UNAVAILABLE" not in str(error):
                self.failure = error

    def _step(self, client: SyncClient) -> None:
        known = self._known
        usable = [*(known.live.keys() - known.asked_to_end - known.suspended - known.outside)]
        task = self._chance.choice(usable) if usable else ""
        doing = self._chance.choice(["begin", "token", "token", "suspend", "resume", "end"]) if task else "begin"
        if doing == "begin" and len(usable) < 20:
            status = client.begin_task("triage-ticket").status
            known.saw(status.id, status.version)
        elif doing == "token":
            token = client.get_token(task).token
            known.saw(task, part(token, 1)["task"]["ver"])
            known.tokens[task] = known.tokens.get(task, 0) + 1
        elif doing == "suspend":
            token = client.get_token(task).token
            known.tokens[task] = known.tokens.get(task, 0) + 1
            self._admin("SuspendTasks", task)
            known.suspended.add(task)
            known.dead.append(token)
        elif doing == "resume" and known.suspended:
            back = self._chance.choice(sorted(known.suspended))
            self._admin("ResumeTasks", back)
            known.suspended.discard(back)
        elif doing == "end":
            known.asked_to_end.add(task)
            client.complete_task(task)
            known.ended.add(task)

    def _admin(self, method: str, task: str) -> None:
        self._known.unsure.add(task)
        request = admin_pb2.ChangeTasksRequest(selection=admin_pb2.TaskSelection(task_id=task))
        answer = unary(self._agent.admin_socket, ADMIN + method, request, admin_pb2.ChangeTasksResponse)
        assert "" == answer.outcomes[0].error
        self._known.unsure.discard(task)
        self._known.saw(task, answer.outcomes[0].task.version)


def check(agent: AgentProcess, known: Known, streams: Collection[str] = ()) -> None:
    """Look at everything before a holder has come back, come back, and look again. `streams`: tasks whose holders come
    back by themselves, which are somebody else's to check.
    """
    epoch = unary(
        agent.admin_socket, f"{ADMIN}GetStatus", admin_pb2.GetStatusRequest(), admin_pb2.GetStatusResponse
    ).epoch
    found = {task: each for task, each in tasks(agent).items() if task not in streams}
    assert set() == {task for task, each in found.items() if each.state == "active"}, "active without its holder"
    assert set() == found.keys() & known.ended, "an ended task is alive"
    assert set() == known.live.keys() - known.asked_to_end - found.keys(), "an acknowledged begin was lost"
    for task, each in found.items():
        assert epoch == each.version >> 32
        assert known.tokens.get(task, 0) <= each.tokens_issued, "a token was forgotten"
        known.saw(task, each.version)
    with SyncClient(agent.socket) as client:
        for task, each in found.items():
            status = client.attach_task(task)
            assert each.version < status.version
            if task in known.live and task not in known.unsure:
                assert ("suspended" if task in known.suspended else "active") == status.state
        assert not any(client.validate_token(token, TICKETS).valid for token in known.dead)
    # What was under way at the kill may have happened or not: from here on it is what the agent says.
    now = {task: each for task, each in tasks(agent).items() if task not in streams}
    known.live = {task: each.version for task, each in now.items()}
    known.tokens = {task: each.tokens_issued for task, each in now.items()}
    known.suspended = {task for task, each in now.items() if each.state == "suspended"}
    known.asked_to_end, known.unsure = set(), set()


def tasks(agent: AgentProcess) -> dict[str, tasks_pb2.Task]:
    """The tasks that live, by their IDs."""
    answer = unary(agent.admin_socket, ADMIN + "ListTasks", admin_pb2.ListTasksRequest(), admin_pb2.ListTasksResponse)
    return {task.id: task for task in answer.tasks if task.state in LIVING}
