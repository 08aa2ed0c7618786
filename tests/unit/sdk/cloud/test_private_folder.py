"""The private folder, and what becomes of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.looking import until
from sojourn.sdk.cloud import private_dir
from sojourn.sdk.cloud.private_dir import private_folder

HOLDER = """
import sys, time
from pathlib import Path
from sojourn.sdk.cloud import private_dir
if sys.argv[2] == "python":
    private_dir._SHELL = "/nowhere/sh"
with private_dir.private_folder("sojourn-test-", [Path(sys.argv[1])]) as folder:
    (folder / "file").write_text("x")
    Path(sys.argv[1]).write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


class TestFolder:
    def test_private_and_gone(self, tmp_path: Path) -> None:
        """The folder is of this user alone; afterwards it is gone, and so are the files that go with it."""
        other = tmp_path / "other"
        with private_folder("sojourn-test-", [other]) as folder:
            assert 0o700 == folder.stat().st_mode & 0o777
            (folder / "file").write_text("x")
            other.write_text("x")
        assert not folder.exists()
        assert not other.exists()

    def test_in_the_folder_of_the_session(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system has a folder for the user's session, it is there; but only in one that is the user's alone."""
        tmp_path.chmod(0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        with private_folder("sojourn-test-") as folder:
            assert tmp_path == folder.parent
        tmp_path.chmod(0o777)
        with private_folder("sojourn-test-") as folder:
            assert tmp_path != folder.parent

    @pytest.mark.parametrize("waiter", ["shell", "python"])
    def test_killed(self, tmp_path: Path, waiter: str) -> None:
        """When the process is killed the folder goes all the same, and the file, whether there is a shell or not."""
        other = tmp_path / "it's $other; file"
        command = [sys.executable, "-c", HOLDER, str(other), waiter]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            folder = Path(holder.stdout.readline().strip())
            assert folder.exists()
            assert other.exists()
            holder.send_signal(signal.SIGKILL)
            holder.wait(timeout=20)
        until(lambda: not folder.exists() and not other.exists(), "both are gone")

    def test_somebody_elses_file_afterwards(self, tmp_path: Path) -> None:
        """A file that is made under the same name after the end is left alone."""
        other = tmp_path / "other"
        with private_folder("sojourn-test-", [other]) as folder:
            other.write_text("ours")
        other.write_text("theirs")
        with private_folder("sojourn-test-"):
            assert not folder.exists()
        assert "theirs" == other.read_text()

    def test_no_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """If nothing can wait for the end, there is no folder left either."""
        made: list[str] = []
        make = private_dir.tempfile.mkdtemp
        monkeypatch.setattr(private_dir.tempfile, "mkdtemp", lambda **options: made.append(make(**options)) or made[-1])
        monkeypatch.setattr(private_dir, "_WAIT_IN_SHELL", "exit 3")
        with pytest.raises(subprocess.CalledProcessError), private_folder("sojourn-test-"):
            pass
        assert [False] == [os.path.exists(each) for each in made]
