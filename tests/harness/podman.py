"""A real Podman, without a registry and without a network, and its service that speaks Docker's API."""

import os

from harness.engines import IMAGE, Engine, clean_path, find_programs
from harness.looking import until
from harness.program import as_user

_PODMAN = "/usr/bin/podman"

_STORAGE = """[storage]
driver = "vfs"
runroot = "{folder}/run"
graphroot = "{folder}/graph"
"""
_ROOTLESS = 'rootless_storage_path = "{folder}/graph"\n'

# the limits are lower than Podman's own: whoever lacks CAP_SYS_RESOURCE cannot raise any
_CONTAINERS = """[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
tmp_dir = "{folder}/tmp"
"""


class Podman(Engine):
    """Podman, for root. While its service is stopped its containers go on.

    With `v2` it runs in a cgroup of its own: at the root of the hierarchy it would move every process of this machine.
    """

    kind = "podman"
    remove_flags = ("--force", "--time", "0")

    def __init__(self, *, v2: bool = False) -> None:
        """`v2`: with cgroup v2 alone, where containers have cgroup namespaces. Skip the test if it is not installed."""
        find_programs(_PODMAN, "/usr/sbin/runc")
        super().__init__(v2=v2)
        self._cgroup = f"/{self.folder.name}"
        self._session = f"{self._cgroup}/session"
        for name, text in (("storage.conf", _STORAGE), ("containers.conf", _CONTAINERS)):
            (self.folder / name).write_text(text.format(folder=self.folder))
        if v2:
            self.run_flags = ("--pids-limit", "0")

    @property
    def cgroup_parents(self) -> tuple[str, ...]:
        return ("/libpod_parent", "/kubepods", self._cgroup)

    def inside(self, *command: str) -> list[str]:
        if not self.v2:
            return super().inside(*command)
        return super().inside(
            "sh", "-c", f'echo $$ >"/sys/fs/cgroup{self._session}/cgroup.procs" && exec "$@"', "sh", *command
        )

    def _make_namespace(self) -> None:
        super()._make_namespace()
        if self.v2:
            (self.cgroup_root / self._session.lstrip("/")).mkdir(parents=True)

    def _remove_cgroups(self) -> None:
        if self.v2:
            own = self.cgroup_root / self._cgroup.lstrip("/")
            (own / "cgroup.kill").write_text("1")
            until(lambda: "populated 0" in (own / "cgroup.events").read_text(), "all have ended")
        super()._remove_cgroups()

    def _engine_argv(self) -> list[str]:
        return [_PODMAN, "system", "service", "--time=0", f"unix://{self.socket}"]

    def _client_argv(self) -> list[str]:
        return [_PODMAN]

    def _environment(self) -> dict[str, str]:
        settings = {
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
        }
        return {**clean_path(), **settings}


class RootlessPodman(Podman):
    """Podman of a user who is not root, where there is cgroup v2 alone, in a cgroup of that user's own."""

    def __init__(self, uid: int) -> None:
        super().__init__(v2=True)
        self.uid = uid
        self._own = f"{self._cgroup}/user"
        self._session = f"{self._own}/session"
        home = self.folder / str(uid)
        home.mkdir()
        self.socket = home / "podman.sock"
        os.chown(home, uid, uid)
        for name, text in (("storage.conf", _STORAGE + _ROOTLESS), ("containers.conf", _CONTAINERS)):
            (self.folder / name).write_text(text.format(folder=home))

    @property
    def cgroup_parents(self) -> tuple[str, ...]:
        return (self._cgroup,)

    def inside(self, *command: str) -> list[str]:
        """A command as that user, in the cgroup that is the user's."""
        return super().inside(*as_user(self.uid), *command)

    def _make_namespace(self) -> None:
        super()._make_namespace()
        for cgroup in (self._own, self._session):
            folder = self.cgroup_root / cgroup.lstrip("/")
            for each in (folder, *folder.glob("cgroup.*")):
                os.chown(each, self.uid, self.uid)

    def _make_images(self) -> None:
        self.make_image(IMAGE, labels={"app": "web"}, environment={"FOO": "bar"})

    def _environment(self) -> dict[str, str]:
        home = str(self.folder / str(self.uid))
        return {**super()._environment(), "HOME": home, "XDG_RUNTIME_DIR": home, "USER": f"u{self.uid}"}
