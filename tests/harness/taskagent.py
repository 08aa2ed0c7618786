"""An agent that many tests share, with task types of several sorts."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sojourn._pb.sojourn.v1.admin_pb2 import RevokeTaskRequest
from sojourn._pb.sojourn.v1.tasks_pb2 import Task

from harness.agent import SAMPLES, AgentProcess
from harness.taskcalls import unary

TICKETS = "https://tickets.example.org"
PLACE_A, PLACE_B = "https://a.example.org", "https://b.example.org"
PRINTER = "https://printer.example.org"
TRIAGE = "spiffe://example.org/agent/triage"
ISSUER = "https://sojourn.example.org"
OTHER_UID, THIRD_UID, STRANGER_UID = 4001, 4002, 4009

CONFIG = """
trust_domain = "example.org"
[tasks]
types_dir = "types"
[log]
level = "{level}"
"""

# name: (TOML, Cedar)
TYPES = {
    "two-places": (
        f"""
allowed_workloads = ["{TRIAGE}"]
[[ceiling]]
resource = "{PLACE_A}"
actions = ["doc:read", "doc:write"]
[[ceiling]]
resource = "{PLACE_B}"
actions = ["doc:read"]
""",
        '@id("all") permit (principal, action, resource);',
    ),
    "careful": (
        f"""
allowed_workloads = ["{TRIAGE}"]
consequence = "high"
[[ceiling]]
resource = "{PLACE_A}"
actions = ["doc:destroy"]
""",
        '@id("all") permit (principal, action, resource);',
    ),
    "print-pages": (
        f"""
allowed_workloads = ["{TRIAGE}"]
[params]
pages = "long"
colour = "boolean"
[[ceiling]]
resource = "{PRINTER}"
actions = ["page:print", "toner:replace"]
""",
        """@id("few-pages") permit (principal, action == Sojourn::Action::"page:print", resource)
when { context.params has pages && context.params.pages <= 10 };""",
    ),
    "not-for-triage": (
        f"""
allowed_workloads = ["spiffe://example.org/nobody"]
[[ceiling]]
resource = "{PLACE_B}"
actions = ["doc:read"]
""",
        '@id("all") permit (principal, action, resource);',
    ),
}


def make_agent(*, level: str = "info", as_user: int | None = None, extra: str = "") -> AgentProcess:
    """An agent with TYPES beside the sample's type, and `extra` in its configuration; it is not started."""
    agent = AgentProcess(config=CONFIG.format(level=level) + extra, as_user=as_user)
    types = agent.folder / "types"
    shutil.copytree(SAMPLES / "task-types", types)
    for name, (toml, cedar) in TYPES.items():
        write_type(types, name, toml, cedar)
    return agent


def write_type(folder: Path, name: str, toml: str, cedar: str) -> None:
    (folder / f"{name}.toml").write_text(toml)
    (folder / f"{name}.cedar").write_text(cedar)


@contextmanager
def shared_agent(*, level: str = "info") -> Iterator[AgentProcess]:
    """A running agent on which this user is /agent/triage; OTHER_UID is that too, THIRD_UID is /third.

    When it is done with, it must have closed what it opened and must not have failed inside.
    """
    with make_agent(level=level) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        agent.register("/agent/triage", f"unix:uid:{OTHER_UID}")
        agent.register("/third", f"unix:uid:{THIRD_UID}")
        before = agent.open_files()
        yield agent
        revoke_all(agent)  # those that are held by the process that runs the tests
        before.await_few(16)  # of the database and of gRPC, which come with first use
        assert [] == inner_failures(agent)


def revoke_all(agent: AgentProcess) -> None:
    """End every live task, so that what they hold is let go."""
    for task in agent.json("task", "list")["tasks"]:
        unary(agent.admin_socket, "/sojourn.v1.Admin/RevokeTask", RevokeTaskRequest(task_id=task["id"]), Task)


def inner_failures(agent: AgentProcess) -> list[object]:
    """What the log tells of errors that the agent did not foresee."""
    return [line for line in agent.log_lines() if line["event"] in {"call_failed", "http_failed", "library_message"}]
