"""A service for tests: a ticket system behind TaskTokenMiddleware, on uvicorn, in a process of its own.

Usage: ticketserver.py SOCKET AUDIENCE [UID]. Prints the port that it listens on as one line of JSON, once it serves.
"""

import asyncio
import json
import os
import socket
import sys

import uvicorn
from sojourn import TaskTokenMiddleware

ACTIONS = {"GET /tickets/{ticket}": "ticket:read", "DELETE /tickets/{ticket}": "ticket:delete"}


async def tickets(scope, receive, send):
    assert "http" == scope["type"]
    task = scope["sojourn.task"]
    body = json.dumps({"path": scope["path"], "who": str(task.spiffe_id), "task": task.task_id}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(json.dumps({"event": "serving", "port": sockets[0].getsockname()[1], "pid": os.getpid()}), flush=True)


async def main(agent, audience, uid):
    listener = socket.create_server(("127.0.0.1", 0))
    app = TaskTokenMiddleware(tickets, actions=ACTIONS, audience=audience, socket=agent)
    config = uvicorn.Config(app, log_level="warning", lifespan="on", ws="none")
    config.load()
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    await Server(config).serve([listener])


if __name__ == "__main__":
    # Everything is loaded before the user changes: the interpreter may lie where only root can enter.
    import concurrent.futures.thread
    import encodings.idna

    import sojourn.sdk.guard.verifier
    import uvicorn.lifespan.on
    import uvicorn.loops.auto
    import uvicorn.protocols.http.auto

    del concurrent, encodings, sojourn
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None))
