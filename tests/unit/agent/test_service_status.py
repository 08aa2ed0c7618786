"""service_status.py: signs of life, and what is told around a start, a reload and an end, over a real socket."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sojourn.agent import service_status
from sojourn.agent.service_status import CONFIGURATION, TASK_TYPES, ServiceStatus
from sojourn.limits import START_BYTES_PER_SECOND, START_SECONDS
from sojourn.runtime.service_manager import ServiceManager

Heard = Callable[[], list[str]]


@pytest.fixture
async def systemd(tmp_path: Path) -> AsyncIterator[tuple[str, Heard]]:
    """Where messages go, and what has come since it was last asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.setblocking(False)

        def heard() -> list[str]:
            found = []
            while True:
                try:
                    found.append(made.recv(4096).decode())
                except BlockingIOError:
                    return found

        yield str(tmp_path / "notify"), heard


async def test_ready(systemd: tuple[str, Heard]) -> None:
    """Ready is told with how the agent is."""
    address, heard = systemd
    manager = ServiceManager(address)
    status = ServiceStatus(manager, lambda: "3 entries")
    status.ready()
    assert ["READY=1\nSTATUS=3 entries"] == heard()
    status.stopping()
    assert ["STOPPING=1\nSTATUS=draining"] == heard()
    status.close()
    manager.close()


@pytest.mark.full
async def test_signs_of_life(systemd: tuple[str, Heard]) -> None:
    """Signs come from the loop, at half of the time that systemd waits for one; while it stands still there is none."""
    address, heard = systemd
    manager = ServiceManager(address, watchdog_seconds=0.2)
    status = ServiceStatus(manager, lambda: "3 entries")
    status.ready()
    heard()
    async with asyncio.timeout(20):
        while "WATCHDOG=1" not in heard():
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    heard()
    time.sleep(1)  # the loop stands still
    assert [] == heard()
    async with asyncio.timeout(20):
        while "WATCHDOG=1" not in heard():
            await asyncio.sleep(0.01)
    status.close()
    await asyncio.sleep(0.5)
    assert [] == heard()
    manager.close()


async def test_without_a_watchdog(systemd: tuple[str, Heard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of how the agent is is told also where systemd waits for no signs, and once."""
    monkeypatch.setattr(service_status, "SERVICE_STATUS_SECONDS", 0.02)
    address, heard = systemd
    manager, how = ServiceManager(address), ["3 entries"]
    status = ServiceStatus(manager, lambda: how[0])
    status.ready()
    await asyncio.sleep(0.2)
    heard()
    how[0] = "4 entries"
    found: list[str] = []
    async with asyncio.timeout(20):
        while not found:
            await asyncio.sleep(0.02)
            found = heard()
    await asyncio.sleep(0.2)
    assert ["STATUS=4 entries"] == found + heard()
    status.close()
    manager.close()


async def test_reload(systemd: tuple[str, Heard]) -> None:
    """The agent is ready again when both configuration and task types were read; a second wish begins anew."""
    address, heard = systemd
    manager = ServiceManager(address)
    status = ServiceStatus(manager, lambda: "3 entries")
    before = time.monotonic_ns() // 1000
    status.reloading()
    [told] = heard()
    first, second = told.split("\n")
    assert "RELOADING=1" == first
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    status.was_read(TASK_TYPES)
    assert [] == heard()
    status.reloading()
    heard()
    status.was_read(CONFIGURATION)
    assert [] == heard()
    status.was_read(TASK_TYPES)
    assert ["READY=1\nSTATUS=3 entries"] == heard()
    status.was_read(TASK_TYPES)
    assert [] == heard()
    manager.close()


async def test_start_of_a_large_database(systemd: tuple[str, Heard], tmp_path: Path) -> None:
    """systemd is asked to wait for a start as long as the database may need."""
    address, heard = systemd
    with (tmp_path / "sojourn.db").open("wb") as made:
        made.truncate(1000 * START_BYTES_PER_SECOND)
    manager = ServiceManager(address)
    service_status.starting(manager, tmp_path)
    status, extended = heard()
    assert "STATUS=starting, with a database of 8000 MiB" == status
    assert f"EXTEND_TIMEOUT_USEC={int((START_SECONDS + 1000) * 1e6)}" == extended
    manager.close()
