"""The shop's tools, for AI agents.

python docs/examples/shop/mcp_api.py              # needs mcp and uvicorn; Ctrl-C ends it
"""

import os
from urllib.parse import urlsplit

import uvicorn
from mcp.server import MCPServer
from sojourn.mcp import Action, McpGuard, argument

TOOLS = os.environ.get("SHOP_MCP", "http://localhost:8098/mcp")
server = MCPServer("shop")


@server.tool()
def read_order(order_id: str) -> str:
    """Look at an order."""
    return f"order {order_id}"


@server.tool()
def refund_order(order_id: str, cents: int) -> str:
    """Refund an order."""
    return f"refunded {cents} of {order_id}"


@server.tool()
def drop_orders() -> str:
    """Has no action, so that nobody calls it."""
    return "dropped"


THE_ORDER = argument("order_id")  # is the task's parameter `order`
app = McpGuard(
    server.streamable_http_app(stateless_http=True, json_response=True),
    tools={
        "read_order": Action("order:read", params={"order": THE_ORDER}),
        "refund_order": Action("refund:create", params={"order": THE_ORDER, "cents": argument()}),
    },
    audience=TOOLS,
    strict=True,
)

if __name__ == "__main__":
    uvicorn.run(app, host="localhost", port=urlsplit(TOOLS).port or 80, log_level="warning")
