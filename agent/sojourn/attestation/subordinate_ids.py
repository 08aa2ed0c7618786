"""Users who are many: who has a range of subordinate ids (subuid(5)) may be any of them, and counts as one user.

Such a user takes another uid in a user namespace, or by a setuid file that was made in one. Ranges of root and of
system accounts are for the containers of an engine: those count by uid, as all others do.
"""

import asyncio
import os
import pwd
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

import structlog

from sojourn.attestation.account_files import accounts_in, number_in
from sojourn.attestation.machine import Machine, machine
from sojourn.limits import SUBORDINATE_LOOK_SECONDS, SUBORDINATE_START_SECONDS

log = structlog.get_logger()
SUBUID = Path("/etc/subuid")
_FIRST_OF_PEOPLE = 1000  # lower uids are root's and system accounts' (login.defs(5), UID_MIN)


class Subordinates:
    """Whose limits count for a uid, by the ranges that /etc/subuid gives."""

    def __init__(self, path: Path = SUBUID, of: Machine | None = None) -> None:
        """`of`: whose file it is, and by whose accounts names are told; default: the machine that the agent serves."""
        self._path = path
        self._machine = of or machine()
        self._seen: tuple[int, ...] | None = None  # what the file was when it was read
        self._ranges: list[tuple[int, int, int]] = []  # first, behind the last, owner; by the first
        self._reach: list[int] = []  # how far this range and those before it go at most

    def owner(self, uid: int) -> int:
        """The user who may become `uid`, or `uid` itself."""
        index = bisect_right(self._ranges, uid, key=lambda each: each[0]) - 1
        while index >= 0 and self._reach[index] > uid:
            if uid < self._ranges[index][1]:
                return self._ranges[index][2]
            index -= 1
        return uid

    async def start(self) -> None:
        """Read the file before anybody is counted. Names that a directory is slow to tell are waited for a while."""
        try:
            async with asyncio.timeout(SUBORDINATE_START_SECONDS):
                await asyncio.to_thread(self.look)
        except TimeoutError:
            log.warning("subordinate_ids_unknown", reason=f"the names in {self._path} are not told in time")

    async def run(self) -> NoReturn:
        """Follow the file until cancelled."""
        while True:
            await asyncio.sleep(SUBORDINATE_LOOK_SECONDS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the file if it has changed; it may wait for names. One that cannot be read leaves what was known."""
        try:
            with os.fdopen(self._machine.open(str(self._path)), "r", encoding="utf-8", errors="replace") as file:
                status = os.fstat(file.fileno())
                seen: tuple[int, ...] | None = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                if seen == self._seen:
                    return
                lines = file.read().splitlines()
        except FileNotFoundError:
            seen, lines = None, []
        except OSError as error:
            log.warning("subordinate_ids_unreadable", reason=f"{self._path}: {error.strerror}")
            return
        ranges = sorted(found for line in lines if (found := self._range(line)) is not None)
        self._ranges, self._reach = ranges, list(accumulate((end for _, end, _ in ranges), max))
        self._seen = seen

    def _range(self, line: str) -> tuple[int, int, int] | None:
        """First, behind the last, owner. None for what counts by uid, and for what is no range."""
        name, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        try:
            owner = int(name) if name.isdecimal() else self._number_of(name)
            start, end = int(first), int(first) + int(count)
        except (KeyError, ValueError, OSError):
            return None
        return (start, end, owner) if owner >= _FIRST_OF_PEOPLE and start < end else None

    def _number_of(self, name: str) -> int:
        if self._machine.has_its_files:
            return pwd.getpwnam(name).pw_uid
        number = number_in(accounts_in(self._machine, "passwd"), name)
        if number is None:
            raise KeyError(name)
        return number
