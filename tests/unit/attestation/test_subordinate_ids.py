"""subordinate_ids.py: who may be many users counts as one."""

import asyncio
import os
import pwd
import time

import pytest
from harness.looking import WAIT_SECONDS
from sojourn.attestation import subordinate_ids as module
from sojourn.attestation.subordinate_ids import Subordinates

PERSON, OTHER = 4001, 4002


@pytest.fixture
def file(tmp_path):
    return tmp_path / "subuid"


def read(file, text):
    file.write_text(text)
    found = Subordinates(file)
    found.look()
    return found


class TestOwner:
    def test_of_a_range(self, file):
        """Each uid of a range is its user's, and those before and behind it are their own."""
        found = read(file, f"{PERSON}:100000:65536\n{OTHER}:165536:65536\n")
        uids = [99_999, 100_000, 165_535, 165_536, 231_071, 231_072, PERSON]
        assert [99_999, PERSON, PERSON, OTHER, OTHER, 231_072, PERSON] == [found.owner(uid) for uid in uids]

    def test_by_name(self, file, monkeypatch):
        """A user may be named, by the name of the account."""
        account = pwd.struct_passwd(("ann", "x", PERSON, PERSON, "", "/", ""))
        monkeypatch.setattr(module.pwd, "getpwnam", {"ann": account}.__getitem__)
        assert PERSON == read(file, "ann:100000:65536\nbob:165536:65536\n").owner(100_001)

    def test_ranges_in_each_other(self, file):
        """A range within another one does not hide what is behind it."""
        found = read(file, f"{PERSON}:100000:1000\n{OTHER}:100100:10\n")
        assert [OTHER, PERSON, 101_000] == [found.owner(uid) for uid in (100_105, 100_500, 101_000)]

    @pytest.mark.parametrize("name", ["root", "0", "999", "no-such-account"])
    def test_for_containers(self, file, name):
        """Ranges of root, of system accounts and of nobody are an engine's for its containers: those count by uid."""
        assert 100_001 == read(file, f"{name}:100000:65536\n").owner(100_001)

    @pytest.mark.parametrize(
        "line", ["", "#", "4001", "4001:", "4001:100000", "4001:x:1", "4001:100000:0", "4001:100000:-5", "\x00:1:2"]
    )
    def test_lines_that_are_no_range(self, file, line):
        """What is no range changes nothing, and hides none of the others."""
        assert OTHER == read(file, f"{line}\n{OTHER}:100000:10\n").owner(100_001)


class TestLook:
    def test_a_change(self, file):
        """A range that is added or taken away counts with the next look."""
        found = read(file, "")
        for text, owner in ((f"{PERSON}:100000:10\n", PERSON), (f"{OTHER}:100000:100\n", OTHER), ("", 100_001)):
            file.write_text(text)
            found.look()
            assert owner == found.owner(100_001)

    def test_no_file(self, file):
        """Without a file, or when it has gone, every uid is its own."""
        found = read(file, f"{PERSON}:100000:10\n")
        file.unlink()
        found.look()
        assert 100_001 == found.owner(100_001)

    def test_that_cannot_be_read(self, file):
        """While the file cannot be read, what was known of it counts."""
        found = read(file, f"{PERSON}:100000:10\n")
        file.unlink()
        file.symlink_to(file)
        found.look()
        assert PERSON == found.owner(100_001)

    async def test_names_that_are_not_told(self, file, monkeypatch):
        """A directory that does not tell names holds the start up for a while only, and counts when it does."""
        monkeypatch.setattr(module, "SUBORDINATE_START_SECONDS", 0.05)
        monkeypatch.setattr(module.pwd, "getpwnam", lambda _: time.sleep(0.3) or pwd.getpwuid(os.getuid()))
        file.write_text(f"ann:100000:10\n{PERSON}:200000:10\n")
        found = Subordinates(file)
        await found.start()
        assert 200_001 == found.owner(200_001)
        async with asyncio.timeout(WAIT_SECONDS):
            while found.owner(200_001) != PERSON:
                await asyncio.sleep(0.02)
