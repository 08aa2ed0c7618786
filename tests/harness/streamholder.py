"""A workload process that holds many FetchX509SVID streams on few connections, and tells what has come on all of them.

Usage: streamholder.py SOCKET [UID]. Each line in is JSON {"do": NAME, …}; each line out is JSON. Commands: `hold` (opens
`streams`), `hint` (waits until each stream's newest message has that hint), `rotated` (waits until the serial number of
each is another than `serial`). Each is answered by one line: how many streams there are, and the different hints, serial
numbers and SPIFFE IDs of their newest messages.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401  # before the user changes: it may not be able to read it then
import json
import os
import sys

import grpc
from cryptography import x509
from sojourn._pb import workload_pb2

METADATA = (("workload.spiffe.io", "true"),)
STREAMS_PER_CONNECTION = 100
PATIENCE_SECONDS = 45.0


def say(**value):
    print(json.dumps(value), flush=True)


class Holder:
    def __init__(self, socket):
        self._socket = socket
        self._channels = []
        self._tasks = []
        self._newest = {}  # stream -> what its newest message says
        self._read = {}  # message -> what it says: most streams get the same
        self._ended = []

    async def hold(self, streams):
        for number in range(streams):
            if number % STREAMS_PER_CONNECTION == 0:
                channel = grpc.aio.insecure_channel(
                    f"unix:{self._socket}", options=[("grpc.use_local_subchannel_pool", 1)]
                )
                self._channels.append(channel)
                fetch = channel.unary_stream("/SpiffeWorkloadAPI/FetchX509SVID")
            self._tasks.append(asyncio.ensure_future(self._follow(number, fetch(b"", metadata=METADATA))))
        await self._until(lambda said: True)

    async def hint(self, hint):
        await self._until(lambda said: said[0] == hint)

    async def rotated(self, serial):
        await self._until(lambda said: said[1] != serial)

    async def _until(self, holds):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self._newest) < len(self._tasks) or not all(holds(said) for said in self._newest.values()):
                if self._ended:
                    raise RuntimeError(f"{len(self._ended)} streams have ended: {self._ended[0]}")
                await asyncio.sleep(0.05)
        hints, serials, ids = (sorted(set(column)) for column in zip(*self._newest.values(), strict=True))
        say(event="all", streams=len(self._newest), hints=hints, serials=serials, ids=ids)

    async def _follow(self, number, call):
        try:
            async for message in call:
                said = self._read.get(message)
                if said is None:
                    said = self._read[message] = told(message)
                self._newest[number] = said
            self._ended.append("without an error")
        except grpc.aio.AioRpcError as error:
            self._ended.append(f"{error.code().name}: {error.details()}")


def told(message):
    svid = workload_pb2.X509SVIDResponse.FromString(message).svids[0]
    leaf = svid.x509_svid[: 4 + int.from_bytes(svid.x509_svid[2:4], "big")]
    return svid.hint, f"{x509.load_der_x509_certificate(leaf).serial_number:x}", svid.spiffe_id


async def main(socket, uid):
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    holder = Holder(socket)
    say(event="up", pid=os.getpid())
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        try:
            await getattr(holder, asked.pop("do"))(**asked)
        except Exception as error:
            say(event="error", message=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None))
