"""mounts.py: mount tables as the kernel lists them. The mounts are real, and gone with their process."""

import os

import pytest
from harness.inmates import inmate
from sojourn_attestors.kernel.mounts import mounts_of

pytestmark = pytest.mark.full


def test_of_this_machine():
    """Each mount has its place, its kind, and the device that files there are on."""
    found = [mount for mount in mounts_of("self") if mount.point == "/proc" and mount.kind == "proc"]
    assert [("/", os.stat("/proc").st_dev)] == [(mount.root, mount.device) for mount in found]


@pytest.mark.root
@pytest.mark.parametrize("name", ["two words", "a\ttab", "a\nline", "back\\slash", "back\\040slash", "#", " - tmpfs "])
def test_odd_names(tmp_path, name):
    """A name is told as it is, whatever the kernel has to escape in it."""
    source, target = tmp_path / name, tmp_path / "target"
    source.mkdir()
    target.mkdir()
    with inmate((), "--mount", prepare=f"mount --bind '{source}' '{target}'") as process:
        (found,) = [mount for mount in mounts_of(process.pid) if mount.point == str(target)]
        assert found.root.endswith(
            f"/{tmp_path.name}/{name}"
        )  # within its file system, which may be that of /tmp alone
        assert source.stat().st_dev == found.device
