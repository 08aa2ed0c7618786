"""An agent with a chain of services, each of which may exchange the tokens that it is given for calls of its own."""

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from harness.agent import AgentProcess
from harness.callers import Caller
from harness.exchanges import ACCESS_TOKEN, GRANT, JWT, part
from harness.strangers import stranger
from harness.taskagent import OTHER_UID, THIRD_UID, TICKETS, TRIAGE, make_agent, revoke_all, write_type

STORE = "https://store.example.org"
SECRET = "https://secret.example.org"
WATCHER, WATCHER_UID = "spiffe://example.org/watcher", 4003  # a validator of both
TICKET_SERVICE, STORE_SERVICE = "spiffe://example.org/svc/tickets", "spiffe://example.org/svc/store"
ALL = '@id("all") permit (principal, action, resource);'
SERVICES = f"""
[[services]]
resource = "{TICKETS}"
workloads = ["{TICKET_SERVICE}", "{WATCHER}"]
[[services]]
resource = "{STORE}"
workloads = ["{STORE_SERVICE}", "{WATCHER}"]
"""
HANDED = f"""
allowed_workloads = ["{TRIAGE}"]
[delegation]
to = ["{TICKET_SERVICE}", "{STORE_SERVICE}"]
max_depth = 2
max_children = 50
[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:read", "ticket:write"]
[[ceiling]]
resource = "{STORE}"
actions = ["blob:read", "ticket:read"]
"""
KEPT = f"""
allowed_workloads = ["{TRIAGE}"]
[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:keep"]
"""
ASKED = f"""
allowed_workloads = ["{TICKET_SERVICE}", "{WATCHER}"]
[approval]
within = "5m"
[[ceiling]]
resource = "{SECRET}"
actions = ["secret:read"]
"""
NUMBERED = f"""
allowed_workloads = ["{TRIAGE}"]
[params]
ticket = {{type = "long", required = true}}
note = "string"
[[ceiling]]
resource = "https://numbered.example.org"
actions = ["ticket:read"]
"""
TYPES = {"handed": HANDED, "kept": KEPT, "asked": ASKED, "numbered": NUMBERED}
NUMBERS = "https://numbered.example.org"


def details(name: str, *actions: str, at: str = TICKETS, **more: Any) -> str:
    return json.dumps([{"type": name, "actions": list(actions), "locations": [at], **more}])


@dataclass
class Chain:
    """This process is /agent/triage; `tickets` and `store` are the services behind TICKETS and STORE."""

    agent: AgentProcess
    tickets: Caller
    store: Caller

    def exchange(self, who: Caller, subject: str, **fields: str) -> tuple[int, dict[str, Any]]:
        """Have a service exchange a task token."""
        form = {"grant_type": GRANT, "subject_token": subject, "subject_token_type": ACCESS_TOKEN, **fields}
        return self.post(who, form)

    def post(self, who: Caller, form: dict[str, str], **headers: str) -> tuple[int, dict[str, Any]]:
        answer = who.ask("post", path="/token", fields=form, headers=headers)
        assert "answered" == answer["event"], answer
        return answer["status"], answer["body"]


def with_jwt(subject: str, **fields: str) -> dict[str, str]:
    return {"grant_type": GRANT, "subject_token": subject, "subject_token_type": JWT, **fields}


def by_itself(**fields: str) -> dict[str, str]:
    return {"grant_type": "client_credentials", **fields}


@contextlib.contextmanager
def chain(extra: str = "") -> Iterator[Chain]:
    made = make_agent(extra=SERVICES + extra)
    for name, toml in TYPES.items():
        write_type(made.folder / "types", name, toml, ALL)
    with made as agent, ExitStack() as stack:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        agent.register("/watcher", f"unix:uid:{WATCHER_UID}")
        agent.register("/svc/tickets", f"unix:uid:{OTHER_UID}")
        agent.register("/svc/store", f"unix:uid:{THIRD_UID}")
        services = [stack.enter_context(stranger(agent.socket, uid)) for uid in (OTHER_UID, THIRD_UID)]
        yield Chain(agent, *services)
        revoke_all(agent)


def actors(token: str) -> list[str]:
    """Who acts for the subject of a token, the present one first."""
    found, place = [], part(token, 1)
    while "act" in place:
        place = place["act"]
        found.append(place["sub"])
    return found
