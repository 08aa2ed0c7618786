"""An agent with task types that need approval, and the people who give it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.agent import COMMAND, AgentProcess
from harness.callers import Caller
from harness.taskagent import (
    OTHER_UID,
    PLACE_A,
    STRANGER_UID,
    THIRD_UID,
    TRIAGE,
    inner_failures,
    make_agent,
    write_type,
)

BOSS, BOSS_UID = "spiffe://example.org/boss", 4003
_PERMIT = '@id("all") permit (principal, action, resource);'
_TYPE = f"""
allowed_workloads = ["{TRIAGE}"]
{{}}
[params]
amount = "long"
[[ceiling]]
resource = "{PLACE_A}"
actions = ["doc:read", "doc:write"]
"""
TYPES = {
    "asked": "[approval]",
    "hurried": '[approval]\nwithin = "2s"',
    "two-people": "[approval]\ncount = 2",
    "boss": f'[approval]\napprovers = ["{BOSS}"]',
    "glass": 'break_glass = true\nmax_duration = "10m"\n[approval]',
    "short-glass": 'break_glass = true\nmax_duration = "2s"\n[approval]',
}
# Runs a command as someone who logged in as the user that the first argument names; the kernel allows it once.
AS_LOGIN = ["sh", "-c", 'echo "$0" > /proc/self/loginuid && exec "$@"']


def make_approval_agent() -> AgentProcess:
    """It is not started. OTHER_UID is /agent/triage, BOSS_UID is /boss, THIRD_UID is both; STRANGER_UID is /stranger."""
    agent = make_agent()
    for name, lines in TYPES.items():
        write_type(agent.folder / "types", name, _TYPE.format(lines), _PERMIT)
    return agent


def register(agent: AgentProcess) -> None:
    agent.register("/agent/triage", f"unix:uid:{OTHER_UID}")
    agent.register("/agent/triage", f"unix:uid:{THIRD_UID}")
    agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
    agent.register("/boss", f"unix:uid:{BOSS_UID}")
    agent.register("/boss", f"unix:uid:{THIRD_UID}")
    agent.register("/stranger", f"unix:uid:{STRANGER_UID}")


@contextmanager
def approval_agent() -> Iterator[AgentProcess]:
    """A running one, which must not have failed inside when it is done with."""
    with make_approval_agent() as agent:
        register(agent)
        yield agent
        assert [] == inner_failures(agent)


def ask(caller: Caller, kind: str = "asked", **arguments: Any) -> dict[str, Any]:
    """Have a caller begin a task that ends with it; return what it says of the request."""
    caller.tell("begin", type=kind, **arguments)
    return caller.hear("pending", "error")


def approvals(agent: AgentProcess) -> list[dict[str, Any]]:
    return list(agent.json("approval", "list")["approvals"])


def state_of(agent: AgentProcess, task_id: str) -> tuple[str, str]:
    task = agent.json("task", "show", task_id)
    return task["state"], task["reason"]


def records(agent: AgentProcess, task_id: str, event: str) -> list[dict[str, Any]]:
    """The fields of the audit records about a task with this name."""
    told = agent.json("task", "why", task_id)["records"]
    return [record["fields"] for record in told if record["event"] == event]


def as_login(login_uid: int, agent: AgentProcess, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as this user, who logged in as another."""
    return subprocess.run(
        [*AS_LOGIN, str(login_uid), *COMMAND, *arguments],
        env=agent.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def logged_in(agent: AgentProcess, uid: int, login_uid: int) -> Caller:
    """A caller of `uid` who logged in as another."""
    script = str(Path(__file__).with_name("caller.py"))
    return Caller(agent.socket, uid=uid, argv=[*AS_LOGIN, str(login_uid), sys.executable, script])


def can_log_in() -> bool:
    """Whether this kernel lets a process have a login user."""
    done = subprocess.run(
        [*AS_LOGIN, "4711", "cat", "/proc/self/loginuid"], capture_output=True, text=True, check=False
    )
    return done.stdout == "4711"


def error_of(done: "subprocess.CompletedProcess[str]") -> str:
    """The stable code of the error that a command with --output json ended with."""
    return str(json.loads(done.stderr.splitlines()[-1])["error"]["code"])
