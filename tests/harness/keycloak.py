"""One real Keycloak for all test processes of a run, each of whose tests has realms of its own.

Whoever needs it first starts `python keycloak.py PARENT FOLDER`, which keeps it until the run (its controller, PARENT)
is over, however that ends; others wait. It listens on loopback alone, at ports that are free.
"""

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "demo"))
sys.path.insert(0, str(ROOT / "tests"))

from keycloak_realm import Realm  # noqa: E402
from keycloak_server import READY_SECONDS, Keycloak, KeycloakFailed, distribution  # noqa: E402

from harness.loopback import LoopbackServer, QuietHandler  # noqa: E402

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sojourn"

# Security events go out each second and not each half minute, and to receivers of tests, which are on loopback.
OPTIONS = (
    "--spi-ssf-transmitter--default--outbox-drainer-interval=1s",
    "--spi-ssf-transmitter--default--allow-insecure-push-targets=true",
)

_KEEPERS: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Running:
    """The Keycloak of this run. `ca`: who signed the certificate of `secure_base`, and whose servers it believes;
    `chain` and `key`: a certificate of that, for another server on loopback.
    """

    base: str
    secure_base: str
    admin_password: str
    ca: Path
    chain: Path
    key: Path

    @contextlib.contextmanager
    def realm(self, *, token_seconds: int = 120, secure: bool = False) -> Iterator[Realm]:
        """A realm of a test's own."""
        base, ca = (self.secure_base, self.ca) if secure else (self.base, None)
        realm = Realm(base, f"t-{uuid.uuid4().hex[:12]}", self.admin_password, ca=ca)
        realm.ensure(token_seconds=token_seconds)
        try:
            yield realm
        finally:
            realm.remove()


class BundleServer(LoopbackServer):
    """A SPIFFE bundle endpoint on loopback, as a real one is behind the agent's own listener. Counts fetches."""

    def __init__(self, document: Callable[[], bytes]) -> None:
        self.fetched = 0
        outer = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                outer.fetched += 1
                content = document()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        super().__init__(Handler)
        self.url = f"{self.origin}/bundle"


def running_keycloak() -> Running:
    """The Keycloak of this run. Skip the test if Keycloak was not fetched; in CI it must be there."""
    import pytest

    if not os.environ.get("CI") and not any(CACHE.glob("keycloak-*/bin/kc.sh")):
        pytest.skip("needs Keycloak: `bash .ci/keycloak` fetches it")
    controller = os.getppid() if os.environ.get("PYTEST_XDIST_WORKER") else os.getpid()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid5(uuid.NAMESPACE_OID, str(controller)).hex
    folder = Path(tempfile.gettempdir()) / f"sojourn-keycloak-{os.getuid()}-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    told = folder / "running.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            _keep(controller, folder)
            ends = time.monotonic() + READY_SECONDS + 600  # and the time to fetch it, where CI has not
            while not told.exists():
                if (folder / "failed").exists() or time.monotonic() > ends:
                    failed = (folder / "failed").read_text() if (folder / "failed").exists() else "it took too long"
                    pytest.fail(f"Keycloak did not start: {failed}")
                time.sleep(0.1)
    found = json.loads(told.read_text())
    files = (Path(found[name]) for name in ("ca", "chain", "key"))
    return Running(found["base"], found["secure_base"], found["admin_password"], *files)


def _keep(controller: int, folder: Path) -> None:
    with (folder / "keeper.log").open("w") as log:
        keeper = subprocess.Popen(
            [sys.executable, __file__, str(controller), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _KEEPERS.append(keeper)  # it outlives this process: it is not waited for


def main() -> None:
    from harness.tlsplace import TlsPlace

    controller, folder = os.pidfd_open(int(sys.argv[1])), Path(sys.argv[2])
    over = select.poll()
    over.register(controller, select.POLLIN)
    place = TlsPlace(folder / "tls")
    os.chmod(place.key, 0o600)
    try:
        keycloak = Keycloak(
            distribution(),
            folder / "home",
            certificate=place.chain,
            key=place.key,
            trusted=place.ca,
            options=OPTIONS,
        )
        keycloak.start()
        try:
            keycloak.wait()
            found = {
                "base": keycloak.base,
                "secure_base": keycloak.secure_base,
                "admin_password": keycloak.admin_password,
                **{name: str(getattr(place, name)) for name in ("ca", "chain", "key")},
            }
            (folder / "running.tmp").write_text(json.dumps(found))
            (folder / "running.tmp").rename(folder / "running.json")
            over.poll()
        finally:
            keycloak.stop()
    except KeycloakFailed as error:
        (folder / "failed").write_text(str(error))
        over.poll()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
