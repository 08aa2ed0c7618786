"""A service whose routes nobody takes without a live task that allows it.

    python docs/examples/guarded_service.py          # needs fastapi and uvicorn; Ctrl-C ends it

A token for ticket 42 does not read ticket 43: what the path names is compared with the task's parameters.
"""

import os
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request
from sojourn import TaskTokenMiddleware

TICKETS = os.environ.get("TICKETS", "http://localhost:8091")
app = FastAPI()


@app.get("/tickets/{ticket}")
async def read(ticket: str, request: Request) -> dict[str, str]:
    task = request.scope["sojourn.task"]  # who acts, and for whom: they differ if the task was handed on
    said = {"read_by": str(task.actor), "for": str(task.spiffe_id)}
    return {"ticket": ticket, "text": "the printer is on fire", **said}


@app.post("/tickets/{ticket}/notes")
async def note(ticket: str, request: Request) -> dict[str, str]:
    return {"ticket": ticket, "noted": (await request.body()).decode()}


@app.delete("/tickets/{ticket}")
async def delete(ticket: str) -> dict[str, str]:
    return {"deleted": ticket}


# The one line that guards it all: which action each route is. What is not here is refused.
app.add_middleware(
    TaskTokenMiddleware,
    audience=TICKETS,
    actions={
        "GET /tickets/{ticket}": "ticket:read",
        "POST /tickets/{ticket}/notes": "ticket:note",
        "DELETE /tickets/{ticket}": "ticket:delete",
    },
)

if __name__ == "__main__":
    uvicorn.run(app, host="localhost", port=urlsplit(TICKETS).port or 80, log_level="warning")
