"""A real Keycloak on loopback, with a database in memory: for `make demo-keycloak`, and for the tests.

with Keycloak(distribution(), folder) as keycloak:
    keycloak.base, keycloak.admin_password
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 240.0  # 14 s on an idle machine
STOP_SECONDS = 15.0
ADMIN = "admin"
# The features that its clients need are built into it by .ci/keycloak.
HEAP = "-Xms64m -Xmx384m"


class KeycloakFailed(Exception):
    """It did not start."""


def distribution() -> Path:
    """Where Keycloak is unpacked; fetched and built by Maven if it is not there yet. Raise KeycloakFailed."""
    done = subprocess.run(
        ["bash", str(ROOT / ".ci" / "keycloak")], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise KeycloakFailed(f"Keycloak could not be fetched: {done.stderr.strip()[-1500:]}")
    return Path(done.stdout.split()[-1])


class Keycloak:
    """One Keycloak with its files in `folder`. Use as a context manager, which waits until it answers."""

    def __init__(
        self,
        home: Path,
        folder: Path,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        trusted: Path | None = None,
        heap: str = HEAP,
        options: Sequence[str] = (),
    ) -> None:
        """With `certificate` and `key` it speaks https too, at `secure_base`. `trusted`: a PEM file with authorities of
        servers that it believes, such as of the agent's bundle endpoint. `heap`: options of the JVM. `options`: more
        of its own.
        """
        self.admin_password = secrets.token_urlsafe(18)
        self._folder = folder
        self._port, self._secure_port = _free_port(), _free_port()
        self._certificate, self._key, self._heap, self._options = certificate, key, heap, tuple(options)
        self._log = folder / "keycloak.log"
        self._prepare(home)
        if trusted is not None:
            (folder / "conf" / "truststores").mkdir(exist_ok=True)
            shutil.copy(trusted, folder / "conf" / "truststores" / "trusted.pem")

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def secure_base(self) -> str:
        return f"https://127.0.0.1:{self._secure_port}"

    @property
    def pid(self) -> int:
        """Of its process group."""
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _prepare(self, home: Path) -> None:
        """A home of its own, whose programs are those of the distribution: it writes below its home."""
        (self._folder / "bin").mkdir(parents=True)
        (self._folder / "data").mkdir()
        shutil.copy(home / "bin" / "kc.sh", self._folder / "bin")  # a copy: it looks for its home by where it lies
        shutil.copytree(home / "conf", self._folder / "conf")
        for name in ("lib", "providers", "themes"):
            (self._folder / name).symlink_to(home / name)

    def start(self) -> None:
        """Start it, and return before it answers."""
        options = [f"--http-port={self._port}", "--http-enabled=true", "--http-host=127.0.0.1"]
        options += [
            "--cache=local",
            "--hostname-strict=false",
            f"--https-port={self._secure_port}",
            "--http-management-port=0",
            *self._options,
        ]
        if self._certificate is not None:
            options += [f"--https-certificate-file={self._certificate}", f"--https-certificate-key-file={self._key}"]
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "JAVA_HOME", "LANG") if name in os.environ}
        environment |= {"KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN, "KC_BOOTSTRAP_ADMIN_PASSWORD": self.admin_password}
        environment |= {"JAVA_OPTS_KC_HEAP": self._heap}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                ["sh", str(self._folder / "bin" / "kc.sh"), "start", "--optimized", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return when it answers. Raise KeycloakFailed."""
        ends = time.monotonic() + READY_SECONDS
        while not (_answers(f"{self.base}/realms/master") and _listens(self._secure_port, self._certificate)):
            if self._process.poll() is not None or time.monotonic() > ends:
                raise KeycloakFailed(f"Keycloak did not start: {self.log[-1500:].strip()}")
            time.sleep(0.2)

    def stop(self) -> None:
        self._process.terminate()  # kc.sh hands it on
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _listens(port: int, certificate: Path | None) -> bool:
    """Whether somebody is at the port, if there is a certificate to listen with."""
    with socket.socket() as probe:
        return certificate is None or probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
