"""A guard in a process of its own, before which many requests arrive at once.

    python racing.py SOCKET AUDIENCE ACTION

Each line that it reads is a JSON array of tokens; all of them race, and what became of each is written as such a line:
0 if it was let through, or the status and error of the refusal.
"""

import asyncio
import json
import subprocess
import sys
from typing import Any, Self

from sojourn import Client, TaskVerifier
from sojourn.sdk.guard.guard import Guard
from sojourn.tasktoken.tokens import TaskToken


class GuardProcess:
    """Such a process."""

    def __init__(self, socket: str, audience: str, action: str) -> None:
        self._command = [sys.executable, __file__, socket, audience, action]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert "ready\n" == self.process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def send(self, tokens: list[str]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(tokens) + "\n")
        self.process.stdin.flush()

    def hear(self) -> list[Any]:
        assert self.process.stdout is not None
        found: list[Any] = json.loads(self.process.stdout.readline())
        return found


async def _main(socket: str, audience: str, action: str) -> None:
    async with Client(socket) as client, TaskVerifier(client, audience) as verifier:
        await verifier.feed.wait_ready(30)
        guard = Guard(verifier, {})

        async def one(token: str) -> Any:
            found = await guard.check_call(token, action)
            return 0 if isinstance(found, TaskToken) else f"{found.status} {found.error}: {found.description}"

        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await asyncio.gather(*map(one, json.loads(line)))), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:4]))
