"""service_manager.py: what the agent tells systemd, over real sockets."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.looking import WAIT_SECONDS
from sojourn.errors import CannotStart, InvalidConfig
from sojourn.limits import SERVICE_MESSAGES_WAITING
from sojourn.runtime.service_manager import ServiceManager


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """Where messages come in."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(WAIT_SECONDS)
        yield made


def manager_at(address: str, **more: str) -> ServiceManager:
    return ServiceManager.of_environment({"NOTIFY_SOCKET": address, **more})


class TestMessages:
    def test_a_message(self, systemd: socket.socket) -> None:
        """What is told arrives as one message, an assignment a line."""
        manager = manager_at(systemd.getsockname())
        manager.tell("READY=1", "STATUS=3 entries")
        assert b"READY=1\nSTATUS=3 entries" == systemd.recv(4096)
        manager.extend_start(1.5)
        assert b"EXTEND_TIMEOUT_USEC=1500000" == systemd.recv(4096)
        manager.close()

    def test_an_abstract_socket(self) -> None:
        """An address that begins with @ is an abstract socket's."""
        name = f"sojourn-test-{os.getpid()}-{threading.get_ident()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(f"\0{name}")
            systemd.settimeout(WAIT_SECONDS)
            manager = manager_at(f"@{name}")
            manager.tell("READY=1")
            assert b"READY=1" == systemd.recv(4096)
            manager.close()

    def test_one_line_stays_one(self, systemd: socket.socket) -> None:
        """A text with line ends in it adds no assignment."""
        manager = manager_at(systemd.getsockname())
        manager.tell("STATUS=refused: a\nMAINPID=1\r\nb\u2028c")
        assert b"STATUS=refused: a MAINPID=1 b c" == systemd.recv(4096)
        manager.close()

    def test_the_reason_of_an_end(self, systemd: socket.socket) -> None:
        """An error that ends the agent is what `systemctl status` shows, and goes on."""
        manager = manager_at(systemd.getsockname())
        with pytest.raises(InvalidConfig), manager.told_of_failure():
            raise InvalidConfig(["a.toml:1: no such key"])
        assert b"STATUS=cannot start: a.toml:1: no such key" == systemd.recv(4096)
        manager.close()

    def test_a_manager_that_does_not_read(self, systemd: socket.socket) -> None:
        """Nothing waits for a busy manager: it is sent the last messages, in their order, when it reads again."""
        manager = manager_at(systemd.getsockname())
        for number in range(2000):
            manager.tell(f"STATUS={number}")
        found = []
        systemd.setblocking(False)
        while True:
            try:
                found.append(int(systemd.recv(4096).partition(b"=")[2]))
            except BlockingIOError:
                if found[-1] == 1999:
                    break
                manager.send_waiting()
        assert found == sorted(found)
        assert list(range(2000 - SERVICE_MESSAGES_WAITING, 2000)) == found[-SERVICE_MESSAGES_WAITING:]
        manager.close()

    def test_a_manager_that_is_gone(self, tmp_path: Path) -> None:
        """A socket at which nobody is harms nothing."""
        manager = manager_at(str(tmp_path / "nowhere"))
        manager.tell("READY=1")
        manager.tell("WATCHDOG=1")
        manager.close()
        manager.tell("STOPPING=1")

    def test_without_a_manager(self) -> None:
        """Where no manager is named nothing is told."""
        manager = ServiceManager.of_environment({})
        assert not manager.listens
        manager.tell("READY=1")
        manager.close()


class TestEnvironment:
    def test_it_is_taken_out(self) -> None:
        """The variables are gone afterwards, and others are not: no child can speak for the agent."""
        environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
        manager = ServiceManager.of_environment(environment)
        assert {"A": "b"} == environment
        assert manager.listens
        manager.close()

    @pytest.mark.parametrize(
        ("usec", "pid", "seconds"),
        [
            ("20000000", "own", 20.0),
            ("1500000", "", 1.5),
            ("20000000", "1", 0.0),
            ("", "own", 0.0),
        ],
    )
    def test_whose_watchdog(self, usec: str, pid: str, seconds: float) -> None:
        """The watchdog is that of the process which WATCHDOG_PID names, or whose variables have no such name."""
        manager = manager_at("/x", WATCHDOG_USEC=usec, WATCHDOG_PID=pid.replace("own", str(os.getpid())))
        assert seconds == manager.watchdog_seconds
        manager.close()

    @pytest.mark.parametrize(
        ("address", "usec"), [("vsock:2:1234", ""), ("relative", ""), ("/x", "soon"), ("/x", "0"), ("/x", "²")]
    )
    def test_what_cannot_be_gone_by(self, address: str, usec: str) -> None:
        """An address or a time that is none is refused: systemd would wait in vain."""
        with pytest.raises(CannotStart, match=r"NOTIFY_SOCKET|WATCHDOG_USEC"):
            manager_at(address, WATCHDOG_USEC=usec)
