"""Knocks at the agent's socket all the time, and holds streams, so that a gap in which nobody answers is seen.

Usage: gapclient.py SOCKET STREAMS. It says {"event": "up"} when all streams have their first message. Each line in ends it:
it waits until each stream has had a message from another connection than its first, if the line is {"anew": true}, and says
what happened to its connections.
"""

import asyncio
import json
import socket
import sys
import time

import grpc

EVERY_SECONDS = 0.01
PATIENCE_SECONDS = 30.0
METADATA = (("workload.spiffe.io", "true"),)
STREAMS_PER_CONNECTION = 100
# A client's preface and its SETTINGS: the server's come back.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


class Knocking:
    def __init__(self, path):
        self._path = path
        self.refused = self.cut = self.silent = self.answered = 0
        self.longest = 0.0

    async def run(self):
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._knock())
                await asyncio.sleep(EVERY_SECONDS)

    async def _knock(self):
        begun = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                heard = await self._hello()
        except TimeoutError:
            self.silent += 1
            return
        if heard is None:
            self.refused += 1
        elif not heard:
            self.cut += 1
        else:
            self.answered += 1
            self.longest = max(self.longest, time.monotonic() - begun)

    async def _hello(self):
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
            while True:
                try:
                    connection.connect(self._path)
                except BlockingIOError:  # the line is full: a client that blocks would wait
                    await asyncio.sleep(EVERY_SECONDS)
                except (ConnectionRefusedError, FileNotFoundError):
                    return None
                else:
                    break
            try:
                await loop.sock_sendall(connection, HELLO)
                return await loop.sock_recv(connection, 9)
            except OSError:
                return b""


class Streams:
    """Each begins again when it ends."""

    def __init__(self, path, count):
        self._path = path
        self._count = count
        self.messages = [0] * count
        self.begun = [0] * count

    async def run(self):
        channels = []
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                if number % STREAMS_PER_CONNECTION == 0:
                    options = [
                        ("grpc.use_local_subchannel_pool", 1),
                        ("grpc.initial_reconnect_backoff_ms", 100),
                        ("grpc.min_reconnect_backoff_ms", 100),
                        ("grpc.max_reconnect_backoff_ms", 200),
                    ]
                    channels.append(grpc.aio.insecure_channel(f"unix:{self._path}", options=options))
                    fetch = channels[-1].unary_stream("/SpiffeWorkloadAPI/FetchX509SVID")
                group.create_task(self._follow(number, fetch))

    async def _follow(self, number, fetch):
        while True:
            try:
                self.begun[number] += 1
                first = True
                async for _ in fetch(b"", metadata=METADATA):
                    self.messages[number] += first
                    first = False
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.05)

    async def until_each_has(self, times):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self._count and min(self.messages) < times:
                await asyncio.sleep(0.01)


async def main(path, count):
    streams, knocking = Streams(path, count), Knocking(path)
    running = [asyncio.ensure_future(streams.run())]
    await streams.until_each_has(1)
    running.append(asyncio.ensure_future(knocking.run()))
    print(json.dumps({"event": "up"}), flush=True)
    asked = json.loads(await asyncio.to_thread(sys.stdin.readline))
    ended = time.monotonic()
    if asked.get("anew"):
        await streams.until_each_has(2)
    back = time.monotonic() - ended
    await asyncio.sleep(0.2)
    said = {
        "refused": knocking.refused,
        "cut": knocking.cut,
        "silent": knocking.silent,
        "answered": knocking.answered,
        "longest": round(knocking.longest, 3),
        "streams": count,
        "back": round(back, 3),
    }
    print(json.dumps(said), flush=True)
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
