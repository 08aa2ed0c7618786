"""An agent in the namespace of a network that a test made."""

import subprocess

from harness.agent import COMMAND, AgentProcess, clean_environment


class AgentInside(AgentProcess):
    """An agent that reaches the cluster; its sockets and files are the machine's."""

    def __init__(self, network: list[str], config: str) -> None:
        super().__init__(config=config)
        self._network = network

    def spawn(self, *extra: str) -> "subprocess.Popen[str]":
        places = ["--data-dir", str(self.data_dir), "--socket", self.socket, "--admin-socket", self.admin_socket]
        with self.log.open("a") as log:
            return subprocess.Popen(
                [*self._network, *COMMAND, "agent", "run", "--config", str(self.config), *places, *extra],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=clean_environment(),
                start_new_session=True,
            )
