"""A real Docker Engine, without a registry and without a network."""

import json

from harness.engines import Engine, clean_path, find_programs

_DOCKER = "/usr/bin/docker"  # by its path: there may be another one before it
_DOCKERD = "/usr/sbin/dockerd"


class Dockerd(Engine):
    """Docker Engine. While it is stopped its containers go on."""

    kind = "docker"

    def __init__(self, *, v2: bool = False) -> None:
        """`v2`: with cgroup v2 alone, where containers have cgroup namespaces. Skip the test if it is not installed."""
        find_programs(_DOCKER, _DOCKERD, "/usr/sbin/runc")
        super().__init__(v2=v2)
        (self.folder / "daemon.json").write_text(json.dumps({"live-restore": True, "insecure-registries": []}))
        (self.folder / "config").mkdir()

    @property
    def cgroup_parents(self) -> tuple[str, ...]:
        return ("/docker", "/kubepods")

    def _engine_argv(self) -> list[str]:
        options = {
            "config-file": self.folder / "daemon.json",
            "data-root": self.folder / "data",
            "exec-root": self.folder / "exec",
            "pidfile": self.folder / "docker.pid",
            "host": f"unix://{self.socket}",
            "storage-driver": "vfs",
            "bridge": "none",
            "iptables": "false",
            "ip6tables": "false",
        }
        return [_DOCKERD, *(f"--{name}={value}" for name, value in options.items())]

    def _client_argv(self) -> list[str]:
        return [_DOCKER, "--host", f"unix://{self.socket}", "--config", str(self.folder / "config")]

    def _environment(self) -> dict[str, str]:
        return clean_path()
