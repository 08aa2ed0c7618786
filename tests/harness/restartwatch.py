"""Workloads of a machine whose agent is restarted or exchanged meanwhile: streams that are held, and connects without end.

Usage: restartwatch.py SOCKET STREAMS, with a Python that has Sojourn's libraries. It prints {"held": N} when each stream has
an SVID, and at a line on its input what it saw: how many connects, how many refused, the longest wait of an answer, and on
how many streams an SVID has come since the last line.
"""

import asyncio
import json
import sys
import time

import grpc

METADATA = (("workload.spiffe.io", "true"),)
STREAMS_PER_CONNECTION = 100
KNOCKS_EVERY_SECONDS = 0.01
PATIENCE_SECONDS = 60.0
# A call's first frame of HTTP/2 is the answer's settings: so the agent itself has answered, and not systemd alone.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class Seen:
    knocks = 0
    refused = 0
    longest = 0.0


async def knock(path, seen):
    while True:
        before = time.monotonic()
        try:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(PREFACE)
            answered = await reader.read(9)
            writer.close()
            seen.refused += not answered
        except OSError:
            seen.refused += 1
        seen.knocks += 1
        seen.longest = max(seen.longest, time.monotonic() - before)
        await asyncio.sleep(KNOCKS_EVERY_SECONDS)


async def follow(fetch, number, had):
    while True:
        try:
            async for _ in fetch(b"", metadata=METADATA, wait_for_ready=True):
                had.add(number)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.05)


async def lines():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line


async def until_all(had, streams):
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(had) < streams:
            await asyncio.sleep(0.02)


async def main(path, streams):
    seen, had, going = Seen(), set(), []
    for number in range(streams):
        if number % STREAMS_PER_CONNECTION == 0:
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)]
            channel = grpc.aio.insecure_channel(f"unix:{path}", options=options)
        call = channel.unary_stream("/SpiffeWorkloadAPI/FetchX509SVID")
        going.append(asyncio.ensure_future(follow(call, number, had)))
    await until_all(had, streams)
    going.append(asyncio.ensure_future(knock(path, seen)))
    print(json.dumps({"held": len(had)}), flush=True)
    async for line in lines():
        if line.strip() == b"forget":
            had.clear()
            print(json.dumps({}), flush=True)
            continue
        await until_all(had, streams)
        told = {"knocks": seen.knocks, "refused": seen.refused, "longest": seen.longest, "back": len(had)}
        print(json.dumps(told), flush=True)
    for each in going:
        each.cancel()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
