"""The main job, end to end, on a real agent and real processes: `make demo`.

Prints a line for each step with what was measured, and ends with `demo: ok`, or with the step that failed (exit 1).
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SAMPLE = HERE.parent / "samples" / "quickstart.toml"
SOJOURN = [sys.executable, "-m", "sojourn"]
PATIENCE_SECONDS = 30.0
TRUST = "spiffe://example.org"


class Failed(Exception):
    """A step did not do what it should."""


class Process:
    """A process that prints JSON lines."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                arguments, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        self.pid = self._process.pid
        self._log = log
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def line(self) -> str:
        try:
            line = self._lines.get(timeout=PATIENCE_SECONDS)
        except queue.Empty:
            raise Failed(
                f"process {self.pid} said nothing for {PATIENCE_SECONDS:g} s; its log: {self.tail()}"
            ) from None
        if not line:
            raise Failed(f"process {self.pid} ended; its log: {self.tail()}")
        return line

    def event(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.line())
        if value["event"] != name:
            raise Failed(f"process {self.pid} said {value} where {name} was due")
        return value

    def tail(self) -> str:
        return self._log.read_text()[-1500:].strip() or "empty"

    def end(self, number: int = signal.SIGTERM) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def status(self) -> int | None:
        return self._process.poll()


class Demo:
    """The agent, the roles, and the steps."""

    roles = HERE / "roles.py"  # the program that is every role, by its first argument

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "agent.sock"
        self.admin = folder / "admin.sock"
        self.processes: list[Process] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SOJOURN_", "SPIFFE_"))},
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{self.socket}",
            "SOJOURN_ADMIN_SOCKET": str(self.admin),
            "PYTHONUNBUFFERED": "1",
        }
        self.ready_line = ""
        self.begun = time.monotonic()

    def step(self, what: str, detail: str) -> None:
        print(f"[{time.monotonic() - self.begun:6.2f} s] {what:<22} {detail}", flush=True)

    def command(self, *arguments: str) -> Any:
        """Run the `sojourn` command and return what it printed as JSON."""
        done = subprocess.run(
            [*SOJOURN, *arguments, "--output", "json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failed(f"sojourn {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return json.loads(done.stdout)

    def program(self, role: str) -> Path:
        """A program of the role's own: the interpreter under another name, so that the agent sees another program."""
        home = self.folder / role
        (home / "bin").mkdir(parents=True)
        target = home / "bin" / role
        shutil.copy2(Path(sys.executable).resolve(), target)
        (home / "pyvenv.cfg").write_text(
            f"home = {Path(sys.executable).resolve().parent}\ninclude-system-site-packages = false\n"
        )
        return target

    def role_environment(self) -> dict[str, str]:
        return {
            **self.environment,
            # The copied interpreter finds its library and our packages where the original does.
            "PYTHONPATH": os.pathsep.join(
                path for path in sys.path if path and Path(path).is_dir() and path != str(HERE)
            ),
            "LD_LIBRARY_PATH": os.pathsep.join(
                filter(None, [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")])
            ),
        }

    def start(self, role: str, *arguments: str) -> Process:
        program = self.folder / role / "bin" / role
        process = Process(
            [str(program), str(self.roles), role, *arguments], self.role_environment(), self.folder / f"{role}.log"
        )
        self.processes.append(process)
        return process

    def register(self, path: str, role: str, *options: str) -> float:
        """Register a role's program, and return how long the call took, in milliseconds."""
        program = self.program(role)
        before = time.monotonic()
        self.command(
            "entry",
            "create",
            "--spiffe-id",
            f"{TRUST}{path}",
            "--selector",
            f"unix:uid:{os.geteuid()}",
            "--selector",
            f"unix:path:{program.resolve()}",
            *options,
        )
        return (time.monotonic() - before) * 1000

    def close(self) -> None:
        """End what `run` began, beside its processes."""

    # --- the steps ---

    def run(self) -> None:
        agent = self.ready()
        rotating = self.rotation_begins()
        tickets, billing = self.services()
        triage = self.attested(tickets["tls"])
        self.svids(triage)
        self.mutual_tls(triage)
        token = self.token(triage)
        self.enforced(token, tickets["http"], billing["http"])
        self.killed(triage, token, tickets["http"])
        self.stranger()
        self.rotation_ends(rotating)
        agent.end()
        if agent.status != 0:
            raise Failed(f"the agent ended with status {agent.status}")
        self.step("agent stopped", "drained on SIGTERM, exit status 0")

    def ready(self, config: Path = SAMPLE) -> Process:
        before = time.monotonic()
        agent = Process(
            [
                *SOJOURN,
                "agent",
                "run",
                "--config",
                str(config),
                "--data-dir",
                str(self.folder / "data"),
                "--socket",
                str(self.socket),
                "--admin-socket",
                str(self.admin),
            ],
            self.environment,
            self.folder / "agent.log",
        )
        self.processes.append(agent)
        line = agent.line()
        if "ready" not in line:
            raise Failed(f"the agent said {line!r}")
        who = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
        self.ready_line = line
        self.step("agent ready", f"in {(time.monotonic() - before) * 1000:.0f} ms, as {who}, process {agent.pid}")
        return agent

    def services(self) -> tuple[dict[str, Any], dict[str, Any]]:
        took = self.register("/service/tickets", "tickets")
        self.register("/service/billing", "billing")
        self.step("entries registered", f"in force when the call returns ({took:.0f} ms for the command)")
        starting = [self.start("tickets"), self.start("billing")]
        tickets, billing = (process.event("serving") for process in starting)
        return tickets, billing

    def attested(self, tls_port: int) -> Process:
        self.register("/agent/triage", "triage")
        triage = self.start("triage", str(tls_port))
        found = self.command("explain", "--pid", str(triage.pid))
        shown = [selector for selector in found["selectors"] if ":sha256:" not in selector]
        self.step("process attested", f"process {triage.pid}: {' '.join(shown)}")
        if not found["conclusion"].endswith(f"{TRUST}/agent/triage"):
            raise Failed(found["conclusion"])
        return triage

    def svids(self, triage: Process) -> None:
        x509 = triage.event("x509")
        jwt = triage.event("jwt")
        self.step(
            "X.509-SVID received", f"{x509['spiffe_id']}, serial {x509['serial'][:16]}…, until {x509['not_after']}"
        )
        self.step("JWT-SVID received", f"{jwt['spiffe_id']}, until {jwt['expires_at']}")

    def mutual_tls(self, triage: Process) -> None:
        tls = triage.event("tls")
        if (tls["server"], tls["client"]) != (f"{TRUST}/service/tickets", f"{TRUST}/agent/triage"):
            raise Failed(f"the wrong peers met: {tls}")
        self.step("mutual TLS", f"client verified {tls['server']}, server verified {tls['client']}")

    def token(self, triage: Process) -> str:
        answer = triage.event("token")
        if answer["status"] != 200:
            raise Failed(f"token exchange: {answer}")
        self.step(
            "task begun, token got",
            f"{answer['task_id']}, {answer['scope']}, for {answer['expires_in']} s (RFC 8693 over the socket)",
        )
        return str(answer["access_token"])

    def enforced(self, token: str, tickets: int, billing: int) -> None:
        for what, port, method, expected in (
            ("action accepted", tickets, "GET", 200),
            ("other action refused", tickets, "DELETE", 403),
            ("other service refuses", billing, "GET", 401),
        ):
            status = call(port, method, token)
            if status != expected:
                raise Failed(f"{what}: the service answered {status}, not {expected}")
            self.step(what, f"{method} /tickets/42 answered {status}")

    def killed(self, triage: Process, token: str, tickets: int) -> None:
        before = time.monotonic()
        os.kill(triage.pid, signal.SIGKILL)
        while (status := call(tickets, "GET", token)) == 200:
            if time.monotonic() - before > PATIENCE_SECONDS:
                raise Failed("the service still accepts the token of a dead holder")
        took = (time.monotonic() - before) * 1000
        if status != 401:
            raise Failed(f"the service answered {status}, not 401")
        self.step("holder killed", f"same token answered 401, {took:.1f} ms after SIGKILL")
        triage.end()

    def stranger(self) -> None:
        self.program("stranger")
        stranger = self.start("stranger")
        refused = stranger.event("refused")
        self.step("unregistered refused", refused["message"])
        found = self.command("explain", "--pid", str(stranger.pid))
        if any(each["verdict"] == "matched" for each in found["verdicts"]):
            raise Failed("the unregistered process matches an entry")
        self.step("explain says", found["conclusion"].replace(str(self.folder), "…"))
        stranger.end()

    def rotation_begins(self) -> Process:
        self.register("/short-lived", "rotating", "--x509-svid-ttl", "10s")
        return self.start("rotating", "3")

    def rotation_ends(self, rotating: Process) -> None:
        updates = [rotating.event("update") for _ in range(3)]
        if len({update["serial"] for update in updates}) != 3:
            raise Failed("an SVID was pushed twice")
        lefts = []
        for old, new in zip(updates, updates[1:], strict=False):
            lefts.append(old["not_after"] - new["now"])
            if new["now"] >= old["not_after"] or new["not_before"] > new["now"]:
                raise Failed(f"a gap between {old} and {new}")
        self.step(
            "SVID rotated twice",
            "10 s life, one open stream, no gap: each new one came "
            + " and ".join(f"{left:.1f} s" for left in lefts)
            + " before the old one's end",
        )


def call(port: int, method: str, token: str) -> int:
    """Call the service and return the HTTP status."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/tickets/42", method=method, headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@contextmanager
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="sojourn-demo-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def main(kind: type[Demo] = Demo) -> int:
    with folder() as made:
        demo = kind(made)
        try:
            demo.run()
        except PermissionError as error:
            print(f"demo: failed: {error} (is the temporary folder mounted noexec? set TMPDIR to another)")
            return 1
        except Failed as error:
            print(f"demo: failed: {error}")
            return 1
        except KeyboardInterrupt:
            print("demo: interrupted")
            return 1
        finally:
            for process in reversed(demo.processes):
                process.end()
            demo.close()
    print("demo: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
