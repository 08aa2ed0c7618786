"""The `unix` attestor: who runs the process, which program it runs, and in which cgroups.

Selector values, named as SPIRE names them: `uid:N gid:N user:NAME group:NAME supplementary_gid:N
supplementary_group:NAME path:/ABSOLUTE/PATH sha256:HEX`, and our own `cgroup:/PATH` and `cgroup:CONTROLLER:/PATH`.

Ids are the kernel's record of the connect. `path` is given only if the process runs the very file that this machine has
at that path and is in the mount namespace of the machine's first process: otherwise a user can bind another program
over the path in a namespace of their own. `sha256` is of the file that runs, read through the kernel's own link,
whatever its name. Names are those of the machine's users, also for an agent in a container.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Annotated, Any, Final

from pydantic import Field
from sojourn.errors import AttestationFailed
from sojourn.limits import (
    NAMES_WAITED_FOR_SECONDS,
    PROGRAM_MAX_BYTES,
    PROGRAM_READ_SECONDS,
    PROGRAM_SIZE_LIMIT_MAX_BYTES,
    SELECTOR_VALUE_MAX_BYTES,
)
from sojourn.plugins.attestor import Answer, Subject, Table, parse_cgroups, read_settings

from sojourn_attestors.asking.accounts import names_doubt, of_the_machine
from sojourn_attestors.asking.names import Kind, Names
from sojourn_attestors.kernel.programs import Found, Programs

_OVERFLOW_ID: Final = 65_534  # what the kernel shows for an id that our user namespace does not map
_INITIAL_CGROUP_NAMESPACE: Final = "cgroup:[4026531835]"  # a number that the kernel fixes
_OUTSIDE: Final = re.compile(r"/\.\.(/|\Z)")  # how the kernel shows a cgroup above the root of our namespace
_INTERPRETER: Final = re.compile(
    r"(python|pypy|perl|ruby|node|nodejs|deno|bun|lua|luajit|php|java|tclsh|wish|guile|Rscript|pwsh|bash|dash|sh|zsh|ksh"
    r"|fish|busybox)[-0-9.a-z]*"
)
_NO_SCRIPTS: Final = (
    "the kernel does not record which script an interpreter runs: its command line is the process's own to write"
)


class Settings(Table):
    """`[attestors.unix]`."""

    path: Annotated[bool, Field(strict=True)] = True
    sha256: Annotated[bool, Field(strict=True)] = True
    sha256_max_bytes: Annotated[int, Field(ge=1, le=PROGRAM_SIZE_LIMIT_MAX_BYTES, strict=True)] = PROGRAM_MAX_BYTES
    names: Annotated[bool, Field(strict=True)] = True  # of users and groups
    cgroup: Annotated[bool, Field(strict=True)] = True


class UnixAttestor:
    """Made with its settings. Belongs to one event loop."""

    def __init__(self, settings: Mapping[str, Any], pool: Executor) -> None:
        self._settings = read_settings(Settings, settings)
        self._programs = Programs(
            pool,
            path=self._settings.path,
            sha256=self._settings.sha256,
            max_bytes=self._settings.sha256_max_bytes,
        )
        self._names = Names(pool, of_the_machine())
        self._names_doubt = names_doubt()
        self._all_ids_mapped = _all_ids_mapped()
        self._sees_whole_cgroups = _namespace("cgroup") == _INITIAL_CGROUP_NAMESPACE

    async def attest(self, subject: Subject) -> Answer:
        """Raise AttestationFailed if the process has gone."""
        found = Found()
        self._ids(subject, found)
        if self._settings.cgroup:
            self._cgroups(subject, found)
        naming = asyncio.ensure_future(self._add_names(subject, found))
        try:
            if self._settings.path or self._settings.sha256:
                program = await self._programs.of(subject.pid, subject.who, PROGRAM_READ_SECONDS)
                found.values |= program.values
                found.withheld |= program.withheld
                found.untold |= program.untold
                self._scripts(program, subject.pid, found)
            await naming
        finally:
            naming.cancel()
            await asyncio.wait([naming])
        return Answer(frozenset(found.values), found.withheld, untold=found.untold)

    def _ids(self, subject: Subject, found: Found) -> None:
        ids = [("uid", subject.uid), ("gid", subject.gid)]
        ids += [("supplementary_gid", number) for number in sorted(subject.groups)]
        for kind, number in ids:
            if self._told(number):
                found.values.add(f"{kind}:{number}")
            else:
                found.withheld[kind] = "the id is not mapped in this agent's user namespace"

    def _told(self, number: int) -> bool:
        return number != _OVERFLOW_ID or self._all_ids_mapped

    async def _add_names(self, subject: Subject, found: Found) -> None:
        if not self._settings.names:
            return
        wanted = [("user", Kind.USER, subject.uid), ("group", Kind.GROUP, subject.gid)]
        wanted += [("supplementary_group", Kind.GROUP, number) for number in sorted(subject.groups)]
        wanted = [each for each in wanted if self._told(each[2])]
        if self._names_doubt:
            found.withheld.update({word: self._names_doubt for word, _, _ in wanted})
            return
        keys = dict.fromkeys((kind, number) for _, kind, number in wanted)
        names = await self._names.of(keys, NAMES_WAITED_FOR_SECONDS, subject.who)
        for word, kind, number in wanted:
            if (kind, number) not in names:
                found.untold[word] = f"the name of {number} could not be looked up in time"
            elif (name := names[kind, number]) is None:
                found.withheld[word] = f"{number} has no name on this machine"
            else:
                found.values.add(f"{word}:{name}")

    def _cgroups(self, subject: Subject, found: Found) -> None:
        try:
            cgroups = parse_cgroups(subject.cgroup)
        except ValueError as error:
            raise AttestationFailed("the kernel's list of cgroups cannot be read", detail=str(error)) from error
        for cgroup in cgroups:
            if cgroup.path == "/":  # where everybody is who was put nowhere
                continue
            reason = self._doubt(cgroup.path)
            if reason:
                found.withheld["cgroup"] = reason
            elif cgroup.unified:
                found.values.add(f"cgroup:{cgroup.path}")
            else:
                found.values.update(f"cgroup:{controller}:{cgroup.path}" for controller in cgroup.controllers)

    def _doubt(self, path: str) -> str:
        """Why a cgroup is not given, or ''."""
        if not self._sees_whole_cgroups or _OUTSIDE.match(path):
            return "this agent is in a cgroup namespace of its own, and does not see whole paths"
        if path.endswith(" (deleted)"):
            return "the cgroup was removed, or is named as the kernel names a removed one"
        if not path.isprintable() or len(path.encode(errors="surrogateescape")) > SELECTOR_VALUE_MAX_BYTES - 64:
            return "the path of the cgroup is no text, or too long"
        return ""

    def _scripts(self, program: Found, pid: int, found: Found) -> None:
        """What an interpreter runs cannot be told: say so where somebody may look for it."""
        paths = [value for value in program.values if value.startswith("path:")]
        try:
            name = (paths[0] if paths else os.readlink(f"/proc/{pid}/exe")).rpartition("/")[2]
        except OSError:
            return
        if _INTERPRETER.fullmatch(name):
            found.withheld["script_path"] = found.withheld["script_sha256"] = _NO_SCRIPTS


def _namespace(kind: str) -> str:
    try:
        return os.readlink(f"/proc/self/ns/{kind}")
    except OSError:  # a kernel without such namespaces
        return ""


def _all_ids_mapped() -> bool:
    """Whether every user id of the machine has its own number here, so that 65534 is a user and not a stand-in."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return any(line.split()[:3] == ["0", "0", "4294967295"] for line in file)
