"""Makes a network in which there is a listening socket and nothing else: `python -I -S FILE DESCRIPTOR [USER]`.

It runs as a file and without a library of ours; whoever it becomes may not be able to read Python's either. By the Unix
socket that is DESCRIPTOR it sends one message of JSON: with the listening socket, the user namespace and the network
namespace as descriptors, or with `error`. The namespaces are of the user that it runs as, who needs no privilege for
that where the kernel lets users have namespaces.
"""

import array
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import runpy
import socket
import struct
import sys
from pathlib import Path

_PR_SET_DUMPABLE = 4
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_BACKLOG = 256
# What may forbid it, and at which value.
_SWITCHES = (
    ("kernel/unprivileged_userns_clone", b"0"),
    ("kernel/apparmor_restrict_unprivileged_userns", b"1"),
    ("user/max_user_namespaces", b"0"),
    ("user/max_net_namespaces", b"0"),
)


def main(descriptor: int, user: str | None) -> None:
    """Make it, send it, and go: the socket and whoever enters keep it."""
    with socket.socket(fileno=descriptor) as out:
        if user is not None:
            _become(user)
        try:
            _enter()
            _loopback_up()
            listening = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
            namespaces = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in ("user", "net")]
        except OSError as error:
            out.sendall(json.dumps({"error": _why(error)}).encode())
            return
        descriptors = array.array("i", [listening.fileno(), *namespaces])
        out.sendmsg([b"{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])


def _become(user: str) -> None:
    runpy.run_path(str(Path(__file__).with_name("start.py")))["become"](user)
    # What changed its user has its files of /proc back only so. It holds nothing that others may not read.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def _enter() -> None:
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_bytes(b"deny")
    Path("/proc/self/uid_map").write_bytes(b"%d %d 1" % (uid, uid))
    Path("/proc/self/gid_map").write_bytes(b"%d %d 1" % (gid, gid))


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh22x", b"lo", 0)
        name, flags = struct.unpack("16sh22x", fcntl.ioctl(control, _SIOCGIFFLAGS, asked))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", name, flags | _IFF_UP))


def _why(error: OSError) -> str:
    reason = os.strerror(error.errno or 0)
    for switch, forbids in _SWITCHES:
        with contextlib.suppress(OSError):
            if Path("/proc/sys", switch).read_bytes().strip() == forbids:
                return f"{reason}: {switch.replace('/', '.', 1)} is {int(forbids)}"
    if error.errno == errno.ENOSPC:
        return f"{reason}: user.max_user_namespaces or user.max_net_namespaces is reached"
    return f"{reason}: the kernel, its security module or this container's seccomp filter forbids user namespaces"


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
