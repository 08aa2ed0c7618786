"""A TPM that is a program (swtpm), with a PKCS#11 token in it, and the configuration of an agent that uses it."""

import os
import re
import signal
import subprocess
from glob import glob
from pathlib import Path
from typing import Final

from harness.keeper import keep
from harness.lacking import lacking, lacking_program
from harness.looking import until

LABEL: Final = "tpm"
PIN: Final = "864209"
# A TPM has room for a few objects; a machine's own has the kernel to make room, and this one has these.
_TOOLS: Final = (
    "tpm2_create",
    "tpm2_load",
    "tpm2_createprimary",
    "tpm2_evictcontrol",
    "tpm2_unseal",
    "tpm2_readpublic",
)


class SoftTpm:
    """One TPM, from when it is entered."""

    def __init__(self, folder: Path) -> None:
        found = glob("/usr/lib/*/libtpm2_pkcs11.so.1")
        if not found:
            lacking("needs a PKCS#11 library of TPMs: install the package libtpm2-pkcs11-1")
        for program, package in (
            ("swtpm", "swtpm"),
            ("tpm2_ptool", "libtpm2-pkcs11-tools"),
            ("tpm2_create", "tpm2-tools"),
        ):
            if not any(os.path.exists(f"{each}/{program}") for each in ("/usr/bin", "/bin")):
                lacking(f"needs {program}: install the package {package}")
        lacking_program("swtpm")
        self.module, self.folder, self.pin = found[0], folder, folder / "pin"
        (folder / "state").mkdir(parents=True)
        (folder / "store").mkdir()
        self.pin.write_text(PIN)
        self.pin.chmod(0o600)
        self.environment = {
            "TPM2_PKCS11_TCTI": f"swtpm:path={folder}/s",
            "TPM2_PKCS11_STORE": str(folder / "store"),
            "TPM2_PKCS11_BACKEND": "esysdb",
            "TSS2_LOG": "all+NONE",
        }

    def __enter__(self) -> "SoftTpm":
        self.plug_in()
        folder = self.folder / "bin"
        folder.mkdir()
        for each in _TOOLS:
            (folder / each).write_text(f'#!/bin/sh\n/usr/bin/tpm2_flushcontext -t\nexec /usr/bin/{each} "$@"\n')
            (folder / each).chmod(0o755)
        self._tool("tpm2_ptool", "init", "--path", str(self.folder / "store"))
        self._tool(
            *("tpm2_ptool", "addtoken", "--pid=1", "--sopin=1111", f"--userpin={PIN}", f"--label={LABEL}"),
            *("--path", str(self.folder / "store")),
        )
        self.make_room()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    def plug_in(self) -> None:
        """Have it there, with what it has kept: a TPM forgets what was only loaded into it."""
        server = f"type=unixio,path={self.folder}/s"
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.folder}/state", "--server", server]
        command += ["--ctrl", f"type=unixio,path={self.folder}/s.ctrl", "--flags", "not-need-init,startup-clear"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        keep(self._process)
        until(lambda: self._done("tpm2_flushcontext", "-t").returncode == 0, "the TPM answers", 30)

    def unplug(self) -> None:
        """Take it away, whatever it does just now."""
        self._process.kill()
        self._process.wait()

    def hold(self, number: signal.Signals) -> None:
        """Have it stand still (SIGSTOP), or go on (SIGCONT)."""
        self._process.send_signal(number)

    def failures(self) -> int:
        """How many wrong PINs it has counted towards its lockout."""
        done = self._done("tpm2_getcap", "properties-variable")
        found = re.search(r"TPM2_PT_LOCKOUT_COUNTER: (0x[0-9A-F]+)", done.stdout)
        assert found, done.stdout + done.stderr
        return int(found[1], 16)

    def make_room(self) -> None:
        """Forget what a process that has ended left in it."""
        for kind in ("-t", "-l", "-s"):
            self._tool("tpm2_flushcontext", kind)

    def config(self) -> str:
        """The table [keys] of an agent that has its roots in here."""
        variables = ", ".join(f'{name} = "{value}"' for name, value in self.environment.items())
        return (
            f'[keys]\nmanager = "pkcs11"\nmodule = "{self.module}"\ntoken = "{LABEL}"\npin_file = "{self.pin}"\n'
            f"environment = {{ {variables} }}\n"
        )

    def _tool(self, *command: str) -> None:
        done = self._done(*command)
        assert done.returncode == 0, done.stdout + done.stderr

    def _done(self, *command: str) -> "subprocess.CompletedProcess[str]":
        path = f"{self.folder}/bin:/usr/bin:/bin:/usr/sbin"
        environment = {**self.environment, "TPM2TOOLS_TCTI": self.environment["TPM2_PKCS11_TCTI"], "PATH": path}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
