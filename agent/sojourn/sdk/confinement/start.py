"""Starts a command that is to get nothing of the agent, in the place of itself: `python -I -S FILE SETTINGS CMD ARGS…`.

It runs before the command, as a file and without a library of ours, and says what it lacks as `sojourn` does. In this
order it takes the mark that the agent knows (`attestation/confined_mark.py`), becomes the user that SETTINGS name,
gives up what could take the mark off again, and enters the namespaces it was given.
"""

import contextlib
import ctypes
import errno
import json
import os
import pwd
import resource
import struct
import sys
import termios
from typing import Any, NoReturn

RLIMIT_LOCKS = 10
NOT_FOUND, NOT_EXECUTABLE, REFUSED = 127, 126, 1
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAP_SYS_RESOURCE = 24
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_VERSION = 1  # a flag: tell the version
_MAKE_BLOCK, _SCOPE_SIGNAL = 1 << 11, 1 << 1
_CAPABILITY_VERSION = 0x20080522
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_TIOCLINUX = 0x541C
_libc = ctypes.CDLL(None, use_errno=True)


def main(settings: dict[str, Any], command: list[str]) -> NoReturn:
    """SETTINGS: `user`, the name of whom to become; `readable`, files that the command needs; `namespaces`, descriptors
    of those to enter, a user namespace first.
    """
    resource.setrlimit(RLIMIT_LOCKS, (0, 0))
    _call("drop a capability", _libc.prctl, _PR_CAPBSET_DROP, _CAP_SYS_RESOURCE, 0, 0, 0, allowed=(errno.EPERM,))
    if settings.get("user"):
        become(settings["user"])
    _give_up_sys_resource()
    _call("give up new privileges", _libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _restrict()
    _keep_off_terminals()
    for descriptor in settings.get("namespaces", ()):
        _call("enter the network of the run", _libc.setns, descriptor, 0)
        os.close(descriptor)
    for file in settings.get("readable", ()):
        if not os.access(file, os.R_OK):
            fail(REFUSED, f"the command's user cannot read {file}: set TMPDIR to a folder that it may read", "refused")
    try:
        os.execvp(command[0], command)  # noqa: S606  # what this is for
    except FileNotFoundError:
        fail(NOT_FOUND, f"command {command[0]!r} was not found", "usage")
    except OSError as error:
        fail(NOT_EXECUTABLE, f"command {command[0]!r} cannot be run: {error.strerror}", "usage")


def become(name: str) -> None:
    """Become a user for good, with this user's groups and home folder."""
    try:
        user = pwd.getpwnam(name)
        groups = os.getgrouplist(name, user.pw_gid)
    except KeyError:
        fail(REFUSED, f"there is no user {name!r}", "invalid_input")
    if (user.pw_uid, user.pw_gid) != (os.geteuid(), os.getegid()) or os.geteuid() == 0:
        try:
            os.setgroups(groups)
            os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
        except PermissionError:
            mine = pwd.getpwuid(os.geteuid()).pw_name if _known(os.geteuid()) else str(os.geteuid())
            fail(REFUSED, f"{mine!r} may not run a command as {name!r}: only root may", "refused")
    os.environ.update(HOME=user.pw_dir, USER=name, LOGNAME=name)
    os.environ.pop("XDG_RUNTIME_DIR", None)  # it is the other user's


def _known(uid: int) -> bool:
    return any(each.pw_uid == uid for each in pwd.getpwall())


def _give_up_sys_resource() -> None:
    """By which a hard limit could be raised."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0))
    data = ctypes.create_string_buffer(24)
    _call("read its capabilities", _libc.capget, header, data)
    kept = [each & ~(1 << _CAP_SYS_RESOURCE) for each in struct.unpack("=3I", data.raw[:12])]
    data = ctypes.create_string_buffer(struct.pack("=3I", *kept) + data.raw[12:24])
    _call("give up a capability", _libc.capset, header, data)


def _restrict() -> None:
    """Where the kernel has Landlock, keep the command from tracing processes outside of it, and from their memory and
    descriptors: one of them might speak with the agent. From Linux 6.12 on it cannot send them signals either.
    """
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return
    rules = struct.pack("=QQQ", 0, 0, _SCOPE_SIGNAL) if version >= 6 else struct.pack("=Q", _MAKE_BLOCK)
    ruleset = _call("restrict itself", _libc.syscall, _LANDLOCK_CREATE_RULESET, rules, len(rules), 0)
    _call("restrict itself", _libc.syscall, _LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _keep_off_terminals() -> None:
    """Keep the command from typing into the terminal that it shares with whoever ran it (TIOCSTI, TIOCLINUX): a shell
    there would run what it is given, outside of all this. Where the kernel has no filters of calls, or knows the
    machine by another name, the command has no terminal of its own.
    """
    steps = [
        (0x20, 0, 0, 4),  # load the architecture
        (0x15, 3, 0, 0xC000003E),  # x86_64
        (0x15, 5, 0, 0x40000003),  # i386
        (0x15, 6, 0, 0xC00000B7),  # aarch64
        (0x15, 3, 10, 0x40000028),  # arm
        (0x20, 0, 0, 0),  # load the number of the call
        (0x15, 5, 0, 16),  # ioctl
        (0x15, 4, 7, 0x40000000 + 514),  # ioctl of x32
        (0x20, 0, 0, 0),
        (0x15, 2, 5, 54),  # ioctl of i386 and arm
        (0x20, 0, 0, 0),
        (0x15, 0, 3, 29),  # ioctl of aarch64
        (0x20, 0, 0, 24),  # load its second argument, of which the kernel reads 32 bits
        (0x15, 2, 0, termios.TIOCSTI),
        (0x15, 1, 0, _TIOCLINUX),
        (0x06, 0, 0, 0x7FFF0000),  # allow
        (0x06, 0, 0, 0x00050000 | errno.EPERM),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    filtering = struct.pack("@HP", len(steps), ctypes.addressof(program))
    known = os.uname().machine in {"x86_64", "i686", "i386", "aarch64", "armv7l", "armv8l"}
    if not known or _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filtering, 0, 0) < 0:
        with contextlib.suppress(PermissionError):  # it leads a session already
            os.setsid()


def _call(what: str, call: Any, *arguments: Any, allowed: tuple[int, ...] = ()) -> int:
    result = int(call(*arguments))
    if result < 0 and ctypes.get_errno() not in allowed:
        fail(REFUSED, f"the command cannot {what}: {os.strerror(ctypes.get_errno())}", "refused")
    return result


def fail(status: int, why: str, code: str) -> NoReturn:
    """End with an error, as the command does whose start this is."""
    os.write(2, f"error: {why} [{code}]\n".encode(errors="backslashreplace"))
    os._exit(status)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
