"""What one user's flood costs another user, beside SPIRE under the same flood."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from beside import Load, Run, Subject, beside
from clients import CALLS, go_load
from figures import Figure, Missing
from ground import CALL_SECONDS, Admin, Bench, entry
from harness.agent import AgentProcess, clean_environment
from harness.looking import until
from peers import CLIENT
from sojourn._pb.spire.api.types import types_pb2 as types
from spire import spire
from workloadlines import IDS_ALONE

FLOODER = 61_034  # a uid of the bench's own: nobody's
AS_FLOODER = ("setpriv", "--reuid", str(FLOODER), "--regid", str(FLOODER), "--clear-groups")
RISING_SECONDS = 0.3  # of a flood, before anything is measured beside it


@dataclass(frozen=True, slots=True)
class Flood:
    """`connections` at once, each with so many calls under way."""

    call: str
    connections: int
    streams: int = 1

    @property
    def name(self) -> str:
        at_once = f"{self.connections} connections" + (f" of {self.streams}" if self.streams > 1 else "")
        return f"{CALLS[self.call]}, {at_once}"


ASKED = ("x509", "connect")  # by the other user
FLOODS = (Flood("connect", 64), Flood("x509", 32, 4), Flood("jwt-new", 8, 8))


def asked_beside(call: str, flood: Flood | None) -> str:
    return f"{CALLS[call]}, 1 client, beside {flood.name if flood else 'nobody'}"


def another_user(bench: Bench) -> Iterator[Figure | str]:
    """A user who asks for one thing after another on a connection, and one who connects anew for each."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        raise Missing("only root can be two users, by setpriv of util-linux")
    with _client() as program, contextlib.ExitStack() as stack:
        agent = stack.enter_context(AgentProcess(config=IDS_ALONE))
        stack.enter_context(Admin(agent.admin_socket)).create([entry("/w"), _of_the_flooder()])
        subjects = [Subject("Sojourn", {"agent": agent.pid}, agent.socket)]
        try:
            subjects.append(stack.enter_context(spire(others=[FLOODER])).subject)
        except Missing as error:
            yield f"missing: {error}"
        for flood in (None, *FLOODS):
            for call in ASKED if bench.full else ASKED[:1]:
                load = _beside_flood(program, flood, go_load(call, 1, program))
                yield from beside(bench, subjects, asked_beside(call, flood), load)
    yield "the flood comes from another user's process; each call of it is followed by the next at once"


def _of_the_flooder() -> types.Entry:
    made = entry(f"/of/{FLOODER}")
    made.selectors[0].value = f"uid:{FLOODER}"
    return made


@contextlib.contextmanager
def _client() -> Iterator[Path]:
    """The load client where another user may run it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        program = Path(shutil.copy(CLIENT.there()[0], folder))
        os.chmod(folder, 0o755)
        os.chmod(program, 0o755)
        yield program


def _beside_flood(program: Path, flood: Flood | None, load: Load) -> Load:
    """`load`, while another user's `flood` goes on."""

    def beside_it(subject: Subject, seconds: float) -> Run:
        if flood is None:
            return load(subject, seconds)
        with _going_on(program, flood, subject):
            return load(subject, seconds)

    return beside_it


@contextlib.contextmanager
def _going_on(program: Path, flood: Flood, subject: Subject) -> Iterator[None]:
    command = [*AS_FLOODER, str(program), "-socket", subject.address, "-call", flood.call]
    command += ["-clients", str(flood.connections), "-streams", str(flood.streams), "-seconds", str(CALL_SECONDS)]
    before = sum(subject.cpu().values())
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=clean_environment())
    try:
        spent = lambda: sum(subject.cpu().values()) - before  # noqa: E731
        until(lambda: spent() > RISING_SECONDS or process.poll() is not None, "the flood has risen", CALL_SECONDS)
        yield
        if process.poll() is not None:
            _, said = process.communicate()
            raise RuntimeError(f"{subject.name}: the flood has ended: {said.decode()[-300:]}")
    finally:
        process.kill()
        process.communicate()


FLOOD_LINES = ((34, "another user floods: Sojourn beside SPIRE, client in Go", another_user),)
