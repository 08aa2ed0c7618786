"""container.py: what an agent in its container image asks before it starts. Namespaces and mounts are real."""

import os
import subprocess
import sys

import pytest
from sojourn.agent import container
from sojourn.attestation import machine as machines
from sojourn.config.model import Config
from sojourn.errors import CannotStart

IN_IMAGE = {"SOJOURN_CONTAINER": "1"}
CHECKS = """
import sys
from sojourn.agent import container
from sojourn.config.model import Config
from sojourn.errors import CannotStart
try:
    container.check(Config(data_dir=sys.argv[1], socket=sys.argv[2] + "/a", admin_socket=sys.argv[2] + "/b"),
                    {"SOJOURN_CONTAINER": "1"})
except CannotStart as error:
    print(error.public)
"""


def config(folder):
    return Config(data_dir=folder / "data", socket=folder / "run" / "a", admin_socket=folder / "run" / "b")


def said(*under, data, run):
    """What the check says where `under` leads; '' if it lets the agent start."""
    command = [*under, sys.executable, "-c", CHECKS, str(data), str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


class TestProcesses:
    def test_outside_of_the_image(self, tmp_path):
        """An agent that is not in the image is asked nothing."""
        container.check(config(tmp_path), {})

    @pytest.mark.full
    @pytest.mark.root
    @pytest.mark.parametrize("between", [(), ("setpriv",)])
    def test_of_its_own(self, tmp_path, between):
        """In a process namespace of its own the agent does not start, and says what to add."""
        own = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
        reasons = {(): "the agent is process 1", ("setpriv",): "process 1 is in the same container"}
        starts = ("sh", "-c", '"$@"; exit $?', "sh") if between else ()
        text = said(*own, *starts, data=tmp_path, run=tmp_path)
        assert ("--pid host" in text, reasons[between] in text) == (True, True), text


class TestFolders:
    @pytest.fixture(autouse=True)
    def _host(self, monkeypatch):
        """As if the container were in the machine's process namespace."""
        monkeypatch.setattr(container, "_others_processes", lambda: "")
        monkeypatch.setattr(container.socket, "gethostname", lambda: "machine7")

    def test_that_are_not_mounted(self, tmp_path, monkeypatch):
        """A data folder in the container's own layer is refused, with the mount to add: keys would go with it."""
        monkeypatch.setattr(container, "outlives_the_mounts", lambda _: False)
        with pytest.raises(CannotStart, match=f"--volume sojourn-data:{tmp_path}/data"):
            container.check(config(tmp_path), IN_IMAGE)

    def test_of_the_sockets(self, tmp_path, monkeypatch):
        """A folder of sockets that is not mounted is refused: nobody would find them."""
        (tmp_path / "data").mkdir()
        monkeypatch.setattr(container, "outlives_the_mounts", lambda folder: folder.endswith("data"))
        with pytest.raises(CannotStart, match=f"--volume {tmp_path}/run:{tmp_path}/run"):
            container.check(config(tmp_path), IN_IMAGE)

    def test_that_cannot_be_written(self, tmp_path, monkeypatch):
        """What is mounted and cannot be written is refused, with the user whose it must be."""
        monkeypatch.setattr(container, "outlives_the_mounts", lambda _: True)
        with pytest.raises(CannotStart, match=f"cannot be written .* user {os.geteuid()}"):
            container.check(config(tmp_path), IN_IMAGE)

    def test_that_are_all_there(self, tmp_path, monkeypatch):
        """With both mounts the agent starts."""
        for name in ("data", "run"):
            (tmp_path / name).mkdir()
        monkeypatch.setattr(container, "outlives_the_mounts", lambda _: True)
        container.check(config(tmp_path), IN_IMAGE)

    def test_a_node_by_the_containers_name(self, tmp_path, monkeypatch):
        """A node is not to have the name of a container, behind which all entries would stay; a name that is set will do."""
        for name in ("data", "run"):
            (tmp_path / name).mkdir()
        monkeypatch.setattr(container, "outlives_the_mounts", lambda _: True)
        monkeypatch.setattr(container.socket, "gethostname", lambda: "0123456789ab")
        with pytest.raises(CannotStart, match="--uts host"):
            container.check(config(tmp_path), IN_IMAGE)
        container.check(config(tmp_path).model_copy(update={"node_name": "machine7"}), IN_IMAGE)

    @pytest.mark.full
    @pytest.mark.root
    @pytest.mark.parametrize(
        ("mount", "outlives"),
        [("mount --bind {0}/other {0}/mounted", True), ("mount -t tmpfs none {0}/mounted", False)],
    )
    def test_what_outlives_the_mounts(self, tmp_path, mount, outlives):
        """A folder of the machine's that is mounted stays when the container ends, and a memory of its own does not."""
        code = "import sys; from sojourn.attestation.machine import outlives_the_mounts as f; print(f(sys.argv[1]))"
        for name in ("mounted", "other"):
            (tmp_path / name).mkdir()
        script = f'{mount.format(tmp_path)} && mkdir {tmp_path}/mounted/below && exec "$@"'
        below = str(tmp_path / "mounted" / "below")
        command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", code, below]
        assert str(outlives) == subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def test_what_is_not_mounted(self):
        """What lies on the agent's own root does not outlive it."""
        assert not machines.outlives_the_mounts("/nowhere")
