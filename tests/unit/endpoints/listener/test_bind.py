"""bind.py: binding a socket removes nothing but our own stale socket."""

import os
import socket
import stat
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
from harness.looking import OpenFiles
from sojourn.attestation import peer
from sojourn.endpoints.listener.bind import bind, listen, unbind
from sojourn.errors import CannotStart
from sojourn.limits import SOCKET_PATH_MAX_BYTES
from sojourn.net.held_sockets import HeldSocket
from sojourn.net.sockets import take_no_descriptors
from structlog.testing import capture_logs


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "agent.sock"


@pytest.fixture
def bound(path):
    listener = bind(path, 0o600)
    yield listener
    listener.close()


def stale(path):
    """A socket at which nobody answers."""
    path.parent.mkdir(exist_ok=True)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()


class TestBind:
    @pytest.mark.parametrize("mode", [0o600, 0o777, 0o660])
    @pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
    def test_mode_is_exact(self, path, mode, umask):
        """The socket has exactly the mode that was asked for, whatever the umask is, which stays."""
        before = os.umask(umask)
        try:
            bind(path, mode).close()
            assert umask == os.umask(umask)
        finally:
            os.umask(before)
        assert mode == stat.S_IMODE(path.stat().st_mode)

    def test_answers(self, path, bound):
        """The socket listens, does not block, and is not inherited."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            accepted, _ = bound.accept()
            accepted.close()
        assert (False, False) == (bound.getblocking(), bound.get_inheritable())

    def test_nothing_else_is_left(self, path, bound):
        """Beside the socket nothing is left in its folder."""
        assert ["agent.sock"] == os.listdir(path.parent)

    def test_makes_the_folder(self, path, bound):
        """The folder is made so that others get through, whatever the umask is."""
        assert 0o755 == stat.S_IMODE(path.parent.stat().st_mode)

    def test_our_own_stale_socket(self, path):
        """A socket of our own at which nobody answers is replaced."""
        stale(path)
        bind(path, 0o600).close()

    def test_a_stale_scratch_socket(self, path):
        """A socket that a crash left under the scratch name does no harm."""
        stale(path.with_name("agent.sock.new"))
        bind(path, 0o600).close()
        assert ["agent.sock"] == os.listdir(path.parent)

    def test_one_that_answers(self, path, bound):
        """A socket at which somebody answers is left alone."""
        with pytest.raises(CannotStart, match="another agent"):
            bind(path, 0o600)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    @pytest.mark.parametrize(
        "make",
        [
            lambda path: path.write_text("mine"),
            lambda path: path.mkdir(),
            os.mkfifo,
            lambda path: path.symlink_to("/nowhere"),
            lambda path: path.symlink_to(path.parent),
        ],
        ids=["file", "folder", "FIFO", "dangling link", "link"],
    )
    @pytest.mark.parametrize("name", ["agent.sock", "agent.sock.new"])
    def test_anything_else_is_left_alone(self, path, make, name):
        """What is no socket is never removed, at the path or at the scratch name."""
        path.parent.mkdir()
        there = path.with_name(name)
        make(there)
        number, before = os.lstat(there).st_ino, OpenFiles()
        with pytest.raises(CannotStart):
            bind(path, 0o600)
        assert (number, []) == (os.lstat(there).st_ino, before.opened_since())
        assert [name] == os.listdir(path.parent)

    def test_a_link_to_a_stale_socket(self, path, tmp_path):
        """A link to a stale socket is a link: it is left alone, and so is the socket."""
        stale(tmp_path / "other.sock")
        path.parent.mkdir()
        path.symlink_to(tmp_path / "other.sock")
        with pytest.raises(CannotStart):
            bind(path, 0o600)
        assert path.is_symlink()
        assert (tmp_path / "other.sock").is_socket()

    @pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
    def test_a_folder_that_others_write(self, path, mode):
        """A folder in which others can put a socket in our place, if only once ours is gone, is refused."""
        path.parent.mkdir()
        path.parent.chmod(mode)
        with pytest.raises(CannotStart, match="chmod"):
            bind(path, 0o600)

    @pytest.mark.root
    @pytest.mark.root
    def test_a_folder_of_another_user_s(self, path):
        """A folder of another user's is refused, by root too."""
        path.parent.mkdir()
        os.chown(path.parent, 12345, 12345)
        with pytest.raises(CannotStart, match="belongs to user 12345"):
            bind(path, 0o600)

    @pytest.mark.root
    @pytest.mark.root
    def test_a_socket_of_another_user_s(self, path):
        """A stale socket of another user's is left alone, by root too."""
        stale(path)
        os.chown(path, 12345, 12345)
        with pytest.raises(CannotStart, match="belongs to user 12345"):
            bind(path, 0o600)
        assert path.is_socket()

    def test_longest_path(self, tmp_path):
        """A path as long as the scratch name allows is bound; one byte more is refused with what to do."""
        room = SOCKET_PATH_MAX_BYTES - len(".new") - len(os.fsencode(tmp_path)) - 1
        if room < 1:
            pytest.skip("the temporary folder's own path is too long")
        bind(tmp_path / ("x" * room), 0o600).close()
        with pytest.raises(CannotStart, match="shorter"):
            bind(tmp_path / ("x" * (room + 1)), 0o600)

    def test_no_folder_can_be_made(self, tmp_path):
        """A folder that cannot be made is said, with the reason."""
        (tmp_path / "file").touch()
        with pytest.raises(CannotStart, match="cannot make the folder"):
            bind(tmp_path / "file" / "run" / "x.sock", 0o600)


