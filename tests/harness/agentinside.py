"""An agent in namespaces that a test made."""

import subprocess

from harness.agent import COMMAND, AgentProcess, clean_environment


class AgentInside(AgentProcess):
    """Its sockets and files are the machine's. `before`: a command that becomes the command behind it, inside."""

    def __init__(self, before: list[str], config: str) -> None:
        super().__init__(config=config)
        self._before = before

    def spawn(self, *extra: str) -> "subprocess.Popen[str]":
        places = ["--data-dir", str(self.data_dir), "--socket", self.socket, "--admin-socket", self.admin_socket]
        with self.log.open("a") as log:
            return subprocess.Popen(
                [*self._before, *COMMAND, "agent", "run", "--config", str(self.config), *places, *extra],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=clean_environment(),
                start_new_session=True,
            )
