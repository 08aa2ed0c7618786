"""A service on "another machine": follows the feed of live tasks over TCP, and says when it hears of a task's end.

Usage: remotewatcher.py SOCKET ADDRESS SPIFFE_ID AUDIENCE. Prints one JSON object a line.
"""

import asyncio
import json
import sys

from sojourn import Client, RemoteAgent, X509Source
from sojourn.sdk.guard.task_feed import TaskFeed


class Watcher(TaskFeed):
    def _take(self, message):
        super()._take(message)
        kind = message.WhichOneof("message")
        for state in message.snapshot.tasks if kind == "snapshot" else message.delta.tasks:
            print(json.dumps({"event": kind, "id": state.id, "live": state.live}), flush=True)
        if kind == "snapshot":
            print(json.dumps({"event": "ready"}), flush=True)


async def main(socket, address, spiffe_id, audience):
    async with (
        Client(socket) as client,
        X509Source(client) as source,
        RemoteAgent(address, spiffe_id, source) as agent,
        Watcher(agent, [audience]),
    ):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
