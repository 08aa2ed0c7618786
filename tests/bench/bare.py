"""What gRPC in Python costs by itself: a grpc.aio server that answers each FetchX509SVID with the same bytes.

Usage: bare.py SOCKET. One line in, JSON {"answer": HEX}; then it serves until it is ended.
"""

import asyncio
import json
import os
import sys

import grpc
import uvloop


def say(**value):
    print(json.dumps(value), flush=True)


async def main(socket):
    say(event="up", pid=os.getpid())
    answer = bytes.fromhex(json.loads(await asyncio.to_thread(sys.stdin.readline))["answer"])

    async def fetch(_request, _context):
        yield answer
        await asyncio.Event().wait()  # held, as the agent holds it

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "SpiffeWorkloadAPI", {"FetchX509SVID": grpc.unary_stream_rpc_method_handler(fetch)}
            ),
        )
    )
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    say(event="done")
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
