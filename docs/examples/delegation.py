"""Two processes: a triage agent hands the reading of one ticket on to a summariser, and both end together.

    python docs/examples/delegation.py               # guarded_service.py must be running

The ticket goes through a pipe, never through arguments or environment. Services see both: who began it, who acts.
"""

import asyncio
import os
import sys

import sojourn
from sojourn import Grant

TICKETS = os.environ.get("TICKETS", "http://localhost:8091")
SUMMARISE = "spiffe://example.org/agent/summarise"


async def triage() -> None:
    async with sojourn.task("read-tickets", params={"ticket": "42"}) as task:
        handed_on = await task.delegate(to=SUMMARISE, grants=[Grant.parse(TICKETS, ["ticket:read"])])
        summariser = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "summarise", stdin=asyncio.subprocess.PIPE
        )
        await summariser.communicate(handed_on.ticket.encode())


async def summarise() -> None:
    async with sojourn.task(ticket=sys.stdin.read()) as task, task.client(TICKETS) as client:
        ticket = (await client.get("/tickets/42")).json()
        print("read by", ticket["read_by"], "for", ticket["for"])
        note = await client.post("/tickets/42/notes", content="summary")
        print("a note:", note.status_code)  # 403: that was not handed on


if __name__ == "__main__":
    asyncio.run(summarise() if sys.argv[1:] == ["summarise"] else triage())
