"""held_sockets.py: listening sockets that come from systemd, as real ones of every kind."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sojourn.errors import CannotStart
from sojourn.net import held_sockets

MODES = {"agent": 0o777, "admin": 0o600}


class Given:
    """Sockets in a row of descriptors, as systemd gives them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first = 200
        self._count = 0

    def give(self, descriptor: int) -> None:
        """Put a descriptor into the row."""
        os.dup2(descriptor, self.first + self._count, inheritable=True)
        self._count += 1

    def listen(self, name: str, mode: int | None = None, kind: int = socket.SOCK_STREAM) -> Path:
        path = self.folder / f"{name}.sock"
        with socket.socket(socket.AF_UNIX, kind) as made:
            made.bind(str(path))
            path.chmod(MODES.get(name, 0o777) if mode is None else mode)
            if kind != socket.SOCK_DGRAM:
                made.listen()
            self.give(made.fileno())
        return path

    def environment(self, names: str, **other: str) -> dict[str, str]:
        return {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(self._count),
            "LISTEN_FDNAMES": names,
            **other,
        }

    def take(self, names: str, **other: str) -> dict[str, held_sockets.HeldSocket]:
        return held_sockets.of_environment(self.environment(names, **other), self.first)

    def close(self) -> None:
        for number in range(self.first, self.first + self._count):
            try:
                os.close(number)
            except OSError:
                continue


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    made = Given(tmp_path)
    yield made
    made.close()


class TestTaken:
    def test_both(self, given: Given) -> None:
        """Both sockets are taken by their names, in whatever order; they listen, do not block, and no child has them."""
        admin, agent = given.listen("admin"), given.listen("agent")
        environment = given.environment("admin:agent", PATH="/bin")
        held = held_sockets.of_environment(environment, given.first)
        assert {"PATH": "/bin"} == environment
        assert {"agent": agent, "admin": admin} == {name: each.path for name, each in held.items()}
        for each in held.values():
            assert not each.listener.get_inheritable()
            with pytest.raises(BlockingIOError):
                each.listener.accept()
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(each.path))
                each.listener.accept()[0].close()
            each.listener.close()
        assert agent.is_socket()

    def test_those_of_another(self, given: Given) -> None:
        """What systemd gave to another process, such as our parent, is not ours."""
        given.listen("agent")
        assert {} == given.take("agent", LISTEN_PID="1")

    def test_none(self) -> None:
        """Without the variables there are none."""
        assert {} == held_sockets.of_environment({})


class TestRefused:
    @pytest.mark.parametrize(
        ("names", "count", "why"),
        [
            ("sojourn-agent.socket", "1", "FileDescriptorName= of its unit is agent or admin"),
            ("", "1", "0 names for 1 sockets"),
            ("agent:admin", "1", "2 names for 1 sockets"),
            ("agent", "one", "LISTEN_FDS"),
        ],
    )
    def test_names(self, given: Given, names: str, count: str, why: str) -> None:
        """A socket that has no name, or one which the agent does not know, is refused with what to write in its unit."""
        given.listen("agent")
        with pytest.raises(CannotStart, match=why):
            given.take(names, LISTEN_FDS=count)

    def test_twice(self, given: Given) -> None:
        """Two sockets of one name are refused."""
        given.listen("agent")
        given.listen("other")
        with pytest.raises(CannotStart, match="two sockets named 'agent'"):
            given.take("agent:agent")

    @pytest.mark.parametrize(
        ("name", "mode", "why"), [("agent", 0o770, "SocketMode=0777"), ("admin", 0o660, "SocketMode=0600")]
    )
    def test_modes(self, given: Given, name: str, mode: int, why: str) -> None:
        """A public socket that some may not use, and an admin socket that others may, are refused."""
        given.listen(name, mode)
        with pytest.raises(CannotStart, match=why):
            given.take(name)

    @pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
    def test_kinds(self, given: Given, kind: int) -> None:
        """A socket that takes no streams is refused."""
        given.listen("agent", kind=kind)
        with pytest.raises(CannotStart, match="ListenStream="):
            given.take("agent")

    def test_a_connection(self, given: Given) -> None:
        """A connection in the place of what listens (Accept=yes) is refused."""
        one, other = socket.socketpair()
        with one, other:
            given.give(one.fileno())
            with pytest.raises(CannotStart):
                given.take("agent")

    def test_other_families(self, given: Given) -> None:
        """TCP and abstract sockets are refused: callers are attested by sockets that have a file."""
        for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, f"\0sojourn-test-{os.getpid()}")):
            row = Given(given.folder)
            with socket.socket(family) as made:
                made.bind(address)
                made.listen()
                row.give(made.fileno())
            with pytest.raises(CannotStart, match="has no path"):
                row.take("agent")
            row.close()

    def test_no_socket(self, given: Given) -> None:
        """A pipe is refused."""
        reads, writes = os.pipe()
        given.give(reads)
        os.close(reads)
        os.close(writes)
        with pytest.raises(CannotStart, match="ListenStream="):
            given.take("agent")

    def test_nothing(self, given: Given) -> None:
        """A descriptor that is closed is refused."""
        with pytest.raises(CannotStart, match="is not there"):
            given.take("agent", LISTEN_FDS="1")

    def test_a_file_that_is_gone(self, given: Given) -> None:
        """A socket whose file was removed is refused with the command that makes it anew."""
        given.listen("agent").unlink()
        with pytest.raises(CannotStart, match=r"systemctl restart sojourn-agent\.socket"):
            given.take("agent")

    def test_something_else_at_the_path(self, given: Given) -> None:
        """A file that stands where the socket was is refused."""
        path = given.listen("agent")
        path.unlink()
        path.touch()
        with pytest.raises(CannotStart, match="something else stands"):
            given.take("agent")

    @pytest.mark.root
    def test_another_owner(self, given: Given) -> None:
        """A socket of a third user's is refused."""
        os.chown(given.listen("agent"), 4711, 4711)
        with pytest.raises(CannotStart, match="user 4711"):
            given.take("agent")
