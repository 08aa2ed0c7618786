"""agentsocket.py: whose socket is believed. Sockets and folders are real."""

import os
import socket

import pytest
from sojourn.sdk.agentsocket import AgentSocket

ANOTHER = 4711


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    tmp_path.chmod(0o755)
    return "agent.sock"


def listening(path):
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    return made


def looked(found):
    """What a look gives: whether another socket is to be connected to, and why one is not."""
    handle = found.look()
    if handle is not None:
        os.close(handle)
    return handle is not None, found.distrust


def test_ones_own(path):
    """The user's own socket is believed wherever it stands, once for each that stands there."""
    found = AgentSocket(path)
    assert (False, "") == looked(found)
    os.chmod(".", 0o1777)
    with listening(path):
        assert (True, "") == looked(found)
        assert (False, "") == looked(found)
        os.rename(path, "kept")  # so that its number is not given to the next one
    with listening(path):
        assert (True, "") == looked(found)
    os.unlink(path)
    assert (False, "") == looked(found)


@pytest.mark.root
class TestOfAnotherUser:
    @pytest.fixture
    def found(self):
        return AgentSocket("agent.sock", lambda: ANOTHER + 1)

    def test_of_roots(self, path, found):
        """Root's is believed by everybody, in any folder."""
        os.chmod(".", 0o1777)
        with listening(path):
            assert (True, "") == looked(found)

    def test_in_its_own_folder(self, path, found):
        """That of a user of the agent's, in a folder of that user's or root's, is believed, and from then on no other
        user's.
        """
        with listening(path):
            os.chown(path, ANOTHER, ANOTHER)
            os.chown(".", ANOTHER, ANOTHER)
            assert (True, "") == looked(found)
            os.rename(path, "kept")
        with listening(path):
            os.chown(path, ANOTHER + 2, 0)
            known, why = looked(found)
        assert not known
        assert f"was user {ANOTHER}'s before" in why

    @pytest.mark.parametrize(
        ("mode", "owner", "why"),
        [
            (0o1777, 0, "others may write"),
            (0o775, 0, "others may write"),
            (0o755, ANOTHER + 3, f"a folder of user {ANOTHER + 3}'s"),
        ],
    )
    def test_where_others_could_put_it(self, path, found, mode, owner, why):
        """It is not where others may have put it there."""
        with listening(path):
            os.chown(path, ANOTHER, ANOTHER)
            os.chown(".", owner, owner)
            os.chmod(".", mode)
            known, told = looked(found)
        assert not known
        assert f"belongs to user {ANOTHER}" in told
        assert why in told
