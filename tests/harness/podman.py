"""A real Podman, without a registry and without a network, and its service that speaks Docker's API."""

from harness.engines import Engine, clean_path, find_programs

_PODMAN = "/usr/bin/podman"

_STORAGE = """[storage]
driver = "vfs"
runroot = "{folder}/run"
graphroot = "{folder}/graph"
"""

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
    """Podman, for root. While its service is stopped its containers go on."""

    kind = "podman"
    remove_flags = ("--force", "--time", "0")

    def __init__(self, *, v2: bool = False) -> None:
        """`v2`: with cgroup v2 alone, where containers have cgroup namespaces. Skip the test if it is not installed."""
        find_programs(_PODMAN, "/usr/sbin/runc")
        super().__init__(v2=v2)
        for name, text in (("storage.conf", _STORAGE), ("containers.conf", _CONTAINERS)):
            (self.folder / name).write_text(text.format(folder=self.folder))
        if v2:
            self.run_flags = ("--pids-limit", "0")

    @property
    def cgroup_parents(self) -> tuple[str, ...]:
        return ("/libpod_parent", "/kubepods")

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
