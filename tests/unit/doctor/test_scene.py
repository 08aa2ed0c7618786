"""doctor/scene.py: which process has a data folder, where the agent's user may have put anything in the place of its lock."""

import os
from pathlib import Path

import pytest
from fakes.doctors import PID, process_in, put, scene_of


def test_found_by_the_lock(tmp_path: Path) -> None:
    """An agent that does not answer is found by the number in its lock."""
    process = process_in(tmp_path)
    put(tmp_path / "data" / "lock", f"{PID}\n")
    assert process == scene_of(tmp_path).process


def test_through_a_link(tmp_path: Path) -> None:
    """A lock that is a link is not read: what it leads to may be what the agent's user may not read."""
    process_in(tmp_path)
    put(tmp_path / "other", f"{PID}\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lock").symlink_to(tmp_path / "other")
    assert scene_of(tmp_path).process is None


@pytest.mark.timeout(10)
def test_a_pipe(tmp_path: Path) -> None:
    """A lock that is a pipe holds nobody up."""
    (tmp_path / "data").mkdir()
    os.mkfifo(tmp_path / "data" / "lock")
    assert scene_of(tmp_path).process is None


def test_no_more_than_its_start(tmp_path: Path) -> None:
    """Of a lock that is huge the start alone is read, and nothing that is no number names a process."""
    process = process_in(tmp_path)
    lock = put(tmp_path / "data" / "lock", f"{PID}" + " " * 40 + "7")
    assert process == scene_of(tmp_path).process
    os.truncate(lock, 0)
    os.truncate(lock, 2**40)
    assert scene_of(tmp_path).process is None
    lock.write_bytes(b"\xff1234")
    assert scene_of(tmp_path).process is None
