"""What an agent in its image asks before it starts: that it sees whom it is to serve, and that what it keeps will stay.

The image says by SOJOURN_CONTAINER that it is one.
"""

import os
import re
import socket
from collections.abc import Mapping
from typing import Final

from sojourn.attestation.machine import machine, outlives_the_mounts
from sojourn.config.model import Config
from sojourn.errors import CannotStart

_OF_A_CONTAINER: Final = re.compile(r"[0-9a-f]{12}")  # the host name that Docker and Podman give


def check(config: Config, environment: Mapping[str, str] = os.environ) -> None:
    """Raise CannotStart if this is a container that can serve nobody, or loses all with its end."""
    if not environment.get("SOJOURN_CONTAINER"):
        return
    if reason := _others_processes():
        raise CannotStart(
            f"the agent's container has a process namespace of its own, so that no caller outside of it can be attested"
            f" ({reason}): start it with `--pid host`. One that is to serve its own container alone starts with"
            " `--env SOJOURN_CONTAINER=`"
        )
    if not config.node_name and _OF_A_CONTAINER.fullmatch(name := socket.gethostname()):
        raise CannotStart(
            f"the node would have the name of the agent's container, {name!r}, behind which all entries would stay:"
            " start it with `--uts host`, or set node_name"
        )
    _check_folder(str(config.data_dir), "sojourn-data", "keys and entries are lost with the container")
    for folder in dict.fromkeys(str(path.parent) for path in (config.socket, config.admin_socket)):
        _check_folder(folder, folder, "nobody outside finds the sockets")


def _others_processes() -> str:
    if os.getpid() == 1:
        return "the agent is process 1"
    if not machine().known_apart and not machine().sees_all_processes:
        return "process 1 is in the same container"
    return machine().others_processes


def _check_folder(folder: str, source: str, otherwise: str) -> None:
    mount = f"--volume {source}:{folder}"
    if not outlives_the_mounts(folder):
        raise CannotStart(f"nothing is mounted at {folder} in the agent's container: {otherwise}; add `{mount}`")
    if not os.access(folder, os.W_OK, effective_ids=True):
        raise CannotStart(
            f"{folder} cannot be written in the agent's container by its user {os.geteuid()}: mount a folder of that"
            f" user's, and not read-only: `{mount}`"
        )
