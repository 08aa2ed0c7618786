"""Programs that the agent starts beside itself: with its interpreter and its modules, and little else of it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
_FINDS: Final = "import json, sys\nsys.path[:] = json.loads(sys.argv[1])\n"


def environment() -> dict[str, str]:
    """What of the agent's variables a program gets."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def start(
    begin: str,
    channel: int,
    *arguments: str,
    options: Sequence[str] = (),
    more: Mapping[str, str] | None = None,
    output: int = subprocess.DEVNULL,
) -> "subprocess.Popen[bytes]":
    """Run `begin`, as Python, in a process and session of its own. Its `sys.argv` has the number of `channel`, a
    descriptor of which it gets a copy, at 2, and then `arguments`.

    It finds modules where the agent does, and by nothing else: -I leaves out the environment and the working folder.
    `options`: of the interpreter. `more`: variables. `output`: where it prints to. Raise OSError.
    """
    path = json.dumps([each for each in sys.path if os.path.isabs(each)])
    return subprocess.Popen(  # noqa: S603  # this interpreter, and nothing that anybody could choose
        [*(sys.executable, "-I", "-B", *options, "-c", _FINDS + begin, path, str(channel)), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment() | dict(more or {}),
        cwd="/",
        pass_fds=[channel],
        start_new_session=True,
    )
