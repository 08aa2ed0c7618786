"""How a command is started so that neither it nor anything that descends from it gets a token, task or identity."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_START: Final = Path(__file__).with_name("confinedstart.py")
# By these, programs find an agent, and the task that they are in.
AGENT_NAMES: Final = ("SPIFFE_ENDPOINT_SOCKET",)
AGENT_PREFIX: Final = "SOJOURN_"


@dataclass(frozen=True, slots=True)
class Confinement:
    """`user`: as whom the command runs; None: as whoever starts it. `readable`: files that it needs. `namespaces`:
    descriptors of those that it enters, which must be inherited.
    """

    user: str | None = None
    readable: tuple[str, ...] = ()
    namespaces: tuple[int, ...] = ()

    def command(self, command: Sequence[str]) -> list[str]:
        """What to run in the place of `command`: it becomes it, with the same process ID."""
        settings = {"user": self.user, "readable": self.readable, "namespaces": self.namespaces}
        return [sys.executable, "-I", "-S", str(_START), json.dumps(settings), *command]
