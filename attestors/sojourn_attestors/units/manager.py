"""Systemd, asked about units: of which one a process is, and what that one is (org.freedesktop.systemd1(5))."""

import asyncio
import os
from dataclasses import dataclass
from typing import Any, Final, Self

from jeepney import DBusAddress
from sojourn.errors import AttestationFailed
from sojourn.limits import SYSTEMD_ABSENT_SECONDS, SYSTEMD_ASKED_AT_ONCE
from sojourn.plugins.attestor import Subject

from sojourn_attestors.asking.systembus import Call, ErrorAnswer, SystemBus
from sojourn_attestors.units.names import INTERFACES, kind_of, name_of

_NAME: Final = "org.freedesktop.systemd1"
_UNIT: Final = f"{_NAME}.Unit"
_NO_UNIT: Final = f"{_NAME}.NoUnitForPID"
_NO_METHOD: Final = "org.freedesktop.DBus.Error.UnknownMethod"
_NO_OWNER: Final = "org.freedesktop.DBus.Error.NameHasNoOwner"
# What the bus says if the systemd that was there has left it, as it does when it executes itself anew.
_LEFT: Final = {
    f"org.freedesktop.DBus.Error.{name}" for name in ("NameHasNoOwner", "NoReply", "ServiceUnknown", "Disconnected")
}
_LOOK_AGAIN_SECONDS: Final = 0.02
_KILLS_ALL: Final = frozenset({"control-group", "mixed"})  # systemd.kill(5), KillMode=


class SystemdLeft(AttestationFailed):
    """The systemd that was asked is on the bus no more; there may be another."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit that has processes. A part that it does not have is ''.

    `cgroup`: its path as systemd has it. `renewed`: at each start of it no process of an earlier run is left, so that
    `invocation_id` is that of all its processes.
    """

    id: str
    fragment_path: str
    slice: str
    invocation_id: str
    cgroup: str
    renewed: bool


class Manager:
    """One systemd on one connection to the system bus. `close` it."""

    def __init__(self, bus: SystemBus, unique_name: str, *, by_handle: bool) -> None:
        """`by_handle`: processes are named by pidfd, since the systemd has other numbers for them."""
        self._bus = bus
        self._unique_name = unique_name
        self._by_handle = by_handle
        self._turns = asyncio.Semaphore(SYSTEMD_ASKED_AT_ONCE)

    @classmethod
    async def connect(cls, socket: str) -> Self:
        """Find systemd on the bus at `socket`. Raise AttestationFailed if it is not there, or is not root's.

        It may take forever: set a deadline.
        """
        bus, name, same_numbers = await _found(socket, files=False)
        if not same_numbers:
            bus.close()
            bus, name, _ = await _found(socket, files=True)
        return cls(bus, name, by_handle=not same_numbers)

    @property
    def closed(self) -> bool:
        return self._bus.closed

    def close(self, reason: str = "the connection to systemd was closed") -> None:
        self._bus.close(reason)

    async def unit_of(self, subject: Subject) -> Unit | None:
        """The unit that a process is of, or None if it is of none. It must live before and after.

        Raise SystemdLeft, or AttestationFailed if that cannot be told.
        """
        try:
            async with self._turns:
                path = await self._path_of(subject)
                return await self._unit(path)
        except ErrorAnswer as error:
            if error.name == _NO_UNIT:
                return None
            if error.name in _LEFT:
                raise SystemdLeft("systemd has left the system bus") from error
            raise

    async def _path_of(self, subject: Subject) -> str:
        if not self._by_handle:  # the number is this process's alone while it lives, which is seen before and after
            ((path,),) = await self._bus.calls(self._call("GetUnitByPID", "o", "u", subject.pid))
            return str(path)
        try:
            ((path, name, _),) = await self._bus.calls(self._call("GetUnitByPIDFD", "osay", "h", subject.pidfd))
        except ErrorAnswer as error:
            if error.name != _NO_METHOD:
                raise
            raise AttestationFailed(
                "systemd has other process numbers than this agent: it takes systemd 254 or newer"
            ) from error
        if name != name_of(path):
            raise AttestationFailed("systemd told of a unit of a name that none has", detail=f"{path!r:.500}")
        return str(path)

    def _call(self, member: str, gives: str, signature: str, argument: int) -> Call:
        to = DBusAddress("/org/freedesktop/systemd1", bus_name=self._unique_name, interface=f"{_NAME}.Manager")
        return Call(to, member, gives, signature, (argument,))

    async def _unit(self, path: str) -> Unit:
        name = name_of(path)
        kind = kind_of(name)
        if not kind:
            raise AttestationFailed("systemd told of a unit of a name that none has", detail=repr(path[:500]))
        own = INTERFACES[kind]
        wanted = [
            (_UNIT, "Id"),
            (_UNIT, "FragmentPath"),
            (_UNIT, "InvocationID"),
            (own, "Slice"),
            (own, "ControlGroup"),
        ]
        if kind != "slice":
            wanted += [(own, "KillMode"), (own, "SendSIGKILL")]
        to = DBusAddress(path, bus_name=self._unique_name, interface="org.freedesktop.DBus.Properties")
        answers = await self._bus.calls(*(Call(to, "Get", "v", "ss", each) for each in wanted))
        found = {property_: value for (_, property_), ((_, value),) in zip(wanted, answers, strict=True)}
        try:
            return _read(name, found)
        except (TypeError, ValueError) as error:
            raise AttestationFailed("systemd told of a unit what cannot be so", detail=str(error)) from error


