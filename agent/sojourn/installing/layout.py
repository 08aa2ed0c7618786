"""Where an installation has its parts. All of it lies below one folder, which is / but in tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

USER: Final = "sojourn"
SERVICE: Final = "sojourn.service"
SOCKETS: Final = ("sojourn-agent.socket", "sojourn-admin.socket")
PACKAGED_COMMAND: Final = "/usr/lib/sojourn/bin/sojourn"  # what the units as they are shipped name
COMMAND: Final = "/opt/sojourn/current/bin/sojourn"


@dataclass(frozen=True)
class Layout:
    """The paths."""

    top: Path = Path("/")

    @property
    def releases(self) -> Path:
        """Its folders are releases, a virtual environment each; `current` is a link to the one that runs."""
        return self.top / "opt/sojourn"

    @property
    def current(self) -> Path:
        return self.releases / "current"

    def release(self, version: str) -> Path:
        return self.releases / version

    @property
    def command(self) -> Path:
        """A link, so that everybody finds the command."""
        return self.top / "usr/local/bin/sojourn"

    @property
    def configuration(self) -> Path:
        return self.top / "etc/sojourn/agent.toml"

    @property
    def state(self) -> Path:
        """The database and the keys."""
        return self.top / "var/lib/sojourn"

    @property
    def run(self) -> Path:
        return self.top / "run/sojourn"

    @property
    def units(self) -> Path:
        return self.top / "etc/systemd/system"

    @property
    def documents(self) -> Path:
        """Where a package has what operators read beside the program, and so has this."""
        return self.top / "usr/share/doc/sojourn"

    @property
    def drop_ins(self) -> Path:
        """Drop-ins for the units, which are in force nowhere until an operator copies one."""
        return self.documents / "drop-ins"

    @property
    def user(self) -> Path:
        return self.top / "etc/sysusers.d/sojourn.conf"

    @property
    def folders(self) -> Path:
        return self.top / "etc/tmpfiles.d/sojourn.conf"

    @property
    def packaged(self) -> Path:
        """What a deb or an rpm of ours has put there."""
        return self.top / "usr/lib/sojourn/pyvenv.cfg"
