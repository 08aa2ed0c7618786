"""What the security tests share."""

from collections.abc import Iterator

import pytest
from harness.agent import AgentProcess
from harness.raw import Admin, Wire, module_agent


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    """An agent that the tests of a module share."""
    with module_agent() as running:
        yield running


@pytest.fixture(scope="module")
def admin(agent: AgentProcess) -> Iterator[Admin]:
    with Admin(agent.admin_socket) as admin:
        yield admin


@pytest.fixture(scope="module")
def wire(agent: AgentProcess, admin: Admin) -> Iterator[Wire]:
    """Calls of this user, once `admin` has registered it."""
    del admin
    with Wire(agent.socket) as wire:
        yield wire
