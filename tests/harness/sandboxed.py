"""Tries one thing that a sandbox of systemd's forbids. Usage: sandboxed.py NAME. It prints `done`, or why it could not.

Run as root of a machine of its own (nspawn.py), where each of them works without a sandbox.
"""

import ctypes
import mmap
import os
import socket
import sys
import time
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUTS = 0x04000000
PERSONALITY_LINUX32 = 0x0008


def check(returned):
    if returned == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def write_etc():
    Path("/etc/sojourn-probe").write_text("")
    os.unlink("/etc/sojourn-probe")


def read_home():
    os.listdir("/root/probe")


def see_tmp():
    os.stat("/tmp/sojourn-probe")


def open_device():
    os.close(os.open("/dev/net/tun", os.O_RDWR))


def set_kernel():
    path = Path("/proc/sys/net/ipv4/ip_default_ttl")
    path.write_text(path.read_text())


def make_cgroup():
    cgroup = Path("/sys/fs/cgroup/system.slice")
    (cgroup / "sojourn-probe.d").mkdir()
    (cgroup / "sojourn-probe.d").rmdir()


def set_hostname():
    socket.sethostname(socket.gethostname())


def make_namespace():
    check(LIBC.unshare(CLONE_NEWUTS))


def be_real_time():
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def make_setuid():
    Path("/run/sojourn-probe").write_text("")
    try:
        os.chmod("/run/sojourn-probe", 0o4755)
    finally:
        os.unlink("/run/sojourn-probe")


def be_another_machine():
    check(LIBC.personality(PERSONALITY_LINUX32))


def write_and_execute():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def own_a_file():
    os.chown("/run/sojourn-owned", 0, 0)


def change_priority():
    os.setpriority(os.PRIO_PROCESS, 0, 5)


def mount():
    check(LIBC.mount(b"none", b"/mnt", b"tmpfs", 0, None))
    check(LIBC.umount(b"/mnt"))


def _memory_of_another(call):
    """Have one of the kernel's calls copy a byte from or to another process, at an address that this one has too."""
    here = ctypes.create_string_buffer(b"x", 1)
    part = (ctypes.c_size_t * 2)(ctypes.addressof(here), 1)  # struct iovec
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        check(call(pid, part, 1, part, 1, 0))
    finally:
        os.close(writing)
        os.waitpid(pid, 0)


def read_memory():
    _memory_of_another(LIBC.process_vm_readv)


def write_memory():
    _memory_of_another(LIBC.process_vm_writev)


def trace():
    """Let itself be traced by its parent."""
    check(LIBC.ptrace(0, 0, None, None))


def talk_to_the_kernel():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()


def gain_privileges():
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("NoNewPrivs:")]
    if line.split()[1] != "0":
        raise PermissionError(1, "no new privileges")


def have_filters():
    """How many filters of system calls there are, on one line."""
    (line,) = [
        each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("Seccomp_filters:")
    ]
    print(f"filters {line.split()[1]}")


def be_readable():
    """Make files as everybody's umask would."""
    Path("/run/sojourn-made").write_text("")
    try:
        if os.stat("/run/sojourn-made").st_mode & 0o077 == 0:
            raise PermissionError(1, "nobody else may read it")
    finally:
        os.unlink("/run/sojourn-made")


def mount_for_others():
    """Mount something, and be seen by the machine as the one who did: it looks meanwhile."""
    check(LIBC.mount(b"none", b"/mnt", b"tmpfs", 0, None))
    Path("/run/sojourn-mounted").write_text("")
    time.sleep(1)


if __name__ == "__main__":
    try:
        globals()[sys.argv[1]]()
    except OSError as error:
        print(f"refused: {error.strerror or error}")
    else:
        print("done")