class TestUnbind:
    def test_removes_it(self, path):
        """The socket is removed when it is closed."""
        unbind(path, bind(path, 0o600))
        assert [] == os.listdir(path.parent)

    def test_not_somebody_elses(self, path):
        """A socket at which somebody else answers by now is left alone."""
        first = bind(path, 0o600)
        path.unlink()
        second = bind(path, 0o600)
        unbind(path, first)
        assert path.is_socket()
        second.close()

    def test_gone_already(self, path):
        """A socket that somebody removed is no error."""
        listener = bind(path, 0o600)
        path.unlink()
        unbind(path, listener)
        assert -1 == listener.fileno()

    def test_not_a_file(self, path):
        """A file that stands there now is left alone."""
        listener = bind(path, 0o600)
        path.unlink()
        path.write_text("mine")
        unbind(path, listener)
        assert "mine" == Path(path).read_text()


class TestDescriptors:
    """What a peer sends along is closed in the reader's own thread if nobody takes it, for as long as the peer likes."""

    @pytest.fixture
    def client(self, path, bound):
        if not take_no_descriptors(bound):
            pytest.skip("needs Linux 6.16 or newer, which can refuse descriptors")
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(str(path))
            yield connected

    def test_none_is_taken_before_the_accept(self, client):
        """A descriptor that is sent to a caller's place in the backlog is refused by the kernel."""
        with pytest.raises(PermissionError):
            socket.send_fds(client, [b"GET"], [0])

    def test_none_is_taken_after_it(self, client, bound):
        """A descriptor that is sent on an accepted connection is refused too; what is sent without one comes through."""
        bound.setblocking(True)
        accepted, _ = bound.accept()
        with accepted:
            with pytest.raises(PermissionError):
                socket.send_fds(client, [b"GET"], [0])
            client.sendall(b"GET")
            assert b"GET" == accepted.recv(10)


class TestTheWayThere:
    @pytest.fixture
    def said(self, monkeypatch, tmp_path):
        """What is logged when another user than root binds below a folder of this mode."""

        def bound_below(mode):
            monkeypatch.setattr(os, "geteuid", lambda: 4711)
            above = tmp_path / "above"
            above.mkdir()
            above.chmod(mode)
            path = above / "own" / "agent.sock"
            path.parent.mkdir(0o755)
            os.chown(path.parent, 4711, 4711)
            with capture_logs() as logs:
                bind(path, 0o600).close()
            return [(each["event"], each["reason"]) for each in logs]

        return bound_below

    @pytest.mark.root
    def test_where_third_users_believe_it(self, said):
        """In a folder that root made for the agent's user nothing is said."""
        assert [] == said(0o755)

    @pytest.mark.root
    def test_where_they_do_not(self, said, tmp_path):
        """In a folder that the user made in one like /tmp the agent listens, and says that others will not call."""
        ((event, reason),) = said(0o1777)
        assert "socket_not_believed" == event
        assert f"in a folder that others may write, '{tmp_path}/above'" in reason


class TestHeld:
    @pytest.fixture
    def held(self, tmp_path):
        """A socket of systemd's in which nobody has waited yet."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
            listener.bind(str(tmp_path / "agent.sock"))
            listener.listen()
            yield HeldSocket(tmp_path / "agent.sock", listener)

    @contextmanager
    def caller(self, held):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(20)
            caller.connect(str(held.path))
            yield caller

    def answered(self, held, caller):
        """Whether the agent has the connection, and answers."""
        accepted, _ = held.listener.accept()
        with accepted:
            accepted.send(b"x")
        return caller.recv(1) == b"x"

    async def test_waits(self, held):
        """Who has waited in a socket of systemd's is there for the agent, since the kernel knows which process it was."""
        if not peer.kernel_pins_callers():
            pytest.skip("before Linux 6.5 nobody who has waited is served")
        async with AsyncExitStack() as stack:
            with self.caller(held) as caller:
                assert held.listener is listen(held.path, 0o777, held, stack)
                assert self.answered(held, caller)

    async def test_old_kernels(self, held, monkeypatch):
        """Where the kernel has the pid alone of who waits, which may be another's by now, all that wait are sent away,
        and who connects from then on is not.
        """
        monkeypatch.setattr(peer, "SO_PEERPIDFD", 9999)
        async with AsyncExitStack() as stack:
            with self.caller(held) as one, self.caller(held) as two, capture_logs() as logs:
                listen(held.path, 0o777, held, stack)
                assert [b"", b""] == [one.recv(1), two.recv(1)]
                with self.caller(held) as later:
                    assert self.answered(held, later)
            assert [("callers_turned_away", 2)] == [(each["event"], each["count"]) for each in logs]

    async def test_old_kernels_with_nobody_waiting(self, held, monkeypatch):
        """Where nobody waits nothing is said."""
        monkeypatch.setattr(peer, "SO_PEERPIDFD", 9999)
        async with AsyncExitStack() as stack:
            with capture_logs() as logs:
                listen(held.path, 0o777, held, stack)
        assert [] == logs
