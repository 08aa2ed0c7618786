"""Starts holders of tasks, each a process of its own, quickly: by fork, before gRPC has started any thread.

Usage: holders.py SOCKET. For each line in, a holder begins a task, gets a token, says so, and holds still.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys

from sojourn.sdk.client.client import Client

PR_SET_PDEATHSIG = 1


def say(**value):
    print(json.dumps(value), flush=True)


async def hold(socket):
    async with Client(socket) as client, client.task("triage-ticket") as task:
        token = await task.token()
        say(event="token", pid=os.getpid(), token=token.token)
        await asyncio.Event().wait()


def main(socket):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    say(event="up", pid=os.getpid())
    for _ in sys.stdin:
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            try:
                asyncio.run(hold(socket))
            except Exception as error:
                say(event="error", message=f"holder: {type(error).__name__}: {error}")
            os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
