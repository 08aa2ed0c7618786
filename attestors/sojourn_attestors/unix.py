"""The `unix` attestor: who runs the process, and which program it runs.

Selector values, named as SPIRE names them: `uid:N gid:N user:NAME group:NAME supplementary_gid:N
supplementary_group:NAME path:/ABSOLUTE/PATH sha256:HEX`.

Ids are the kernel's record of the connect. `path` is given only if the process runs the very file that this host has at
that path and shares our mount namespace: otherwise a user can bind another program over the path in a namespace of
their own. `sha256` is of the file that runs, read through the kernel's own link, whatever its name.
"""

import asyncio
import grp
import hashlib
import os
import pwd
import stat
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from sojourn.attestation.attestor import Answer, Subject
from sojourn.errors import AttestationFailed, InvalidConfig
from sojourn.limits import ATTESTATIONS_PER_UID, PROGRAM_DIGESTS_KEPT, PROGRAM_MAX_BYTES

_BLOCK = 1024 * 1024
_OVERFLOW_ID = 65_534  # what the kernel shows for an id that our user namespace does not map
_Key = tuple[int, int, int, int, int]


class UnixAttestor:
    """Settings: `path` and `sha256`, both true unless set to false."""

    def __init__(self, settings: Mapping[str, Any], pool: Executor) -> None:
        faults = [f"{name}: unknown key" for name in settings if name not in {"path", "sha256"}]
        faults += [f"{name}: is not true or false" for name, value in settings.items() if not isinstance(value, bool)]
        if faults:
            raise InvalidConfig(faults)
        self._path = bool(settings.get("path", True))
        self._sha256 = bool(settings.get("sha256", True))
        self._pool = pool
        self._lock = threading.Lock()
        self._reading: Counter[int] = Counter()
        self._digests = Digests()
        self._all_ids_mapped = _all_ids_mapped()

    async def attest(self, subject: Subject) -> Answer:
        """Raise AttestationFailed if the program cannot be read, or earlier ones of the same user are still being read:
        where reading never ends, one user would otherwise have all threads.
        """
        uid = subject.uid
        with self._lock:
            if self._reading[uid] >= ATTESTATIONS_PER_UID:
                raise AttestationFailed("earlier programs of this user are still being read")
            self._reading[uid] += 1
        reading = self._pool.submit(self._attest, subject)
        reading.add_done_callback(lambda _: self._read(uid))
        return await asyncio.wrap_future(reading)

    def _read(self, uid: int) -> None:
        with self._lock:
            self._reading[uid] -= 1
            if not self._reading[uid]:
                del self._reading[uid]

    def _attest(self, subject: Subject) -> Answer:
        values: set[str] = set()
        withheld: dict[str, str] = {}
        self._identity(subject, values, withheld)
        if self._path or self._sha256:
            try:
                self._program(subject.pid, values, withheld)
            except OSError as error:
                raise AttestationFailed("the program cannot be read", detail=str(error)) from error
        return Answer(frozenset(values), withheld)

    def _identity(self, subject: Subject, values: set[str], withheld: dict[str, str]) -> None:
        ids = [("uid", "user", subject.uid, _user), ("gid", "group", subject.gid, _group)]
        ids += [("supplementary_gid", "supplementary_group", number, _group) for number in sorted(subject.groups)]
        for kind, kind_of_name, number, name_of in ids:
            if number == _OVERFLOW_ID and not self._all_ids_mapped:
                withheld[kind] = "the id is not mapped in this agent's user namespace"
                continue
            values.add(f"{kind}:{number}")
            name = name_of(number)
            if name is None:
                withheld[kind_of_name] = f"{number} has no name on this machine"
            else:
                values.add(f"{kind_of_name}:{name}")

    def _program(self, pid: int, values: set[str], withheld: dict[str, str]) -> None:
        try:
            running = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError:
            reason = "this agent may not look at the program of this process: that takes CAP_SYS_PTRACE, as root has"
            withheld.update(
                {kind: reason for kind, wanted in (("path", self._path), ("sha256", self._sha256)) if wanted}
            )
            return
        try:
            status = os.fstat(running)
            if self._path:
                path, reason = _host_path(pid, status)
                if path:
                    values.add(f"path:{path}")
                else:
                    withheld["path"] = reason
            if self._sha256:
                digest, reason = self._digests.of(running, status)
                if digest:
                    values.add(f"sha256:{digest}")
                else:
                    withheld["sha256"] = reason
        finally:
            os.close(running)


def _host_path(pid: int, running: os.stat_result) -> tuple[str, str]:
    """The path at which this host has the file that the process runs, or '' and the reason why there is none."""
    path = os.readlink(f"/proc/{pid}/exe")
    try:
        if os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"):
            return "", "the process is in another mount namespace, where paths can be forged"
        host = os.lstat(path)
    except OSError:
        return "", "the program was deleted or replaced after it started"
    if (host.st_dev, host.st_ino) != (running.st_dev, running.st_ino):
        return "", "the program was deleted or replaced after it started"
    if not path.startswith("/") or "\0" in path:
        return "", "the program has no path on this machine"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "", "the program's path is not UTF-8"
    return path, ""


class Digests:
    """SHA-256 of program files, kept by file identity and times, and never computed twice at once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, str] = OrderedDict()
        self._lock = threading.Lock()
        self._computing: dict[_Key, threading.Lock] = {}

    def of(self, descriptor: int, status: os.stat_result) -> tuple[str, str]:
        """Lower-case hex of an open file's digest, or '' and the reason why there is none."""
        if not stat.S_ISREG(status.st_mode):
            return "", "the program is not a regular file"
        if status.st_size > PROGRAM_MAX_BYTES:
            return "", f"the program is larger than {PROGRAM_MAX_BYTES} bytes"
        key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        with self._lock:
            turn = self._computing.setdefault(key, threading.Lock())
        with turn:
            try:
                return self._look_up(key, descriptor)
            finally:
                with self._lock:
                    self._computing.pop(key, None)

    def _look_up(self, key: _Key, descriptor: int) -> tuple[str, str]:
        with self._lock:
            digest = self._kept.get(key)
        if digest is None:
            digest = self._compute(descriptor, key[4])
            after = os.fstat(descriptor)
            if (after.st_mtime_ns, after.st_ctime_ns, after.st_size) != key[2:]:
                return "", "the program was written to while it was read"
        with self._lock:
            self._kept[key] = digest
            self._kept.move_to_end(key)
            if len(self._kept) > PROGRAM_DIGESTS_KEPT:
                self._kept.popitem(last=False)
        return digest, ""

    @staticmethod
    def _compute(descriptor: int, size: int) -> str:
        digest = hashlib.sha256()
        offset = 0
        while offset <= size and (block := os.pread(descriptor, _BLOCK, offset)):
            digest.update(block)
            offset += len(block)
        return digest.hexdigest()


def _user(uid: int) -> str | None:
    return _name(lambda: pwd.getpwuid(uid).pw_name)


def _group(gid: int) -> str | None:
    return _name(lambda: grp.getgrgid(gid).gr_name)


def _name(look_up: Callable[[], str]) -> str | None:
    try:
        return look_up()
    except KeyError:
        return None


def _all_ids_mapped() -> bool:
    """Whether every user id of the machine has its own number here, so that 65534 is a user and not a stand-in."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return any(line.split()[:3] == ["0", "0", "4294967295"] for line in file)
