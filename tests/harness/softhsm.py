"""A PKCS#11 token of SoftHSM's in a folder of the test's own, and the configuration of an agent that uses it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.lacking import lacking, lacking_program

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "246813"
LABEL = "sojourn test"


class SoftHsm:
    """One token. Its files may be moved away and back, as if it were unplugged."""

    module = MODULE  # what the agent is told

    def __init__(self, folder: Path) -> None:
        if not os.path.exists(MODULE):
            lacking("needs SoftHSM: install the package softhsm2")
        lacking_program("softhsm2-util")
        self.folder = folder
        self.tokens, self.conf, self.pin = folder / "tokens", folder / "softhsm2.conf", folder / "pin"
        self.tokens.mkdir(parents=True)
        self.conf.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.give_pin(PIN)
        self.tool("softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "135797")

    def give_pin(self, pin: str) -> None:
        """Have this in the file with the PIN."""
        self.pin.write_text(f"{pin}\n")
        self.pin.chmod(0o600)

    def tool(self, *command: str) -> str:
        """What one of the token's own programs says."""
        environment = {"SOFTHSM2_CONF": str(self.conf), "PATH": os.environ["PATH"]}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def objects(self) -> list[str]:
        """The private keys in it, each as pkcs11-tool describes it."""
        lacking_program("pkcs11-tool")
        said = self.tool("pkcs11-tool", "--module", MODULE, "--token-label", LABEL, "--login", "--pin", PIN, "-O")
        return [each for each in re.split(r"\n(?=\w)", said) if each.startswith("Private Key Object")]

    def labels(self) -> list[str]:
        """The labels of the private keys in it."""
        return sorted(re.search(r"label: +(.*)", each)[1] for each in self.objects())  # type: ignore[index]

    def flags(self) -> str:
        """What the token says of itself, such as that a wrong PIN was tried."""
        lacking_program("pkcs11-tool")
        said = self.tool("pkcs11-tool", "--module", MODULE, "--list-token-slots")
        return next(line for line in said.splitlines() if "token flags" in line)

    def mistype(self, pin: str) -> None:
        """Try a wrong PIN by the token's own means."""
        lacking_program("pkcs11-tool")
        with pytest.raises(AssertionError, match="CKR_PIN_INCORRECT"):
            self.tool("pkcs11-tool", "--module", MODULE, "--token-label", LABEL, "--login", "--pin", pin, "-O")

    def unplug(self) -> None:
        self.tokens.rename(self.folder / "unplugged")

    def plug_in(self) -> None:
        (self.folder / "unplugged").rename(self.tokens)

    @contextmanager
    def small(self) -> Iterator[None]:
        """Have the token's files on a disk of their own, which may be filled (needs root)."""
        kept = self.folder / "kept"
        self.tokens.rename(kept)
        self.tokens.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "sojourn", str(self.tokens)], check=True)
        try:
            shutil.copytree(kept, self.tokens, dirs_exist_ok=True)
            yield
        finally:
            subprocess.run(["umount", str(self.tokens)], check=True)

    def destroy(self) -> None:
        shutil.rmtree(self.tokens)

    def config(self, *keys: str) -> str:
        """The table [keys] of an agent that has its roots in here; `keys` are more lines of it."""
        return "\n".join(
            (
                '[keys]\nmanager = "pkcs11"',
                f'module = "{self.module}"\ntoken = "{LABEL}"\npin_file = "{self.pin}"',
                f'environment = {{ SOFTHSM2_CONF = "{self.conf}" }}',
                *keys,
                "",
            )
        )
