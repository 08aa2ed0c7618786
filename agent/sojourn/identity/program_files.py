"""What the files of this machine tell of the programs that an entry asks for: links, interpreters, who may run them."""

import asyncio
import errno
import glob
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache

import structlog

from sojourn.attestation.machine import machine
from sojourn.attestation.selectors import Selector
from sojourn.identity import entry_warnings
from sojourn.identity.entries import Registration
from sojourn.limits import CAUTIONS_SECONDS, INTERPRETER_MAX_BYTES
from sojourn.spiffe.ids import SpiffeId

log = structlog.get_logger()
_INTERPRETER = re.compile(
    r"(python|pypy|perl|ruby|node|nodejs|deno|bun|php|lua|luajit|tclsh|guile|julia|R|Rscript|java|dotnet|mono|erl|escript"
    r"|sh|bash|rbash|dash|ash|zsh|ksh|mksh|fish|csh|tcsh|busybox|toybox|awk|gawk|mawk)(-?[0-9][0-9.]*[a-z]?)?"
    r"|perl[0-9.]+-.+|php[0-9.]*-cgi|beam\.smp|busybox[.-].+|qemu-.+"
    r"|ld-linux.*|ld-musl.*|ld-[0-9.]+\.so"  # the dynamic loader runs any program that it is given
)
_FOLDERS = ("/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin", "/lib64", "/lib", "/lib/*-linux-gnu")
_LINK = "it is a link or lies below one, and a process has the path of the file that this leads to"
_BLOCK = 1024 * 1024
_Key = tuple[int, int, int, int, int]


class Cautions:
    """Looks at entries that are registered. One slow file system keeps nobody waiting longer than CAUTIONS_SECONDS, and
    no attestor ever: what looks at files is a thread of its own.
    """

    def __init__(self, types: Collection[str], node_ids: Collection[SpiffeId]) -> None:
        """`types`: the selectors' types that this agent's attestors give; `node_ids`: whose entries it serves."""
        self._types = types
        self._node_ids = node_ids
        self._turn = asyncio.Lock()  # whoever has it looks, also when nobody waits for that any more
        self._stuck = False
        self._digests: dict[_Key, str] = {}

    async def of(self, entries: Sequence[Registration]) -> list[list[str]]:
        """What is to be said of each. Of other nodes' entries nothing is: their files and attestors are elsewhere."""
        ours = [entry.parent_id in self._node_ids for entry in entries]
        found = [
            [*entry_warnings.of_expiry(entry, time.time()), *entry_warnings.of_selectors(entry, self._types)]
            if mine
            else []
            for entry, mine in zip(entries, ours, strict=True)
        ]
        looked = [
            place
            for place, (entry, mine) in enumerate(zip(entries, ours, strict=True))
            if mine and any(_program(selector) for selector in entry.selectors)
        ]
        if looked:
            told = await self._look([entries[place] for place in looked])
            for place, more in zip(looked, told, strict=True):
                found[place] += more
        return found

    async def _look(self, entries: Sequence[Registration]) -> list[list[str]]:
        """What files tell, from a thread: a file system may not answer for hours."""
        try:
            async with asyncio.timeout(0 if self._stuck else CAUTIONS_SECONDS):
                await self._turn.acquire()
                return await asyncio.shield(self._begin(entries))
        except TimeoutError:
            self._stuck = self._turn.locked()
            return [["its program was not looked at: the files of this machine do not answer"] for _ in entries]

    def _begin(self, entries: Sequence[Registration]) -> asyncio.Future[list[list[str]]]:
        """Look in a thread, which gives the turn back."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[list[str]]] = loop.create_future()

        def tell(found: list[list[str]]) -> None:
            self._stuck = False
            self._turn.release()
            done.set_result(found)

        def look() -> None:
            found: list[list[str]] = [[] for _ in entries]
            try:
                interpreters = cache(self._interpreters)
                found = [_of_programs(entry, interpreters) for entry in entries]
            except Exception:
                log.exception("programs_not_looked_at")
            with suppress(RuntimeError):  # the agent has ended
                loop.call_soon_threadsafe(tell, found)

        try:
            threading.Thread(target=look, name="cautions", daemon=True).start()
        except RuntimeError:  # no more threads
            tell([[] for _ in entries])
        return done

    def _interpreters(self) -> dict[str, str]:
        """The interpreters of this machine by digest. What was read before and has not changed is not read again."""
        found: dict[str, str] = {}
        kept: dict[_Key, str] = {}
        root = machine().root
        for path in sorted(path for folder in _FOLDERS for path in glob.glob(f"{root}{folder}/*")):
            if not _INTERPRETER.fullmatch(os.path.basename(path)):
                continue
            try:
                digest = self._digest(path, kept)
            except OSError:
                continue
            if digest:
                found.setdefault(digest, path.removeprefix(root))
        self._digests = kept
        return found

    def _digest(self, path: str, kept: dict[_Key, str]) -> str:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111 or status.st_size > INTERPRETER_MAX_BYTES:
            return ""
        key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if key not in kept:
            kept[key] = self._digests.get(key) or _sha256(path)
        return kept[key]


def _of_programs(entry: Registration, interpreters: Callable[[], Mapping[str, str]]) -> list[str]:
    """What is to be said of the programs that an entry asks for. `interpreters`: this machine's, by digest."""
    found: list[str] = []
    anybody = entry_warnings.of_program_alone(entry.selectors)
    for selector in sorted(filter(_program, entry.selectors)):
        kind, _, value = selector.value.partition(":")
        if kind == "path" and value.startswith("/"):
            found += _of_path(value, anybody=anybody)
        elif kind == "sha256":
            path = interpreters().get(value)
            if path is not None:
                found.append(f"{selector} is {_is_interpreter(path)}")
            elif anybody:
                found.append(f"{selector}: any user may run a copy of that program: ask for unix:uid or unix:user too")
    return found


def _program(selector: Selector) -> bool:
    return selector.type == "unix" and selector.value.startswith(("path:", "sha256:"))


def _of_path(path: str, *, anybody: bool) -> list[str]:
    what = f"unix:path:{path}"
    try:
        real, status = _real(path)
    except OSError as error:
        return [f"{what}: cannot be looked at: {error.strerror}"]
    except ValueError:
        return [f"{what}: no file can have that name"]
    if real != os.path.normpath(path) or path != os.path.normpath(path):
        return [f"{what}: no process matches: what runs is the file that this leads to, unix:path:{real}"]
    if not stat.S_ISREG(status.st_mode):
        return [f"{what}: is not a regular file, so no process matches"]
    found = []
    if _INTERPRETER.fullmatch(os.path.basename(real)):
        found.append(f"{what} is {_is_interpreter(real)}")
    if status.st_mode & 0o022:
        found.append(f"{what}: users beside its owner can write it, and so choose what has the identity")
    if anybody and status.st_mode & 0o001:
        found.append(f"{what}: any user can run it: ask for unix:uid or unix:user too")
    return found


def _real(path: str) -> tuple[str, os.stat_result]:
    """The path to which all links on the way lead, and what is there. From a container links are not followed."""
    if not machine().root:
        real = os.path.realpath(path, strict=True)
        return real, os.stat(real)
    real = os.path.normpath(path)
    try:
        status = machine().status_of(real)
    except NotADirectoryError as error:
        raise OSError(errno.ELOOP, _LINK) from error
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, _LINK)
    return real, status


def _is_interpreter(path: str) -> str:
    return (
        f"an interpreter, {path}: any program that it is given to run has the identity, wherever the other selectors"
        " hold too: ask for what tells the workload apart, such as a user of its own"
    )


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
