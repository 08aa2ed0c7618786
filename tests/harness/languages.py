"""The independent clients as the tests run them: one for each language, as any user."""

import sys

import pytest

from harness import clients
from harness.agent import AgentProcess
from harness.lacking import lacking
from harness.program import Program, as_user, published

SCRIPTS = {"python": "spiffe_client.py", "sojourn": "sojourn_client.py"}
BUILT = tuple(clients.TOOLS)
_JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-jar")


class Language:
    """A client, ready to be run against an agent."""

    def __init__(self, name: str, agent: AgentProcess) -> None:
        """Copy it to where every user can run it."""
        self.name = name
        self._agent = agent
        if name in SCRIPTS:
            self._script = str(clients.SOURCES / "python" / SCRIPTS[name])
            return
        if advice := clients.missing(name):
            lacking(f"needs {advice}")
        self._program = published(clients.built(name), agent.folder, f"{name}-client")

    def run(self, uid: int, *arguments: str) -> Program:
        """Start it as another user. Flags are alike in all languages: tests/clients/README.md."""
        if self.name in SCRIPTS:
            # The interpreter may lie where only root can enter: the script becomes the user once all is loaded.
            command, *flags = arguments
            argv = [sys.executable, self._script, command, "-uid", str(uid), *flags]
        else:
            argv = [*as_user(uid), *(_JAVA if self.name == "java" else ()), str(self._program), *arguments]
        return Program(argv, self._agent.environment)


def languages(*names: str) -> list[object]:
    """The languages as parameters of a test, each with the mark of its toolchain."""
    return [pytest.param(name, marks=[getattr(pytest.mark, name)] if name in BUILT else []) for name in names]
