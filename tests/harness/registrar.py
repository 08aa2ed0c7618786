"""The registry on its database, without the rest of the agent: writes until it is killed, and says each step.

Usage: registrar.py DATABASE RUN. The first line out is {"found": {PATH: HINT}, "twins": CODES}: all entries, and what
became of attempts to register some of them a second time. From then on several writers work side by side, each on trios
of entries of its own that it creates, changes and deletes whole: {"begin": TRIO, "to": HINT or null} before each step,
{"done": TRIO, "to": …} when it is acknowledged.
"""

import asyncio
import itertools
import json
import os
import random
import sys
from dataclasses import replace
from pathlib import Path

from sojourn.attestation.selectors import Selector
from sojourn.identity.entries import Entry
from sojourn.identity.registry import Registry
from sojourn.runtime.clock import Alarms, SystemClock
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.store.audit import AuditTable
from sojourn.store.database import open_sqlite
from sojourn.store.entries import EntryTable

NODE = SpiffeId.parse("spiffe://example.org/node")
WRITERS = 4
LETTERS = "abc"


def say(**value):
    os.write(1, json.dumps(value).encode() + b"\n")  # less than a pipe takes at once: whole or not at all


def entry(path, hint):
    selectors = frozenset({Selector.parse("unix:uid:1000")})
    return Entry("", SpiffeId.from_parts("example.org", path), NODE, selectors, hint=hint)


async def step(registry, ids, trio, hint):
    """Make a trio what it shall be: with that hint, or gone."""
    say(begin=trio, to=hint)
    if hint is None:
        outcomes = await registry.delete(ids.pop(trio))
    elif trio in ids:
        outcomes = await registry.update([(each, lambda old, hint=hint: replace(old, hint=hint)) for each in ids[trio]])
    else:
        outcomes = await registry.create([entry(f"/{trio}/{letter}", hint) for letter in LETTERS])
        ids[trio] = [outcome.entry.id for outcome in outcomes]
    failed = [str(outcome.error) for outcome in outcomes if outcome.error is not None]
    if failed:
        raise RuntimeError(f"{trio} to {hint}: {failed}")
    say(done=trio, to=hint)


async def write(registry, name):
    ids = {}
    for number in itertools.count():
        trio = f"{name}/{number}" if not ids or random.random() < 0.5 else random.choice(list(ids))
        gone = trio in ids and random.random() < 0.4
        await step(registry, ids, trio, None if gone else f"hint {name} {number}")


async def main(path, run):
    clock = SystemClock()
    database = open_sqlite(Path(path))
    registry = Registry(
        EntryTable(database, AuditTable(database)), TrustDomain("example.org"), [NODE], clock, Alarms(clock)
    )
    some = random.sample(list(registry), min(5, len(registry)))
    outcomes = await registry.create([replace(each, id="") for each in some])
    found = {each.spiffe_id.path: each.hint for each in registry}
    sys.stdout.write(
        json.dumps({"found": found, "twins": [each.error and each.error.code for each in outcomes]}) + "\n"
    )
    sys.stdout.flush()
    await asyncio.gather(*(write(registry, f"{run}/{writer}") for writer in range(WRITERS)))


asyncio.run(main(*sys.argv[1:]))
