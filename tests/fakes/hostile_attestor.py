"""An attestor that does to its own process whatever a test asks for, and otherwise gives `pid:N`.

What it does is the text of the subject's cgroup, or with the setting `deeds`, a folder, that of the file PID there.
"""

import asyncio
import ctypes
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from sojourn.attestation.attestor import Answer
from sojourn.errors import AttestationFailed, InvalidConfig

HELD = []


class HostileAttestor:
    def __init__(self, settings, pool):
        deed = settings.get("deed", "")
        if deed == "fault":
            raise InvalidConfig(["colour: is not there", ": is no good"])
        if deed:
            getattr(self, deed)(None)
        self._settings = settings
        self._closed = settings.get("closed")

    async def attest(self, subject):
        deed = subject.cgroup.strip().removeprefix("0::/")
        if "deeds" in self._settings:
            file = Path(self._settings["deeds"], str(subject.pid))
            deed = file.read_text() if file.exists() else ""
        done = getattr(self, deed, None) if deed.isidentifier() else None
        if done is None:
            await asyncio.sleep(0)
            return Answer(frozenset({f"pid:{subject.pid}"}))
        answer = done(subject)
        return await answer if asyncio.iscoroutine(answer) else answer

    async def close(self):
        if self._closed:
            Path(self._closed).write_text("closed")

    # --- harmless ---

    def tell(self, subject):
        fdinfo = Path(f"/proc/self/fdinfo/{subject.pidfd}").read_text()
        of = next(int(line[4:]) for line in fdinfo.splitlines() if line.startswith("Pid:"))
        values = {f"ids:{subject.uid},{subject.gid},{sorted(subject.groups)}", f"pidfd:{of}", "odd:\udcff"}
        return Answer(frozenset(values), {"colour": "not seen"}, 2.5, {"shape": "it is dark"})

    def look(self, _subject):
        links = {each: _link(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")}
        status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
        limits = Path("/proc/self/limits").read_text()
        return Answer(
            frozenset(
                {
                    f"environment:{sorted(os.environ)}",
                    *(f"fd:{number}:{link}" for number, link in links.items() if link),
                    f"privs:{status['NoNewPrivs']}",
                    f"oom:{Path('/proc/self/oom_score_adj').read_text().strip()}",
                    f"limits:{limits}",
                    f"cwd:{os.getcwd()}",
                    f"settings:{self._settings}",
                }
            )
        )

    # --- how it ends ---

    def leave(self, _subject):
        os._exit(7)

    def segfault(self, _subject):
        ctypes.string_at(0)

    def abort(self, _subject):
        os.abort()

    def say_and_leave(self, _subject):
        print("these are my last words", flush=True)
        os._exit(3)

    # --- how it stands still ---

    def stand(self, _subject):
        time.sleep(3600)

    def spin(self, _subject):
        while True:
            pass

    async def wait(self, _subject):
        await asyncio.sleep(3600)

    async def swallow(self, _subject):
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    # --- what it takes ---

    def hog(self, _subject):
        while True:
            HELD.append(bytearray(16 * 1024 * 1024))

    def open_all(self, _subject):
        while True:
            HELD.append(os.open("/dev/null", os.O_RDONLY))

    def flood(self, _subject):
        while True:
            print("x" * 1_000)

    def chat(self, subject):
        for number in range(2_000):
            print(f"line {number}")
        return Answer(frozenset({f"pid:{subject.pid}"}))

    def breed(self, _subject):
        HELD.append(subprocess.Popen(["sleep", "3599.5"]))
        os._exit(4)

    # --- what it gives ---

    def million(self, _subject):
        return Answer(frozenset(f"n:{number}" for number in range(1_000_000)))

    def huge(self, _subject):
        return Answer(frozenset(f"n{number}:{'x' * 4_000}" for number in range(500)))

    def nothing(self, _subject):
        return None

    def numbers(self, _subject):
        return Answer(frozenset({1, 2}))

    def raw_bytes(self, _subject):
        return Answer(frozenset({b"pid:1"}))

    def old(self, _subject):
        return Answer(frozenset({"pid:1"}), {}, float("nan"))

    def raises(self, _subject):
        raise RuntimeError("what a secret")

    def system_exit(self, _subject):
        sys.exit(0)

    def cannot(self, _subject):
        raise AttestationFailed("the moon is down", detail="said the log")

    def close_handle(self, subject):
        os.close(subject.pidfd)
        return Answer(frozenset({f"pid:{subject.pid}"}))

    def close_all(self, _subject):
        os.closerange(0, 100)
        time.sleep(3600)

    # --- what it says where it should not ---

    def speak(self, _subject):
        _channel().sendall(b"\x00\x00\x00\x0f" + b'{"id": 4711000}')

    def babble(self, _subject):
        _channel().sendall(b"\xff" * 1_000)

    def nest(self, _subject):
        _channel().sendall((100_000).to_bytes(4, "big") + b"[" * 100_000)

    def hand_over(self, _subject):
        socket.send_fds(_channel(), [b"\x00\x00\x00\x02{}"], [0, 0, 0])


def _channel():
    """The connection to the agent, which is none of a plugin's business."""
    number = next(
        int(each)
        for each in os.listdir("/proc/self/fd")
        if (_link(f"/proc/self/fd/{each}") or "").startswith("socket:") and _is_channel(int(each))
    )
    return socket.socket(fileno=os.dup(number))


def _is_channel(number):
    made = socket.socket(fileno=os.dup(number))
    try:
        return made.family == socket.AF_UNIX and str(number) in sys.argv
    finally:
        made.close()


def _link(path):
    try:
        return os.readlink(path)
    except OSError:
        return None
