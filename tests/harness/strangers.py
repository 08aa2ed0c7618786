"""Workload processes of other users, where the interpreter may lie in a folder that only root can enter."""

import sys
from pathlib import Path

from harness.callers import Caller

# What asyncio and gRPC import only when they first need it.
_PRELOAD = """
import concurrent.futures.thread, runpy, sys
import asyncio, grpc._channel, grpc._interceptor, grpc.aio, socket, encodings.idna, json, traceback
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def stranger(socket: str, uid: int) -> Caller:
    """A caller that becomes the user `uid` once everything is loaded."""
    return Caller(socket, uid, argv=preloaded(sys.executable, str(Path(__file__).with_name("caller.py"))))


def preloaded(python: str, script: str) -> list[str]:
    """The command of a script that becomes a user who may not be able to read what it imports."""
    return [python, "-c", _PRELOAD, script]
