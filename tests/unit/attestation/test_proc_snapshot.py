"""proc_snapshot.py: what is read of a process once, for all its connections in one step."""

import os
import sys
from collections import Counter

import pytest
from fakes.children import child
from sojourn.attestation.peer import Peer
from sojourn.attestation.proc_snapshot import Looks
from sojourn.attestation.process import Process
from sojourn.errors import AttestationFailed
from sojourn.limits import LOOK_SHARED_SECONDS

EXECS = "import os; print(flush=True); os.read(0, 1); os.execvp('cat', ['cat'])"


@pytest.fixture
def reads(monkeypatch):
    """How often each file of /proc was read."""
    counted = Counter()
    for name in ("ids", "program", "cgroup"):
        real = getattr(Process, name)

        def read(process, name=name, real=real):
            counted[name] += 1
            return real(process)

        monkeypatch.setattr(Process, name, read)
    return counted


@pytest.fixture
def pair():
    """Two connections of one process, and the process."""
    with child(sys.executable, "-c", EXECS) as process:
        process.stdout.readline()
        peers = [Peer.of_pid(process.pid) for _ in range(2)]
        yield *peers, process
        for peer in peers:
            peer.close()


def check(peer, looks):
    look = looks.of(peer)
    peer.check_same(look.ids, look.program)
    return look


def test_one_look_for_all_connections_of_a_process(pair, reads):
    """What is true of a process is read once for all its connections."""
    looks = Looks(lambda: 0.0)
    assert check(pair[0], looks) is check(pair[1], looks)
    assert {"ids": 1, "program": 1, "cgroup": 1} == reads


def test_no_longer_than_a_moment(pair, reads):
    """What was read a moment ago is read anew, however long a step of the loop takes."""
    now = [5.0]
    looks = Looks(lambda: now[0])
    first = check(pair[0], looks)
    now[0] += LOOK_SHARED_SECONDS / 2
    assert first is check(pair[1], looks)
    now[0] += LOOK_SHARED_SECONDS
    assert first is not check(pair[1], looks)
    assert {"ids": 2, "program": 2, "cgroup": 2} == reads


def test_where_a_process_is(pair, reads):
    """What a look at a caller has found is not read again for the tasks that it holds, but for a moment alone."""
    now = [5.0]
    looks, peer = Looks(lambda: now[0]), pair[0]
    look = looks.of(peer)
    assert (look.program, look.cgroup) == looks.place_of(peer.process)
    assert {"ids": 1, "program": 1, "cgroup": 1} == reads
    now[0] += 2 * LOOK_SHARED_SECONDS
    assert [(look.program, look.cgroup)] * 2 == [looks.place_of(pair[1].process), looks.place_of(peer.process)]
    assert {"ids": 1, "program": 2, "cgroup": 2} == reads


def test_each_process_has_its_own(pair):
    """Of another process its own is read."""
    looks, (_, other, _) = Looks(lambda: 0.0), pair
    with child() as process:
        peer = Peer.of_pid(process.pid)
        assert os.stat(f"/proc/{process.pid}/exe").st_ino == check(peer, looks).program.inode
        assert check(peer, looks) is not check(other, looks)
        peer.close()


def test_one_that_ends_after_the_look(pair):
    """Whether the process lives is asked for each connection, behind the look: one that has just ended is refused."""
    looks, (first, second, process) = Looks(lambda: 0.0), pair
    check(first, looks)
    process.kill()
    process.wait()
    with pytest.raises(AttestationFailed, match="gone"):
        check(second, looks)


def test_the_next_step_looks_anew(pair):
    """A process that has become another program since is refused on each of its connections."""
    first, second, process = pair
    check(first, Looks())
    process.stdin.write(b"x\n")
    process.stdin.flush()
    process.stdout.readline()  # cat has begun, and gives the line back
    looks = Looks()
    for peer in (first, second):
        with pytest.raises(AttestationFailed, match="connect again"):
            check(peer, looks)


@pytest.mark.parametrize("change", [{"uid": 12345}, {"gid": 12345}])
def test_each_connection_has_its_own_ids(pair, change):
    """The look is compared with what each connection began with: one may have begun under other ids."""
    looks, (first, second, _) = Looks(), pair
    for name, value in change.items():
        setattr(second, name, value)
    check(first, looks)
    with pytest.raises(AttestationFailed, match="user or group"):
        check(second, looks)


def test_nothing_is_kept_of_one_that_cannot_be_read(pair):
    """A process of which nothing can be read is refused, each time."""
    looks, (first, second, process) = Looks(lambda: 0.0), pair
    process.kill()
    process.wait()
    for peer in (first, second):
        with pytest.raises(AttestationFailed):
            check(peer, looks)
