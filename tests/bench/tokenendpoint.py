"""A token endpoint of the bench: it answers at once, and revokes as slowly as it is told. Prints its port, and goes on.

Usage: tokenendpoint.py SECONDS, which a revocation takes.
"""

import asyncio
import itertools
import json
import sys
from urllib.parse import parse_qs

NUMBERS = itertools.count()


def answer(path: str, form: dict[str, list[str]]) -> bytes:
    if path == "/revoke":
        return b""
    token = {"access_token": f"token-{next(NUMBERS)}", "token_type": "Bearer", "expires_in": 600}
    return json.dumps({**token, **({"scope": form["scope"][0]} if "scope" in form else {})}).encode()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            form = parse_qs((await reader.readexactly(int(headers.get("content-length", 0)))).decode())
            path = lines[0].split()[1]
            if path == "/revoke":
                await asyncio.sleep(float(sys.argv[1]))
            body = answer(path, form)
            kind = b"content-type: application/json\r\ncontent-length: "
            writer.write(b"HTTP/1.1 200 OK\r\n" + kind + str(len(body)).encode() + b"\r\n\r\n" + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
