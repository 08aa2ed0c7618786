"""An agent that takes people of a realm of a real Keycloak, where it is a client that shows JWT-SVIDs.

people = people_at(realm)
people.let_introspect(NODE)
with running_at(realm, agent_at(realm, more='recheck = "5s"')) as agent:
    ...
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from harness.agent import AgentProcess
from harness.keycloak import BundleServer, Realm
from harness.peoplekeycloak import APP, NODE, PeopleRealm
from harness.taskagent import write_type

CHAT = "spiffe://example.org/agent/chat"
NODE_ID = "spiffe://example.org/spire/agent/sojourn/kc"
PERMIT_ALL = '@id("all") permit (principal, action, resource);'
_CONFIG = """
trust_domain = "example.org"
node_name = "kc"
[tasks]
types_dir = "types"
[people.corp]
issuer = "{issuer}"
plain_http = true
timeout = "30s"
{more}
[[people.corp.presenters]]
workloads = ["{chat}"]
id_token_audiences = ["{app}"]
{tables}
"""
_POLLED = """
[[signals]]
issuer = "{issuer}"
people = "corp"
stream = "create"
poll_every = "{seconds}s"
client_id = "{client}"
plain_http = true
timeout = "30s"
"""
_TYPE = f"""
allowed_workloads = ["{CHAT}"]
max_duration = "10m"
[person]
need = "required"
several = true
[[ceiling]]
resource = "https://orders.example.org"
actions = ["order:read"]
"""


def people_at(realm: Realm) -> PeopleRealm:
    """The realm with people, and with the agent as its client NODE."""
    people = PeopleRealm(realm)
    people.make()
    realm.service(NODE, NODE_ID)
    return people


def config_at(realm: Realm, *, more: str = "", tables: str = "") -> str:
    """`more`: lines of [people.corp]; `tables`: others."""
    return _CONFIG.format(issuer=realm.issuer, more=more, tables=tables, chat=CHAT, app=APP)


def polled(realm: Realm, seconds: int) -> str:
    """The table by which the realm's signed events are fetched."""
    return _POLLED.format(issuer=realm.issuer, seconds=seconds, client=NODE)


def agent_at(realm: Realm, *, more: str = "", tables: str = "") -> AgentProcess:
    """Not started, with the task type `for-many`."""
    agent = AgentProcess(config=config_at(realm, more=more, tables=tables))
    folder = agent.folder / "types"
    folder.mkdir()
    write_type(folder, "for-many", _TYPE, PERMIT_ALL)
    return agent


@contextmanager
def running_at(realm: Realm, agent: AgentProcess) -> Iterator[AgentProcess]:
    """It runs, this user is its front end, and the realm finds its keys."""

    def bundle() -> bytes:
        return agent.run("bundle", "show", "--format", "spiffe").stdout.encode()

    with agent, BundleServer(bundle) as bundles:
        agent.register("/agent/chat", f"unix:uid:{os.getuid()}")
        realm.trust("example.org", bundles.url)
        yield agent
