"""The `systemd` attestor: which unit of systemd the process is of.

Selector values: `id:UNIT fragment_path:/PATH` as SPIRE names them, and `slice:SLICE invocation_id:HEX
template:NAME@.KIND instance:TEXT manager:system manager:user:UID`; with `user_units` also `user:UID:id:UNIT
user:UID:slice:SLICE`.

Systemd is asked over the system bus, and its word is compared with the kernel's: the process must be in the unit's
cgroup, and that in folders in which root alone puts processes. So a unit's name is what root called it. What is below
the cgroup of a user's own systemd is that user's word, and says so: it begins with `user:UID:`.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from sojourn.errors import AttestationFailed
from sojourn.limits import SELECTOR_VALUE_MAX_BYTES, SOCKET_PATH_MAX_BYTES, SYSTEM_BUS_SECONDS
from sojourn.plugins.attestor import Answer, Cgroup, Subject, Table, parse_cgroups, read_settings

from sojourn_attestors.kernel.cgroupfolders import CgroupFolders
from sojourn_attestors.kernel.processes import has_ended
from sojourn_attestors.units.cgroups import cgroup_within, owners_down_to, slice_of
from sojourn_attestors.units.manager import Manager, SystemdLeft, Unit
from sojourn_attestors.units.names import template_of, user_of, user_unit

_OF_UNITS: Final = ("id", "fragment_path", "slice", "invocation_id", "template", "instance", "manager")


def _path(value: str) -> str:
    if not value.startswith("/") or "\0" in value or len(value.encode()) > SOCKET_PATH_MAX_BYTES:
        raise ValueError("is not the absolute path of a Unix socket")
    return value


class SystemdSettings(Table):
    """`[attestors.systemd]`."""

    socket: Annotated[str, AfterValidator(_path)] = "/run/dbus/system_bus_socket"  # the system bus
    user_units: Annotated[bool, Field(strict=True)] = False  # whether users' word about their own units counts
    delegated: Annotated[bool, Field(strict=True)] = False  # whether units count whose cgroup is a user's (Delegate=)


class SystemdAttestor:
    """Asks one systemd over one connection, which it makes when it is needed first, or again."""

    def __init__(self, settings: Mapping[str, Any], pool: Executor) -> None:  # noqa: ARG002  # nothing here blocks
        self._settings = read_settings(SystemdSettings, settings)
        self._folders = CgroupFolders()
        self._connecting = asyncio.Lock()
        self._manager: Manager | None = None

    async def attest(self, subject: Subject) -> Answer:
        """Raise AttestationFailed if systemd cannot be asked, or says what the kernel contradicts."""
        _check_alive(subject)
        used: list[Manager] = []
        try:
            async with asyncio.timeout(SYSTEM_BUS_SECONDS):
                unit = await self._unit_of(subject, used)
        except TimeoutError:
            silent = _silent()
            for manager in used[-1:]:
                manager.close(silent.reason)
            raise silent from None
        answer = self._answer(unit, subject)
        _check_alive(subject)
        return answer

    async def check(self) -> None:
        """Raise AttestationFailed if there is no bus with a systemd on it."""
        try:
            async with asyncio.timeout(SYSTEM_BUS_SECONDS):
                await self._connected()
        except TimeoutError:
            raise _silent() from None

    async def close(self) -> None:
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    async def _unit_of(self, subject: Subject, used: list[Manager]) -> Unit | None:
        """Ask on the connection that there is; if that breaks, on a new one, once."""
        known = self._manager
        used.append(await self._connected())
        try:
            return await used[-1].unit_of(subject)
        except AttestationFailed as error:
            if isinstance(error, SystemdLeft):
                used[-1].close()
            if not used[-1].closed or used[-1] is not known:
                raise
        used.append(await self._connected())
        return await used[-1].unit_of(subject)

    async def _connected(self) -> Manager:
        async with self._connecting:
            if self._manager is None or self._manager.closed:
                self._manager = await Manager.connect(self._settings.socket)
            return self._manager

    def _answer(self, unit: Unit | None, subject: Subject) -> Answer:
        if unit is None or unit.id.endswith(".slice"):
            return _nothing("the process is in no unit of systemd")
        cgroup = cgroup_within(parse_cgroups(subject.cgroup), unit.cgroup)
        if cgroup is None:
            return _nothing(f"the process is not in the cgroup of its unit, {unit.id}")
        owners = owners_down_to(self._folders, cgroup, unit.cgroup)
        user = user_of(unit.id)
        if user is not None and owners <= {0, user}:
            return self._of_user(unit, user, cgroup)
        if owners - {0} and not self._settings.delegated:
            names = " and ".join(map(str, sorted(owners - {0})))
            return _nothing(
                f"the cgroup of {unit.id} was handed to user {names}, who can put any process of theirs into it: "
                "`delegated = true` has it count"
            )
        values, withheld = _values_of(unit)
        return Answer(frozenset({*values, "manager:system"}), withheld)

    def _of_user(self, unit: Unit, user: int, cgroup: Cgroup) -> Answer:
        values, withheld = _values_of(unit)
        values.add(f"manager:user:{user}")
        below = cgroup.path[len(unit.cgroup) :].split("/")[1:]
        name, innermost = user_unit(below)
        kind = f"user:{user}"
        if not self._settings.user_units:
            withheld[kind] = "units of users are their word: `user_units = true` has it count"
        elif not name:
            withheld[kind] = f"the process is in no unit of user {user}"
        else:
            values.add(f"{kind}:id:{name}")
            if innermost:
                values.add(f"{kind}:slice:{innermost}")
        return Answer(frozenset(values), withheld)


def _silent() -> AttestationFailed:
    return AttestationFailed(f"systemd did not answer within {SYSTEM_BUS_SECONDS:g} s")


def _nothing(reason: str) -> Answer:
    return Answer(frozenset(), dict.fromkeys(_OF_UNITS, reason))


def _values_of(unit: Unit) -> tuple[set[str], dict[str, str]]:
    template, instance = template_of(unit.id)
    parts = {
        "id": unit.id,
        "fragment_path": unit.fragment_path,
        "slice": unit.slice if slice_of(unit.cgroup) == unit.slice else "",
        "invocation_id": unit.invocation_id if unit.renewed else "",
        "template": template,
        "instance": instance,
    }
    reasons = {
        "fragment_path": f"{unit.id} has no unit file",
        "slice": f"the cgroup of {unit.id} is not in its slice" if unit.slice else f"{unit.id} is in no slice",
        "invocation_id": f"{unit.id} has none"
        if unit.renewed
        else f"processes of an earlier run may be left in {unit.id}: see KillMode= in systemd.kill(5)",
        "template": f"{unit.id} is no instance of a template",
        "instance": f"{unit.id} is no instance of a template",
    }
    if len(f"fragment_path:{unit.fragment_path}".encode()) > SELECTOR_VALUE_MAX_BYTES:
        parts["fragment_path"], reasons["fragment_path"] = "", "its path is longer than a selector may be"
    values = {f"{kind}:{text}" for kind, text in parts.items() if text}
    return values, {kind: reasons[kind] for kind, text in parts.items() if not text}


def _check_alive(subject: Subject) -> None:
    if has_ended(subject.pidfd):
        raise AttestationFailed("the process has gone")
