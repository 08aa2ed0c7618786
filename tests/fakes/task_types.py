"""Task types of two short files."""

from typing import Any

from sojourn.policy.task_types import TaskType, parse

TRIAGE = "spiffe://example.org/agent/triage"
TICKETS, WIKI = "https://tickets.example.org", "https://wiki.example.org"
PERMIT_ALL = '@id("all") permit (principal, action, resource);'


def toml(**changes: Any) -> str:
    """The TOML file of a task type with two resources; `changes` are lines by key, None leaves one out."""
    lines = {
        "allowed_workloads": f'["{TRIAGE}"]',
        "max_duration": '"15m"',
        "token_ttl": '"60s"',
        "params": '{ticket = "string", level = "long", urgent = "boolean"}',
        "ceiling": f'[{{resource = "{TICKETS}", actions = ["ticket:read", "ticket:write"]}},'
        f' {{resource = "{WIKI}", actions = ["page:read"]}}]',
        **changes,
    }
    return "\n".join(f"{name} = {value}" for name, value in lines.items() if value is not None)


def task_type(name: str = "triage", cedar: str = PERMIT_ALL, **changes: Any) -> TaskType:
    return parse(name, toml(**changes), cedar)
