"""confinement.py: what a process that is confined as the key process is can do, tried in one."""

import json
import os
import platform
import subprocess
import sys

import pytest
from sojourn.keyprocess.confinement import _ARCHITECTURES
from sojourn.limits import KEY_PROCESS_FILE_BYTES

# Each try has its outcome: the name of the error, or None.
_PROGRAM = """
import ctypes, errno, json, os, resource, signal, socket, sys
from sojourn.keyprocess.confinement import confine, end_with
def tried(do):
    try:
        do()
    except OSError as error:
        return errno.errorcode[error.errno]
def called(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
libc = ctypes.CDLL(None, use_errno=True)
end_with(int(sys.argv[1]))
confine(network=sys.argv[2] == "network")
{last}
told = {{name: tried(lambda family=family: socket.socket(family).close())
        for name, family in (("inet", socket.AF_INET), ("inet6", socket.AF_INET6), ("netlink", socket.AF_NETLINK),
                             ("unix", socket.AF_UNIX))}}
told["pair"] = tried(lambda: [each.close() for each in socket.socketpair()])
told["ring"] = tried(lambda: called(425, 4, ctypes.create_string_buffer(256)))
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
told["status"] = [status[name] for name in ("CapEff", "CapPrm", "NoNewPrivs", "Seccomp")]
told["dumpable"] = libc.prctl(3, 0, 0, 0, 0)
told["limits"] = [resource.getrlimit(each) for each in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)]
child = os.fork()
if not child:
    os._exit(0 if tried(lambda: socket.socket(socket.AF_INET)) else 1)
told["child"] = os.waitpid(child, 0)[1]
print(json.dumps(told))
"""
needs_filter = pytest.mark.skipif(platform.machine() not in _ARCHITECTURES, reason="no filter for this processor")


def run(network="no-network", last=""):
    """What a confined process was able to do, and how it ended."""
    program = _PROGRAM.format(last=last)
    done = subprocess.run(
        [sys.executable, "-c", program, str(os.getpid()), network],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done, json.loads(done.stdout) if done.stdout else None


@needs_filter
def test_without_network():
    """It has no socket but Unix ones, by no way that the kernel has, and its children have none either."""
    _, told = run()
    assert ["EACCES"] * 4 == [told[name] for name in ("inet", "inet6", "netlink", "ring")]
    assert (None, None, 0) == (told["unix"], told["pair"], told["child"])


def test_what_it_is():
    """It has no capability and gets none, cannot be read by processes of its user, and leaves no core."""
    _, told = run()
    assert ["0" * 16, "0" * 16, "1"] == told["status"][:3]
    assert 0 == told["dumpable"]
    assert [[0, 0], [KEY_PROCESS_FILE_BYTES] * 2] == told["limits"]


def test_with_network():
    """With `keys.network` it has sockets, and is confined otherwise."""
    _, told = run("network")
    assert (None, ["0" * 16, "0" * 16, "1"], 0) == (told["inet"], told["status"][:3], told["dumpable"])


@needs_filter
@pytest.mark.skipif(platform.machine() != "x86_64", reason="only there are other numbers for the same calls")
def test_by_other_numbers():
    """Whoever calls the kernel by numbers of another kind of program is killed."""
    done, told = run(last="called(0x40000000 + 41, 2, 1, 0)")
    assert (None, -31) == (told, done.returncode)


def test_of_another_parent():
    """One whose parent is not the agent by now ends at once."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(last=""), "1", "no-network"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (1, "") == (done.returncode, done.stdout)
