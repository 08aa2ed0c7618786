"""The agent as a service: how soon one that hangs is replaced, and how large its image is and the agent in it."""

import re
import time
from collections.abc import Iterator

from figures import Figure
from ground import Bench, needed
from harness import imagehost
from harness.imagehost import Host
from harness.looking import until
from harness.nspawn import booted
from harness.unitinstall import SERVICE, SOCKET, UNITS, UnitAgent

REPETITIONS = 3
_QUICK_WATCHDOG = 2
_ID = "spiffe://example.org/root"
_STANDS_SECONDS = 90.0
_WATCHDOG = re.compile(r"^WatchdogSec=(\d+)$", re.MULTILINE)

# --- 69 ---


def replaced(bench: Bench) -> Iterator[Figure | str]:
    """From a signal until the agent's public socket has given an SVID."""
    [shipped] = _WATCHDOG.findall((UNITS / "sojourn.service").read_text())
    watchdog = int(shipped) if bench.full else _QUICK_WATCHDOG
    with needed(), booted() as machine:
        unit = UnitAgent(machine)
        unit.install()
        unit.hang_on_usr2(watchdog)
        unit.run("entry", "create", "--spiffe-id", _ID, "--selector", "unix:uid:0")
        for signal, what in (("STOP", "stopped by SIGSTOP"), ("USR2", "a loop that turns no more")):
            found = []
            for _ in range(REPETITIONS if bench.full else 1):
                bench.say(f"{what}, WatchdogSec={watchdog}")
                found.append(_replaced(unit, signal) - watchdog)
            yield Figure.of(f"{what}: until another answers, over WatchdogSec={watchdog}", "s", found)
    yield "a client waits at the socket that systemd holds; below zero: the last word to the watchdog was some time ago"


def _replaced(unit: UnitAgent, signal: str) -> float:
    pid = unit.pid
    unit.machine.run("kill", f"-{signal}", str(pid))
    begun = time.monotonic()
    until(lambda: _ID in unit.run("svid", "x509", "--socket", SOCKET, check=False), "an SVID", _STANDS_SECONDS)
    seconds = time.monotonic() - begun
    if unit.wait_for(pid) == pid:
        raise RuntimeError(f"{SERVICE} was not replaced")
    return seconds


# --- 70 ---


def image(bench: Bench) -> Iterator[Figure | str]:
    """As it is built from this checkout, in Docker Engine and Podman on a booted machine."""
    with needed():
        bench.say("the image")
        packed, unpacked = imagehost.sizes(imagehost.image())
        yield Figure.of("the image, packed", "MB", [packed / 1e6])
        yield Figure.of("the image, unpacked", "MB", [unpacked / 1e6])
        with imagehost.hosts() as hosts:
            for engine, host in hosts.items():
                bench.say(f"an agent under {engine}")
                found = [_resident_mib(host) for _ in range(REPETITIONS if bench.full else 1)]
                yield Figure.of(f"RSS of the agent in it, idle, under {engine}", "MiB", found)
    yield "RSS is the kernel's, of the container's one process, a second after it is ready"


def _resident_mib(host: Host) -> float:
    with host.agent() as agent:
        agent.ready()
        time.sleep(1)
        pid = host.run(f"{host.engine} inspect --format '{{{{.State.Pid}}}}' {agent.name}").strip()
        said = host.machine.run("cat", f"/proc/{pid}/status")
    return int(re.findall(r"^VmRSS:\s+(\d+) kB$", said, re.MULTILINE)[0]) / 1024


SERVICE_LINES = (
    (69, "A unit that hangs", replaced),
    (70, "The image, and the agent in it", image),
)
