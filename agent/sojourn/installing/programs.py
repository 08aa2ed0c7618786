"""The system's programs, run with an environment of their own."""

import os
import subprocess
from typing import Final

from sojourn.errors.oauth import CannotInstall

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How this machine reaches its package index, for pip: and nothing that could have another program run, or other code.
# What comes from there is known by its hash. Other settings of pip's it has from root's files.
_PASSED_ON: Final = frozenset(
    (
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_PROXY", "PIP_CERT", "PIP_CLIENT_CERT", "PIP_TRUSTED_HOST"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "no_proxy"),
    )
)
_SAID_MAX: Final = 2000  # characters of what a program said, in an error


def run(*command: str) -> str:
    """What a program prints. Raise CannotInstall, with the end of what it said, if it fails or is not there."""
    passed = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    try:
        done = subprocess.run(  # noqa: S603  # names are our own, and PATH is not the caller's
            command,
            env={**passed, "PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )
    except OSError as error:
        raise CannotInstall(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-_SAID_MAX:]
        raise CannotInstall(f"{' '.join(command[:3])} failed with status {done.returncode}: {said}")
    return done.stdout
