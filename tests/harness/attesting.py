"""Attests processes as it is told, for tests in a machine of its own (nspawn.py). Usage: attesting.py ATTESTOR [JSON].

Each line in is JSON: {"pid": N}, or {"settings": {…}} for another attestor from then on. Each line out is JSON.
"""

import asyncio
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from sojourn.attestation.loader import load_attestors
from sojourn.errors import SojournError
from sojourn.runtime.clock import SystemClock
from subjects import subject_of


async def answer(attestor, asked):
    begun = time.monotonic()
    try:
        with subject_of(asked["pid"]) as subject:
            found = await attestor.attest(subject)
    except SojournError as error:
        return {"error": error.public, "detail": error.detail, "seconds": time.monotonic() - begun}
    return {
        "values": sorted(found.values),
        "withheld": dict(found.withheld),
        "seconds": time.monotonic() - begun,
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


async def main(name, settings):
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool:
        attestor = (await load_attestors({name: settings}, pool, SystemClock()))[name]
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = json.loads(line)
            if "settings" in asked:
                await attestor.close()
                attestor = (await load_attestors({name: asked["settings"]}, pool, SystemClock()))[name]
                print(json.dumps({}), flush=True)
                continue
            print(json.dumps(await answer(attestor, asked)), flush=True)
        if hasattr(attestor, "close"):
            await attestor.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