async def _found(socket: str, *, files: bool) -> tuple[SystemBus, str, bool]:
    """A connection to the bus, systemd's name on it, and whether processes have the same numbers there as here."""
    bus = await SystemBus.connect(socket, files=files)
    try:
        ours = str(await bus.ask("s", "Hello"))
        name = await _owner_of_name(bus)
        if await bus.ask("u", "GetConnectionUnixUser", name) != 0:
            raise AttestationFailed("what calls itself systemd on the system bus is not root's")
        number = await bus.ask("u", "GetConnectionUnixProcessID", ours)
    except BaseException:
        bus.close()
        raise
    return bus, name, number == os.getpid()


async def _owner_of_name(bus: SystemBus) -> str:
    ends = asyncio.get_running_loop().time() + SYSTEMD_ABSENT_SECONDS
    while True:
        try:
            return str(await bus.ask("s", "GetNameOwner", _NAME))
        except ErrorAnswer as error:
            if error.name != _NO_OWNER:
                raise
            if asyncio.get_running_loop().time() > ends:
                raise AttestationFailed("systemd is not on the system bus") from error
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def _read(name: str, found: dict[str, Any]) -> Unit:
    """A unit by its properties. Raise ValueError or TypeError if they are not what a unit has."""
    texts = {key: found[key] for key in ("Id", "FragmentPath", "Slice", "ControlGroup", "KillMode") if key in found}
    for key, value in texts.items():
        if not isinstance(value, str) or "\0" in value:
            raise TypeError(f"{key} is {value!r:.200}")
    if texts["Id"] != name:
        raise ValueError(f"Id is {texts['Id']!r:.300} at the path of {name!r}")
    for key in ("FragmentPath", "ControlGroup"):
        if texts[key] and not texts[key].startswith("/"):
            raise ValueError(f"{key} is {texts[key]!r:.300}")
    if texts["Slice"] and kind_of(texts["Slice"]) != "slice":
        raise ValueError(f"Slice is {texts['Slice']!r:.300}")
    invocation = found["InvocationID"]
    if not isinstance(invocation, bytes) or len(invocation) not in {0, 16}:
        raise TypeError(f"InvocationID is {invocation!r:.200}")
    return Unit(
        name,
        texts["FragmentPath"],
        texts["Slice"],
        invocation.hex(),
        texts["ControlGroup"],
        texts.get("KillMode") in _KILLS_ALL and found.get("SendSIGKILL") is True,
    )
