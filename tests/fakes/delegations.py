"""Tasks that are handed on: rooms with such a type, and how they end."""

import asyncio

from fakes.families import WORKERS
from fakes.registrations import entry
from fakes.task_room import DEADLINE_SECONDS
from fakes.task_types import TICKETS, WIKI
from sojourn.tasktoken.grants import Authority, Grant

READ = Authority((Grant(TICKETS, ("ticket:read",)),))
PAGES = Authority((Grant(WIKI, ("page:read",)),))
W0, W1 = entry(WORKERS[0]), entry(WORKERS[1])


async def until(holds):
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():
            await asyncio.sleep(0.001)


def ends(store):
    return {(each["task"], each["state"], each["reason"]) for each in store.fields("task_ended")}
