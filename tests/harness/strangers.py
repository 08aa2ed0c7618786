"""Workload processes of other users, where the interpreter may lie in a folder that only root can enter."""

import sys
from pathlib import Path

from harness.callers import Caller

# What asyncio and gRPC import only when they first need it.
_PRELOAD = """
import concurrent.futures.thread, runpy, sys
import asyncio, grpc.aio, socket, encodings.idna, json, traceback
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def stranger(socket: str, uid: int) -> Caller:
    """A caller that becomes the user `uid` once everything is loaded."""
    script = str(Path(__file__).with_name("caller.py"))
    return Caller(socket, uid, argv=[sys.executable, "-c", _PRELOAD, script])
