"""The shop of docs/examples/people beside a real Keycloak: alice and bob are its customers, and have an order each."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import guide
from harness.agent import ROOT, AgentProcess
from harness.keycloak import Running
from harness.peoplekeycloak import APP, PeopleRealm
from harness.ports import free_port

EXAMPLES = ROOT / "docs" / "examples"
REFUND, DESK = "spiffe://example.org/agent/refund", "spiffe://example.org/agent/desk"
ORDERS = {"alice": "1001", "bob": "2002"}
# Of another application: its back end is another workload, that may begin such tasks too.
_DESK = f"""
[[people.corp.presenters]]
workloads = ["{DESK}"]
id_token_audiences = ["desk-app"]
"""
# Where Keycloak says who has logged out; it believes who signed this certificate.
_LISTEN = """
[listen]
people = "127.0.0.1:0"
people_certificate = "{chain}"
people_key = "{key}"
"""


@dataclass(frozen=True)
class Shop:
    """All of it runs. `folder` has the examples, for this realm and these ports."""

    people: PeopleRealm
    agent: AgentProcess
    folder: Path
    url: str

    @property
    def environment(self) -> dict[str, str]:
        return {**guide.environment_of(self.agent.environment), "SHOP": self.url}

    def refund(self, token: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """What the example's program says, run as its first lines have it."""
        return subprocess.run(
            [sys.executable, str(EXAMPLES / "agent_for_user.py"), *arguments],
            input=token, env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


def customers(people: PeopleRealm) -> dict[str, str]:
    """Make both of them customers. Returns whose orders are whose, by the shop's own book."""
    people.admin("POST", "/groups", {"name": "customers"})
    group = next(each["id"] for each in people.admin("GET", "/groups") if each["name"] == "customers")
    for name in ORDERS:
        people.admin("PUT", f"/users/{people.user_id(name)}/groups/{group}")
    return {order: people.user_id(name) for name, order in ORDERS.items()}


@contextmanager
def refund_place(running: Running, people: PeopleRealm, folder: Path) -> Iterator[Shop]:
    """The shop, for a realm that has its people, and whose application tells the agent of logouts."""
    port = free_port()
    url = f"http://localhost:{port}"
    shutil.copytree(EXAMPLES / "people", folder, dirs_exist_ok=True)
    (folder / "orders.json").write_text(json.dumps(customers(people)))
    config = (folder / "agent.toml").read_text().replace("http://127.0.0.1:8080/realms/shop", people.realm.issuer)
    config = config.replace("shop-app", APP) + _DESK + _LISTEN.format(chain=running.chain, key=running.key)
    for file in (folder / "types").iterdir():
        text = file.read_text().replace("http://localhost:8096", url)
        file.write_text(text.replace(f'["{REFUND}"]', f'["{REFUND}", "{DESK}"]'))
    agent = AgentProcess(config=config)
    shutil.copytree(folder / "types", agent.folder / "types")
    with agent:
        for name in ("refund", "desk"):
            agent.register(f"/agent/{name}", f"unix:uid:{os.getuid()}", priority="1" if name == "refund" else "0")
        people.set_logout_url(f"https://localhost:{agent.people.rpartition(':')[2]}/people/corp/logout")
        shop = Shop(people, agent, folder, url)
        with guide.running(folder / "orders_service.py", port, shop.environment):
            yield shop
