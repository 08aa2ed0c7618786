"""confined_mark.py: the mark of commands that get nothing, as the kernel tells it of real processes."""

import subprocess

import pytest
from fakes.children import holder_of
from sojourn.attestation import confined_mark
from sojourn.attestation.confined_mark import is_confined
from sojourn.attestation.peer import Peer
from sojourn.errors import AttestationFailed
from sojourn.errors.oauth import Confined


@pytest.fixture
def sleeping():
    """A process whose limit is set by the test."""
    with subprocess.Popen(["sleep", "600"]) as child:
        yield child
        child.kill()


@pytest.fixture(params=["told at once", "read"])
def either(request, monkeypatch):
    """Whether the kernel lets this process ask for another's limits, or it reads them."""
    if request.param == "read":

        def refuse(*_):
            raise PermissionError

        monkeypatch.setattr(confined_mark.resource, "prlimit", refuse)


@pytest.mark.usefixtures("either")
class TestMark:
    @pytest.mark.parametrize(("limits", "found"), [((0, 0), True), ((0, 1), False), ((7, 2**40), False)])
    def test_limit(self, sleeping, limits, found):
        """A hard limit of 0 is the mark; a soft one, or any other limit that an administrator sets, is not."""
        subprocess.run(["prlimit", f"--pid={sleeping.pid}", f"--locks={limits[0]}:{limits[1]}"], check=True)
        process = holder_of(sleeping)
        assert found is is_confined(process)
        process.close()

    def test_unlimited(self, sleeping):
        """A process as they usually are is not confined."""
        process = holder_of(sleeping)
        assert not is_confined(process)
        process.close()

    def test_of_one_that_has_gone(self, sleeping):
        """Of a process that has gone nothing is believed, whatever was read under its pid."""
        process = holder_of(sleeping)
        sleeping.kill()
        sleeping.wait()
        with pytest.raises(AttestationFailed):
            is_confined(process)
        process.close()


def test_without_limits(sleeping, monkeypatch):
    """What cannot be read is no answer: the process is not taken for a free one."""
    monkeypatch.setattr(confined_mark, "_hard_limit", lambda _: int("nonsense"))
    process = holder_of(sleeping)
    with pytest.raises(AttestationFailed, match="limits"):
        is_confined(process)
    process.close()


def test_peer(sleeping):
    """A peer that is confined says so to whoever asks it, and one that is not says nothing."""
    free = Peer.of_pid(sleeping.pid)
    free.check_not_confined()
    free.close()
    subprocess.run(["prlimit", f"--pid={sleeping.pid}", "--locks=0:0"], check=True)
    peer = Peer.of_pid(sleeping.pid)
    with pytest.raises(Confined, match="never holds a token"):
        peer.check_not_confined()
    peer.close()
