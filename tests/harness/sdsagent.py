"""An agent that is asked for secrets: who has which names there, and what it tells of updates that were rejected."""

import http.client
import os
from collections.abc import Iterator

import pytest
from sojourn._pb.envoy.config.core.v3 import base_pb2 as core

from harness.agent import AgentProcess
from harness.looking import until
from harness.ports import free_port
from harness.raw import Admin, module_agent

DOMAIN = "spiffe://example.org"
MINE = f"{DOMAIN}/mine"
NO_VALIDATOR = core.Node(id="old")
NO_VALIDATOR.user_agent_build_version.version.major_number = 1
NO_VALIDATOR.user_agent_build_version.version.minor_number = 17


@pytest.fixture(scope="module", name="metrics_port")
def metrics_port_fixture() -> int:
    return free_port()


@pytest.fixture(scope="module", name="agent")
def agent_fixture(metrics_port: int) -> Iterator[AgentProcess]:
    """An agent where whoever runs the tests has the identity /mine. At the end no stream may be left there."""
    config = f'[metrics]\nlisten = "127.0.0.1:{metrics_port}"\n'
    with module_agent(config) as running:
        with Admin(running.admin_socket) as admin:
            admin.register("/mine", f"unix:uid:{os.getuid()}")
            yield running
            until(lambda: not admin.streams())
        assert "never retrieved" not in running.log.read_text()


def unauthorized(*names: str) -> tuple[str, str]:
    """The refusal of names that are not the caller's."""
    listed = " ".join(f'"{name}"' for name in names)
    return "INVALID_ARGUMENT", f"workload is not authorized for the requested identities [{listed}]"


def rejections(port: int) -> float:
    """How many updates were rejected, by the agent's metrics."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return next(float(line.split()[1]) for line in lines if line.startswith("sojourn_sds_rejected_total "))


def rejected(agent: AgentProcess, reason: str) -> list[tuple[int, int]]:
    """Who rejected an update for this reason, by the agent's log."""
    lines = [line for line in agent.log_lines() if line["event"] == "sds_update_rejected" and line["reason"] == reason]
    return [(line["pid"], line["uid"]) for line in lines]
