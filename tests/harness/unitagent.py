"""The agent of a test as this machine's unit of systemd (unitinstall.py), for tests that run within that machine.

With SOJOURN_TEST_UNIT in the environment, tests/conftest.py puts `UnitProcess` in the place of `AgentProcess`: the tests are the
same, and the agent they speak to is the installed one, in its sandbox, on the sockets that systemd holds.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.agent import READY_SECONDS, SAMPLES, AgentProcess
from harness.unitinstall import ADMIN_SOCKET, SERVICE, SOCKET

STATE = Path("/var/lib/sojourn")
SOCKETS = ("sojourn-agent.socket", "sojourn-admin.socket")
_DROP_IN = Path(f"/etc/systemd/system/{SERVICE}.d/test.conf")
_PARENT = Path("/srv")  # the unit sees no other /tmp than its own


class UnitProcess(AgentProcess):
    """One agent is on the machine: a test that wants a second one is skipped."""

    _running: "UnitProcess | None" = None

    def __init__(
        self,
        *,
        config: str | None = None,
        folder: Path | None = None,
        as_user: int | None = None,
        under: Sequence[str] = (),
    ) -> None:
        if as_user is not None or under:
            pytest.skip("the unit's user, and how it is started, are the unit's")
        own = folder is None
        _PARENT.mkdir(exist_ok=True)
        super().__init__(config=config, folder=folder or Path(tempfile.mkdtemp(prefix="sojourn-test-", dir=_PARENT)))
        self._own_folder = own
        if config is None:  # the unit may not see where the samples lie
            self.config = Path(shutil.copytree(SAMPLES, self.folder / "samples")) / self.config.name
        self.data_dir = STATE
        self.socket, self.admin_socket = SOCKET, ADMIN_SOCKET
        self._fresh = True

    def spawn(self, *extra: str) -> Any:
        if UnitProcess._running not in {None, self}:
            pytest.skip("there is one agent on the machine, and another test's runs")
        if not str(self.folder).startswith(str(_PARENT)):
            pytest.skip("its files lie where the unit does not see them")
        if self._fresh:
            _systemctl("stop", SERVICE, *SOCKETS, check=False)
            shutil.rmtree(STATE, ignore_errors=True)
            self._fresh = False
        UnitProcess._running = self
        lines = [f"Environment=SOJOURN_CONFIG={self.config}"]
        lines += [f'Environment="{name}={value}"' for name, value in self.extra_environment.items()]
        program = _shown("ExecStart").partition("path=")[2].partition(" ;")[0]
        lines += ["ExecStart=", f"ExecStart={program} agent run {' '.join(extra)}"]
        # The log as tests read it; the journal of other tests is about the journal.
        lines += [
            f"StandardError=append:{self.log}",
            "LogRateLimitIntervalSec=0",
            f"StandardOutput=append:{self._said}",
        ]
        _DROP_IN.parent.mkdir(parents=True, exist_ok=True)
        _DROP_IN.write_text("\n".join(["[Service]", *lines, ""]))
        for each in (self.log, self._said):
            each.touch()
        _systemctl("daemon-reload")
        _systemctl("reset-failed", SERVICE, *SOCKETS, check=False)
        _systemctl("start", SERVICE, check=False)
        return Unit()

    def start(self, *extra: str) -> "UnitProcess":
        before = self._said.stat().st_size if self._said.exists() else 0
        self.process = self.spawn(*extra)
        ends = time.monotonic() + READY_SECONDS
        while time.monotonic() < ends:
            line = self._said.read_text()[before:]
            if _shown("ActiveState") == "active" and "ready" in line:
                self.ready_line = line.splitlines()[0]
                return self
            time.sleep(0.02)
        self.stop()
        UnitProcess._running = None
        raise RuntimeError(f"the agent did not get ready: {_shown('StatusText')}\n{self.log.read_text()[-4000:]}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and have it stay so, as an operator would."""
        if number != signal.SIGTERM:
            subprocess.run(["systemctl", "kill", "--kill-whom=main", f"--signal={int(number)}", SERVICE], check=False)
        _systemctl("stop", SERVICE, *SOCKETS, check=False)
        status = int(_shown("ExecMainStatus") or 0)
        return status if _shown("ExecMainCode") == "1" else -status

    def __exit__(self, *_: object) -> None:
        super().__exit__(*_)
        if UnitProcess._running is self:
            UnitProcess._running = None

    @property
    def _said(self) -> Path:
        return self.folder / "agent.out"

    @property
    def places(self) -> list[str]:
        """For commands that go by no socket: the unit has them of systemd."""
        return ["--data-dir", str(STATE), "--socket", SOCKET, "--admin-socket", ADMIN_SOCKET]

    @property
    def pid(self) -> int:
        return int(_shown("MainPID"))


class Unit:
    """What tests do with the agent's process."""

    stdout = None

    @property
    def pid(self) -> int:
        return int(_shown("MainPID"))

    def poll(self) -> int | None:
        if self.pid:
            return None
        status = int(_shown("ExecMainStatus") or 0)
        return status if _shown("ExecMainCode") == "1" else -status

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def wait(self, timeout: float = 20) -> int:
        ends = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > ends:
                raise subprocess.TimeoutExpired(SERVICE, timeout)
            time.sleep(0.02)
        return status

    def send_signal(self, number: int) -> None:
        if self.pid:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _shown(property_: str) -> str:
    return _systemctl("show", f"--property={property_}", "--value", SERVICE).strip()


def _systemctl(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=60, check=False)
    if check and done.returncode:
        raise AssertionError(f"systemctl {' '.join(arguments)}: {done.stderr}")
    return done.stdout
