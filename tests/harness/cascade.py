"""An agent whose tasks have credentials of a stand-in for an authorization server."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.agent import AgentProcess
from harness.authserver import AuthServer, Deed, Exchange
from harness.taskagent import TRIAGE, make_agent, write_type

ORDERS, STOCK = "https://orders.example.org", "https://stock.example.org"
READ = ["orders:read"]
PERMIT = '@id("all") permit (principal, action, resource);'
_TYPE = """
allowed_workloads = ["{workload}"]
max_duration = "10m"
[[ceiling]]
resource = "{resource}"
actions = ["orders:read", "orders:write"]
provider = "{provider}"
"""
_PROVIDER = """
[providers.{name}]
kind = "oidc"
issuer = "{issuer}"
plain_http = true
timeout = "5s"
"""


def provider(name: str, server: AuthServer) -> str:
    """The configuration's table of a provider that is this server."""
    return _PROVIDER.format(name=name, issuer=server.issuer)


def make(extra: str) -> AgentProcess:
    """An agent, not started, with the types `orders` (of provider corp) and `stock` (of provider vault)."""
    agent = make_agent(extra=extra)
    types = agent.folder / "types"
    write_type(types, "orders", _TYPE.format(workload=TRIAGE, resource=ORDERS, provider="corp"), PERMIT)
    if "[providers.vault]" in extra:
        write_type(types, "stock", _TYPE.format(workload=TRIAGE, resource=STOCK, provider="vault"), PERMIT)
    return agent


@contextmanager
def running(extra: str) -> Iterator[AgentProcess]:
    """Such an agent, on which this user is /agent/triage. It must not have failed inside."""
    with make(extra) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield agent
        broken = {"call_failed", "http_failed", "external_recall_broken", "provider_raised", "exchange_failed"}
        assert [] == [line for line in agent.log_lines() if line["event"] in broken]
        agent.run("audit", "verify")


def records(agent: AgentProcess, event: str) -> list[dict[str, Any]]:
    """The fields of all records of an event, oldest first."""
    found = agent.json("audit", "tail", "--lines", "10000")["records"]
    return [each["fields"] for each in found if each["event"] == event]


def granted_and_held(came: threading.Event, go_on: threading.Event) -> Deed:
    """Grant what is asked for, and answer when `go_on` is set; `came` says that a request is there."""

    def deed(exchange: Exchange) -> bool:
        came.set()
        while not go_on.wait(0.05):
            if exchange.owner.ending.is_set():
                return False
        return True

    return deed
