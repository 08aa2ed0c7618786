"""The parts beside which Sojourn is measured, and what puts load on both: where they are, how they are got, what they are.

`python peers.py` fetches or builds all of them (`make bench-peers`).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from figures import Missing

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sojourn"
BUILD_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Peer:
    """`find` returns its programs or folders, or None; `get` fetches or builds it, and does nothing if it is there;
    `version` says which it is; `needs` are the programs without which it can not be got, and what has them.
    """

    name: str
    find: Callable[[], tuple[Path, ...] | None]
    get: Callable[[], None]
    version: Callable[[tuple[Path, ...]], str]
    needs: Mapping[str, str] = field(default_factory=dict)

    def there(self) -> tuple[Path, ...]:
        """Its programs. Raise Missing if it is not here."""
        if (found := self.find()) is None:
            raise Missing(f"there is no {self.name} on this machine: `make bench-peers` gets it")
        return found

    def fetch(self) -> None:
        """Get it. Raise Missing if this machine has not what that needs."""
        if lacking := sorted({advice for program, advice in self.needs.items() if not shutil.which(program)}):
            raise Missing(f"it can not be got: install {', '.join(lacking)}")
        self.get()


GO, JAVA, MAVEN = {"go": "Go 1.24 or newer"}, {"java": "a JDK 17 or newer"}, {"mvn": "Maven"}

# --- SPIRE ---


def _find_spire() -> tuple[Path, ...] | None:
    """spire-server and spire-agent, where `bash .ci/spire` puts them, or on the PATH."""
    go = shutil.which("go")
    folder = _said(go, "env", "GOPATH") if go else ""
    places = f"{folder}/bin:{os.environ.get('PATH', '')}"
    found = [shutil.which(name, path=places) for name in ("spire-server", "spire-agent")]
    return tuple(Path(each) for each in found if each) if all(found) else None


def _spire_version(programs: tuple[Path, ...]) -> str:
    """Of the module, since a build that is not SPIRE's own does not know its version."""
    told = _said("go", "version", "-m", str(programs[1])) if shutil.which("go") else ""
    for line in told.splitlines():
        words = line.split()
        if "github.com/spiffe/spire" in words:
            return f"{words[words.index('github.com/spiffe/spire') + 1].lstrip('v')} ({told.split()[1].strip(':')})"
    return _said(str(programs[1]), "--version")


SPIRE = Peer("SPIRE", _find_spire, lambda: _run("bash", str(ROOT / ".ci" / "spire")), _spire_version, GO)


# --- Keycloak ---


def _find_keycloak() -> tuple[Path, ...] | None:
    """The folder into which `bash .ci/keycloak` puts its distribution, if there is a Java that runs it."""
    folder = Path(_said("bash", str(ROOT / ".ci" / "keycloak"), "--where"))
    return (folder,) if (folder / "bin/kc.sh").exists() and shutil.which("java") else None


def _keycloak_version(found: tuple[Path, ...]) -> str:
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr.splitlines()
    return f"{found[0].name.split('-')[1]} ({java[0] if java else 'no Java'})"


KEYCLOAK = Peer(
    "Keycloak", _find_keycloak, lambda: _run("bash", str(ROOT / ".ci" / "keycloak")), _keycloak_version, JAVA | MAVEN
)


# --- the load clients in Go ---


def _client(folder: str) -> Path:
    """Where the client of these very sources is: another one is built when they change."""
    digest = hashlib.sha256()
    for path in sorted((HERE / folder).iterdir()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return CACHE / "bench" / f"{folder}-{digest.hexdigest()[:16]}"


def _find_client(folder: str) -> tuple[Path, ...] | None:
    """Built on the spot if there is a Go to do it."""
    target = _client(folder)
    if not target.exists() and shutil.which("go"):
        _build_client(folder)
    return (target,) if target.exists() else None


def _build_client(folder: str) -> None:
    target = _client(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return
        made = target.with_suffix(".new")
        environment = {**os.environ, "CGO_ENABLED": "0"}
        _run("go", "build", "-trimpath", "-o", str(made), ".", folder=HERE / folder, environment=environment)
        for old in target.parent.glob(f"{folder}-{'?' * 16}"):
            old.unlink()
        made.rename(target)


def _client_version(found: tuple[Path, ...]) -> str:
    told = _said("go", "version", "-m", str(found[0])) if shutil.which("go") else ""
    modules = {"google.golang.org/grpc": "grpc-go", "github.com/spiffe/go-spiffe/v2": "go-spiffe"}
    said = [
        f"{modules[words[1]]} {words[2].lstrip('v')}"
        for words in map(str.split, told.splitlines())
        if len(words) > 2 and words[1] in modules
    ]
    return ", ".join([*said, *told.split()[1:2]])


def _in_go(name: str, folder: str) -> Peer:
    return Peer(name, lambda: _find_client(folder), lambda: _build_client(folder), _client_version, GO)


CLIENT = _in_go("load client in Go", "go")
HTTP_CLIENT = _in_go("HTTP load client in Go", "gohttp")


# --- OPA ---


def _find_opa() -> tuple[Path, ...] | None:
    found = sorted((CACHE / "bench").glob("opa-v*"))
    return (found[-1],) if found else None


def _opa_version(found: tuple[Path, ...]) -> str:
    return found[0].name.removeprefix("opa-v")


OPA = Peer("OPA", _find_opa, lambda: _run("bash", str(ROOT / ".ci" / "opa")), _opa_version, GO)

PEERS = (CLIENT, HTTP_CLIENT, SPIRE, KEYCLOAK, OPA)


def versions() -> dict[str, str]:
    """What is here of it, and which."""
    found = [(peer, peer.find()) for peer in PEERS]
    return {peer.name: peer.version(there) if there else "not here" for peer, there in found}


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _run(*command: str, folder: Path = ROOT, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()[-2000:]}")


def main() -> int:
    """Get what is not here yet. Say what could not be got, and go on."""
    failed = 0
    for peer in PEERS:
        try:
            print(f"bench-peers: {peer.name} ...", flush=True)
            peer.fetch()
            print(f"bench-peers: {peer.name}: {peer.version(peer.there())}", flush=True)
        except Exception as error:
            failed += 1
            print(f"bench-peers: {peer.name}: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
