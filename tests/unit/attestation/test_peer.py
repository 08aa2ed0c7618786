"""peer.py: the process at the other end, as the kernel recorded it at the connect."""

import errno
import os
import socket
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
from fakes.children import child, peer_of
from harness.looking import OpenFiles
from sojourn.attestation import peer as peer_module
from sojourn.attestation.peer import Peer
from sojourn.attestation.proc_reader import TooManyGroups
from sojourn.attestation.process import Process
from sojourn.errors import AttestationFailed
from sojourn.limits import GROUPS_PER_CALLER

CONNECT = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
"""


FIRST_GROUP = 200_000
GROUPS = """
import os, socket, sys
def be_in(number):
    os.setgroups(range(200_000, 200_000 + number))
    print("in", number, flush=True)
be_in(int(sys.argv[2]))
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
for line in sys.stdin:
    be_in(int(line))
"""


@contextmanager
def connected(listener, number):
    """A process in so many groups, which gets into as many others as it reads, and its connection."""
    with child(sys.executable, "-c", GROUPS, listener.getsockname(), str(number)) as process:
        assert f"in {number}\n".encode() == process.stdout.readline()
        accepted, _ = listener.accept()
        with accepted:
            yield process, accepted


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        listener.listen()
        yield listener


@pytest.fixture
def caller(listener):
    with child(sys.executable, "-c", CONNECT, listener.getsockname()) as process:
        process.stdout.readline()
        yield process


@pytest.fixture
def connection(listener, caller):
    accepted, _ = listener.accept()
    with accepted:
        yield accepted


class TestOfSocket:
    def test_is_the_caller(self, caller, connection):
        """The peer is the process that connected, with its ids."""
        peer = Peer.of_socket(connection)
        assert (caller.pid, os.geteuid(), os.getegid()) == (peer.process.pid, peer.uid, peer.gid)
        assert frozenset(os.getgroups()) == peer.groups
        peer.check_unchanged()
        peer.close()

    def test_closes(self, connection):
        """Closing a peer gives back all that it held."""
        before = OpenFiles()
        Peer.of_socket(connection).close()
        assert [] == before.opened_since()

    def test_one_that_has_gone(self, caller, connection):
        """A caller that has ended since cannot be pinned, and nothing is left behind."""
        caller.kill()
        caller.wait()
        before = OpenFiles()
        with pytest.raises(AttestationFailed):
            Peer.of_socket(connection)
        assert [] == before.opened_since()

    def test_the_end_is_seen(self, caller, connection):
        """When the caller ends later, that shows."""
        peer = Peer.of_socket(connection)
        caller.kill()
        caller.wait()
        with pytest.raises(AttestationFailed):
            peer.check_unchanged()
        peer.close()

    def test_without_pidfd_of_the_socket(self, caller, connection, monkeypatch):
        """On a kernel that does not give a socket's pidfd the process is pinned by its pid."""
        monkeypatch.setattr(peer_module, "SO_PEERPIDFD", 9999)
        peer = Peer.of_socket(connection)
        assert caller.pid == peer.process.pid
        peer.close()

    @pytest.mark.parametrize("number", [errno.ESRCH, errno.EINVAL, errno.EMFILE])
    def test_that_the_kernel_does_not_pin(self, connection, number):
        """A kernel that pins callers and does not pin this one has none: its pid may be another's by now."""

        class Gone:
            def getsockopt(self, level, option, *size):
                if option == peer_module.SO_PEERPIDFD:
                    raise OSError(number, os.strerror(number))
                return connection.getsockopt(level, option, *size)

        before = OpenFiles()
        with pytest.raises(AttestationFailed, match="has gone, or cannot be pinned"):
            Peer.of_socket(Gone())
        assert [] == before.opened_since()

    def test_whether_the_kernel_pins_callers(self, monkeypatch):
        """It does as far as it has the option, and finding out leaves nothing behind."""
        before = OpenFiles()
        assert peer_module.kernel_pins_callers() == (tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 5))
        monkeypatch.setattr(peer_module, "SO_PEERPIDFD", 9999)
        assert not peer_module.kernel_pins_callers()
        assert [] == before.opened_since()

    def test_without_groups_of_the_socket(self, connection, monkeypatch):
        """Without the kernel's record of the caller's groups there is no peer."""
        monkeypatch.setattr(peer_module, "SO_PEERGROUPS", 9999)
        with pytest.raises(AttestationFailed, match="groups"):
            Peer.of_socket(connection)

    @pytest.mark.root
    @pytest.mark.parametrize("number", [257, GROUPS_PER_CALLER])
    def test_many_groups(self, listener, number):
        """So many groups as a caller may be in are the kernel's record of the connect, however few Python asks for."""
        with connected(listener, number) as (_, connection):
            peer = Peer.of_socket(connection)
            assert frozenset(range(FIRST_GROUP, FIRST_GROUP + number)) == peer.groups
            peer.check_unchanged()
            peer.close()

    @pytest.mark.root
    def test_too_many_groups(self, listener):
        """A process in more groups is refused, and nothing is left behind."""
        with connected(listener, GROUPS_PER_CALLER + 1) as (_, connection):
            before = OpenFiles()
            with pytest.raises(TooManyGroups, match="more than 1000 groups"):
                Peer.of_socket(connection)
            assert [] == before.opened_since()

    @pytest.mark.root
    def test_groups_that_change(self, listener):
        """The groups are those of the connect, whatever the process is in later."""
        with connected(listener, 3) as (process, connection):
            peer = Peer.of_socket(connection)
            process.stdin.write(b"1\n")
            process.stdin.flush()
            assert b"in 1\n" == process.stdout.readline()
            peer.check_unchanged()
            assert frozenset(range(FIRST_GROUP, FIRST_GROUP + 3)) == peer.groups
            peer.close()

    def test_another_process_of_the_same_pid(self, connection, monkeypatch):
        """A pidfd that names another pid than the connect's is refused, and nothing is left behind."""
        monkeypatch.setattr(peer_module, "_fdinfo_pid", lambda _: -1)
        before = OpenFiles()
        with pytest.raises(AttestationFailed):
            Peer.of_socket(connection)
        assert [] == before.opened_since()


class TestOfPid:
    def test_has_what_the_process_has_now(self):
        """An operator may ask about a process by its pid."""
        with child() as process:
            peer = peer_of(process)
            assert (process.pid, os.geteuid()) == (peer.process.pid, peer.uid)
            peer.close()

    def test_of_none(self):
        """Of nobody there is no peer."""
        with pytest.raises(AttestationFailed):
            Peer.of_pid(2**22 + 1)


@pytest.mark.parametrize("change", [{"uid": 12345}, {"gid": 12345}])
def test_changed_ids(change):
    """A process whose ids are not those of its connect is refused."""
    with child() as process:
        peer = replace(peer_of(process), **change)
        with pytest.raises(AttestationFailed, match="changed"):
            peer.check_unchanged()
        peer.close()


def test_peers_are_told_apart_by_connection():
    """Two connections of one process are two peers."""
    own = [Peer(Process.open(os.getpid()), 0, 0, frozenset(), None) for _ in range(2)]
    assert 2 == len(set(own))
    for peer in own:
        peer.close()
