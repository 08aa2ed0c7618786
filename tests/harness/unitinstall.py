"""The agent as the unit of deploy/systemd, on a booted machine: installed as an operator would, and used by root there.

The code is copied, and Debian's own Python runs it: where this checkout and this Python lie, the unit's sandbox may hide.
"""

import json
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

from harness.agent import ROOT
from harness.lacking import lacking
from harness.looking import until
from harness.nspawn import Machine

UNITS = ROOT / "deploy" / "systemd"
PACKAGED = "/usr/lib/sojourn/bin/sojourn"  # in the unit's one line with a path
PROGRAM = "/opt/sojourn/bin/sojourn"
SERVICE = "sojourn.service"
SOCKET, ADMIN_SOCKET = "/run/sojourn/agent.sock", "/run/sojourn/admin.sock"
PYTHON = f"/usr/bin/python3.{sys.version_info.minor}"
_LIBRARY = "/opt/sojourn/lib"
_PACKAGES = "/opt/sojourn/packages"
PATHS = f"{_LIBRARY}/agent:{_LIBRARY}/attestors:{_PACKAGES}"
_PROGRAM = f"""#!{PYTHON} -B
import sys
sys.path[:0] = {PATHS.split(":")}
from sojourn.cli.main import run
run()
"""


def need_python() -> None:
    """Skip the test if this machine's own Python is not of the version for which packages are installed here."""
    if not Path(PYTHON).exists():
        lacking(f"needs Debian's own Python of the version that runs the tests, {PYTHON}")


_HANGING = """import signal
def hang(*_):
    while True:
        pass
signal.signal(signal.SIGUSR2, hang)
"""


class UnitAgent:
    """The agent of a machine, which systemd runs."""

    socket = SOCKET
    admin_socket = ADMIN_SOCKET

    def __init__(self, machine: Machine) -> None:
        """Put the program there, and no unit yet."""
        need_python()
        self.machine = machine
        machine.run("mkdir", "-p", _LIBRARY, _PACKAGES)
        # As old as here: else what is compiled counts as stale, and each start compiles all modules anew.
        machine.run("cp", "-r", "--preserve=timestamps", str(ROOT / "agent"), str(ROOT / "attestors"), _LIBRARY)
        machine.run("mount", "--bind", sysconfig.get_path("purelib"), _PACKAGES)
        machine.write(PROGRAM, _PROGRAM)
        machine.run("chmod", "755", PROGRAM)

    def install(self) -> None:
        """Put the units there, and make the user. Nothing is started."""
        for name in ("sojourn.service", "sojourn-agent.socket", "sojourn-admin.socket"):
            self.machine.write(f"/etc/systemd/system/{name}", rendered(name))
        for name, command in (("sysusers", ()), ("tmpfiles", ("--create",))):
            self.machine.write(f"/etc/{name}.d/sojourn.conf", (UNITS / f"sojourn.{name}").read_text())
            self.machine.run(f"systemd-{name}", *command, f"/etc/{name}.d/sojourn.conf")
        self.machine.run("systemctl", "daemon-reload")

    # --- as an operator has it ---

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        return self.machine.run("systemctl", *arguments, check=check)

    def shown(self, property_: str) -> str:
        return self.systemctl("show", f"--property={property_}", "--value", SERVICE).strip()

    def run(self, *arguments: str, check: bool = True) -> str:
        """What the command `sojourn` says, run by root."""
        return self.machine.run(PROGRAM, *arguments, check=check)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--output", "json"))

    def drop_in(self, name: str, text: str) -> None:
        """As `systemctl edit` would have it; in force at the next start."""
        self.machine.write(f"/etc/systemd/system/{SERVICE}.d/{name}.conf", text)
        self.systemctl("daemon-reload")

    def hang_on_usr2(self, seconds: int) -> None:
        """Start the agent anew, with a watchdog of so many seconds and a loop that SIGUSR2 has turn no more."""
        self.machine.write("/opt/sojourn/hanging/sitecustomize.py", _HANGING)
        environment = "Environment=PYTHONPATH=/opt/sojourn/hanging\n"
        self.drop_in("watchdog", f"[Service]\nWatchdogSec={seconds}\n{environment}")
        self.systemctl("restart", SERVICE)

    def no_drop_in(self, name: str) -> None:
        self.machine.run("rm", "-f", f"/etc/systemd/system/{SERVICE}.d/{name}.conf")
        self.systemctl("daemon-reload")

    def journal(self, *arguments: str) -> list[str]:
        """The lines of the unit's journal, without what the journal adds."""
        return self.machine.run("journalctl", "--unit", SERVICE, "--output=cat", "--no-pager", *arguments).splitlines()

    def wait_for(self, pid_other_than: int) -> int:
        """The main process of another start, once that is ready."""
        until(
            lambda: self.shown("ActiveState") == "active" and self.pid not in {0, pid_other_than},
            "systemd has replaced it",
            60,
        )
        return self.pid

    @property
    def pid(self) -> int:
        """In the machine."""
        return int(self.shown("MainPID"))


def rendered(name: str) -> str:
    """A file of deploy/systemd, with where the program is on this machine."""
    text = (UNITS / name).read_text()
    assert text.count(PACKAGED) == (1 if name.endswith(".service") else 0)
    return text.replace(PACKAGED, PROGRAM)


def directives() -> list[tuple[str, str]]:
    """The lines of the service's section [Service], in their order."""
    section = rendered("sojourn.service").partition("[Service]")[2].partition("\n[")[0]
    return re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE)
