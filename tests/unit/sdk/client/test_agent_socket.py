"""agent_socket.py: whose socket is believed. Sockets and folders are real."""

import os
import socket

import pytest
from sojourn.files import path_owners
from sojourn.sdk.client.agent_socket import AgentSocket

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


@pytest.mark.root
class TestTheWayThere:
    @pytest.fixture
    def found(self, path):
        """Of a user's agent, in a folder of that user's which only that user may write: `theirs`."""
        os.mkdir("theirs", 0o755)
        with listening(f"theirs/{path}"):
            for each in (f"theirs/{path}", "theirs"):
                os.chown(each, ANOTHER, ANOTHER)
            yield lambda where: looked(AgentSocket(where, lambda: ANOTHER + 1))

    @staticmethod
    def common(mode=0o1777, owner=0):
        os.mkdir("common")
        os.chmod("common", mode)
        os.chown("common", owner, owner)

    @pytest.mark.parametrize("owner", [ANOTHER, ANOTHER + 2])
    def test_by_anothers_link(self, found, owner):
        """A link in a folder like /tmp counts only if it is root's or one's own: anybody else's leads where they like."""
        self.common()
        os.symlink("../theirs", "common/sojourn")
        os.lchown("common/sojourn", owner, owner)
        known, why = found("common/sojourn/agent.sock")
        assert not known
        assert f"belongs to user {ANOTHER}, in a folder that others may write, '{os.getcwd()}/common'" in why
        os.symlink("common/sojourn/agent.sock", "well-known")  # root's own, by way of theirs
        assert not found("well-known")[0]

    @pytest.mark.parametrize("owner", [0, ANOTHER + 1])
    def test_by_a_trusted_link(self, found, owner):
        """One that is root's or one's own is followed, there and elsewhere, as often as the kernel does."""
        self.common()
        os.symlink(os.path.abspath("theirs"), "common/sojourn")
        os.lchown("common/sojourn", owner, owner)
        os.symlink("common/./sojourn/../theirs/agent.sock", "well-known")
        assert (True, "") == found("common/sojourn/agent.sock")
        assert (True, "") == found("well-known")
        assert (True, "") == found(os.path.abspath("well-known"))
        os.symlink("loop", "loop")
        assert (False, "") == found("loop")

    def test_a_folder_that_another_made(self, found):
        """A folder that a user made in one like /tmp is no place for that user's agent, but one that root made is."""
        self.common()
        os.rename("theirs", "common/sojourn")
        known, why = found("common/sojourn/agent.sock")
        assert not known
        assert "others may write" in why
        os.mkdir("common/roots", 0o755)
        os.rename("common/sojourn", "common/roots/sojourn")
        assert (True, "") == found("common/roots/sojourn/agent.sock")

    @pytest.mark.parametrize(
        ("mode", "owner", "why"),
        [(0o777, 0, "others may write"), (0o775, 0, "others may write"), (0o755, ANOTHER + 2, "a folder of user")],
    )
    def test_far_above(self, found, mode, owner, why):
        """A folder far above it that others may write, or that is a third user's, is no better than its own."""
        self.common(mode, owner)
        os.makedirs("common/a/b", 0o755)
        os.rename("theirs", "common/a/b/theirs")
        known, told = found("common/a/b/theirs/agent.sock")
        assert not known
        assert why in told
        assert f"{os.getcwd()}/common" in told

    def test_of_whom_the_namespace_does_not_name(self, found):
        """The user by whom a user namespace shows all that it has no number for is never the one whose it was before,
        and the error says what that number is.
        """
        unnamed = path_owners.overflow()
        believed = AgentSocket("theirs/agent.sock", lambda: ANOTHER + 1)
        for each in ("theirs/agent.sock", "theirs"):
            os.chown(each, unnamed, unnamed)
        assert (True, "") == looked(believed)
        os.rename("theirs/agent.sock", "theirs/kept")
        os.chmod("theirs", 0o777)
        with listening("theirs/agent.sock"):
            os.chown("theirs/agent.sock", unnamed, unnamed)
            known, why = looked(believed)
        assert not known
        assert f"user {unnamed} (in a user namespace" in why
