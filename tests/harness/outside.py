"""An agent with providers outside: stand-ins on loopback, and task types that name them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import admin_pb2

from harness.agent import AgentProcess
from harness.authserver import AuthServer
from harness.taskagent import OTHER_UID, TICKETS, TRIAGE, make_agent, write_type
from harness.taskcalls import unary

ORDERS, STOCK = "https://orders.example.org", "https://stock.example.org"
HELPER = "spiffe://example.org/agent/helper"
PERMIT_ALL = '@id("all") permit (principal, action, resource);'
ASK = 'ask = {{ audience = "{audience}", scopes = {{ "orders:read" = ["orders.read"], "orders:list" = ["orders.list"] }} }}'


def provider(name: str, server: AuthServer, **more: object) -> str:
    """The table of a provider of kind `oidc` in the configuration."""
    lines = {"kind": '"oidc"', "issuer": f'"{server.issuer}"', "plain_http": "true", "timeout": '"5s"', **more}
    return f"\n[providers.{name}]\n" + "\n".join(f"{key} = {value}" for key, value in lines.items()) + "\n"


def outside_type(*, ask: str = ASK.format(audience="orders"), corp: str = "corp", **more: object) -> str:
    """A task type with a resource of ours, one of provider `corp`, and one of provider `other`."""
    head = "\n".join(f"{key} = {value}" for key, value in more.items())
    return f"""
allowed_workloads = ["{TRIAGE}"]
{head}
[delegation]
to = ["{HELPER}"]
[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:read"]
[[ceiling]]
resource = "{ORDERS}"
actions = ["orders:list", "orders:read"]
provider = "{corp}"
{ask}
[[ceiling]]
resource = "{STOCK}"
actions = ["stock:read"]
provider = "other"
"""


@contextmanager
def outside_agent(
    corp: AuthServer, other: AuthServer, *, level: str = "info", extra: str = ""
) -> Iterator[AgentProcess]:
    """A running agent with the task type `outside`."""
    tables = provider("corp", corp) + provider("other", other, timeout='"1s"') + extra
    with make_agent(level=level, extra=tables) as made:
        yield made


@contextmanager
def working_agent(corp: AuthServer, other: AuthServer, *, extra: str = "") -> Iterator[AgentProcess]:
    """A running agent where this user, as /agent/triage, can begin tasks of type `outside`; OTHER_UID is the helper."""
    with outside_agent(corp, other, level="debug", extra=extra) as agent:
        write_type(agent.folder / "types", "outside", outside_type(), PERMIT_ALL)
        assert agent.run("policy", "reload").returncode == 0
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        agent.register("/agent/helper", f"unix:uid:{OTHER_UID}")
        yield agent


@contextmanager
def client_beside(agent: AgentProcess, *servers: AuthServer) -> Iterator[SyncClient]:
    """A client of an agent. Afterwards its providers answer as ever."""
    with SyncClient(agent.socket) as opened:
        yield opened
    for server in servers:
        server.always.clear()


def listed(agent: AgentProcess) -> dict[str, admin_pb2.Provider]:
    """The providers that operators see, by name."""
    answer = unary(
        agent.admin_socket,
        "/sojourn.v1.Admin/ListProviders",
        admin_pb2.ListProvidersRequest(),
        admin_pb2.ListProvidersResponse,
    )
    return {each.name: each for each in answer.providers}
