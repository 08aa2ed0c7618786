"""An agent on a kernel that is older than this one, as far as the agent can tell."""

from harness.agent import AgentProcess

_WITHOUT_PASSRIGHTS = """
import errno
import socket

SO_PASSRIGHTS = 83
set_option = socket.socket.setsockopt


def set_known_option(self, level, option, *value):
    if (level, option) == (socket.SOL_SOCKET, SO_PASSRIGHTS):
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")
    return set_option(self, level, option, *value)


socket.socket.setsockopt = set_known_option
"""


def forget_passrights(agent: AgentProcess) -> None:
    """Have the agent that is started next refuse no descriptors, as before Linux 6.16."""
    folder = agent.folder / "older"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_WITHOUT_PASSRIGHTS)
    agent.extra_environment["PYTHONPATH"] = str(folder)
