"""A file system whose files answer until they are told not to. Needs root.

Usage: fuse.py FOLDER FILE: mounts on FOLDER, for all users, one file `program` with the content of FILE. Prints a line
when it is mounted. After a line on standard input it answers nothing more, and whoever asks waits.
"""

import contextlib
import ctypes
import errno
import os
import select
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_IN, _OUT, _ATTRIBUTES = struct.Struct("=IIQQIIIHH"), struct.Struct("=IiQ"), struct.Struct("=6Q10I")
_ROOT, _FILE = 1, 2


class Disk:
    """A mounted file system. `stall` makes it answer nothing more."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self._process = process
        self.program = folder / "program"

    def stall(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert "stalled\n" == self._process.stdout.readline()

    def end(self) -> None:
        """End its server: whatever waits for an answer fails."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def disk(folder: Path, program: Path) -> Iterator[Disk]:
    """Mount a file system on `folder` that has a copy of `program`."""
    command = [sys.executable, "-I", __file__, str(folder), str(program)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert "mounted\n" == process.stdout.readline()
        yield Disk(process, folder)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class _Server:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def answer(self, opcode: int, node: int, body: bytes) -> bytes | int:
        """The body of an answer, or an error number."""
        match opcode:
            case 26:  # INIT
                major, minor, ahead, _ = struct.unpack_from("=4I", body)
                return struct.pack(
                    "=4I2H2I2HI7I", major, min(minor, 31), ahead, 0, 12, 9, 131_072, 1, 0, 0, 0, *[0] * 7
                )
            case 1 if (
                body.rstrip(b"\0") == b"program"
            ):  # LOOKUP; nothing may be kept, so that the kernel asks each time
                return struct.pack("=4Q2I", _FILE, 0, 0, 0, 0, 0) + self._attributes(_FILE)
            case 1:
                return errno.ENOENT
            case 3:  # GETATTR
                return struct.pack("=Q2I", 0, 0, 0) + self._attributes(node)
            case 14:  # OPEN
                return struct.pack("=Q2I", 0, 0, 0)
            case 15:  # READ
                _, offset, size = struct.unpack_from("=QQI", body)
                return self._content[offset : offset + size]
            case 18 | 25:  # RELEASE, FLUSH
                return b""
        return errno.ENOSYS

    def _attributes(self, node: int) -> bytes:
        mode, size = (stat.S_IFDIR, 0) if node == _ROOT else (stat.S_IFREG, len(self._content))
        blocks = (size + 511) // 512
        return _ATTRIBUTES.pack(node, size, blocks, 0, 0, 0, 0, 0, 0, mode | 0o755, 1, 0, 0, 0, 4096, 0)


def main(folder: str, file: str) -> None:
    server = _Server(Path(file).read_bytes())
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"sojourn-test", folder.encode(), b"fuse", 0, options.encode()) != 0:
        sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    print("mounted", flush=True)
    stalled = False
    while True:
        ready, _, _ = select.select([device, sys.stdin], [], [])
        if sys.stdin in ready:
            if not sys.stdin.readline():
                return
            stalled = True
            print("stalled", flush=True)
        if device in ready:
            request = os.read(device, 1 << 20)
            _, opcode, unique, node, *_ = _IN.unpack_from(request)
            if stalled or opcode in {2, 36, 42}:  # FORGET, INTERRUPT, BATCH_FORGET: nobody waits
                continue
            made = server.answer(opcode, node, request[_IN.size :])
            error, body = (-made, b"") if isinstance(made, int) else (0, made)
            os.write(device, _OUT.pack(_OUT.size + len(body), error, unique) + body)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
