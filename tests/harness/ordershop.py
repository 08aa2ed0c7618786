"""A shop for tests: orders behind TaskTokenMiddleware on uvicorn, in a process of its own, and an agent with its types.

The service logs to standard error, as the logging of the standard library does by itself.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from sojourn import SyncClient, TaskTokenMiddleware

ACTIONS = {"GET /orders/{order}": "order:read", "POST /orders/{order}/refunds": "order:refund"}
SHOP = "spiffe://example.org/shop"
SUPPORT = "spiffe://example.org/agent/support"
ALL = '@id("all") permit (principal, action, resource);'
FORBIDDEN = """
@id("forbidden") forbid (principal, action, resource) when { context.params has order && context.params.order == "forbidden" };
"""
NORMAL = """
allowed_workloads = ["{support}"]
max_duration = "5m"
[params]
order = "string"
[[ceiling]]
resource = "{url}"
actions = ["order:read", "order:refund"]
"""
CONFIG = """
trust_domain = "example.org"
[tasks]
types_dir = "types"
[metrics]
listen = "127.0.0.1:{metrics}"
[[services]]
resource = "{url}"
workloads = ["{shop}"]
"""


async def orders(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = json.dumps({"path": scope["path"], "task": scope["sojourn.task"].task_id}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


def serve(agent: str, port: int, url: str) -> None:
    app = TaskTokenMiddleware(orders, actions=ACTIONS, audience=url, socket=agent)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", lifespan="on", ws="none")


@dataclass
class OrderShop:
    """`log`: what the service wrote."""

    agent: Any  # AgentProcess
    url: str
    metrics: int
    client: SyncClient
    log: Path = Path()

    @contextmanager
    def serving(self, port: int, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
        """A process of the service at a port."""
        from harness import guide

        program = folder / f"service_{port}.py"
        arguments = f"{self.agent.socket!r}, {port}, {self.url!r}"
        program.write_text(f"from harness.ordershop import serve; serve({arguments})")
        environment = {**self.agent.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
        with guide.running(program, port, environment) as process:
            self.log = folder / f"{program.name}.log"
            yield process

    def records(self, task_id: str) -> list[dict[str, Any]]:
        """What the journal has of a task: each record's fields with its event."""
        found = self.agent.json("task", "why", task_id)["records"]
        return [{"event": each["event"], **each["fields"]} for each in found]


@contextmanager
def order_shop(folder: Path) -> Iterator[OrderShop]:
    """A running shop, and a running agent on which this user is both /agent/support and /shop."""
    from harness.agent import AgentProcess
    from harness.ports import free_port
    from harness.taskagent import inner_failures, revoke_all, write_type

    port, metrics = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    agent = AgentProcess(config=CONFIG.format(url=url, shop=SHOP, metrics=metrics))
    (agent.folder / "types").mkdir()
    text = NORMAL.format(support=SUPPORT, url=url)
    write_type(agent.folder / "types", "support", text, ALL + FORBIDDEN)
    write_type(agent.folder / "types", "careful", f'consequence = "high"\n{text}', ALL)
    with agent:
        for path in ("/agent/support", "/shop"):
            agent.register(path, f"unix:uid:{os.getuid()}")
        with SyncClient(agent.socket) as client:
            shop = OrderShop(agent, url, metrics, client)
            with shop.serving(port, folder):
                yield shop
                revoke_all(agent)
        assert [] == inner_failures(agent)
