"""A company's certificate authority in files, as an operator makes one: a root, and an issuing authority below it."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fakes.certificates import Issued, authority

NAMES = ("certificate", "key", "roots")


def company(name: str = "company") -> tuple[Issued, Issued]:
    """A root and what is below it, valid for a month from an hour ago on."""
    now = datetime.now(UTC)
    times = {"begins": now - timedelta(hours=1), "ends": now + timedelta(days=30)}
    root = authority(subject=f"{name} root", san=None, **times)
    return root, authority(root, subject=f"{name} issuing", san=None, **times)


class CompanyFiles:
    """The three files of `[authority.upstream] kind = "disk"`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def write(self, name: str, content: bytes) -> None:
        fresh = self.folder / f".{name}.new"
        fresh.write_bytes(content)
        fresh.chmod(0o600)
        os.replace(fresh, self.path(name))

    def contents(self, root: Issued, issuing: Issued) -> dict[str, bytes]:
        return {
            "certificate": issuing.certificate.public_bytes(Encoding.PEM),
            "key": issuing.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "roots": root.certificate.public_bytes(Encoding.PEM),
        }

    def put(self, root: Issued, issuing: Issued) -> None:
        for name, content in self.contents(root, issuing).items():
            self.write(name, content)

    @property
    def table(self) -> str:
        """The table of the configuration."""
        lines = [f'{name} = "{self.path(name)}"' for name in NAMES]
        return "\n".join(["[authority.upstream]", 'kind = "disk"', *lines]) + "\n"
