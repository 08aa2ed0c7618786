"""Guards and clients of MCP servers. Needs `sojourn[mcp]`."""

from sojourn.sdk.guard.param_places import argument
from sojourn.sdk.guard.routes import Action
from sojourn.sdk.guard.serving_token import serving_token
from sojourn.sdk.integrations.mcp_client import McpAuth, call_tool
from sojourn.sdk.integrations.mcp_server import McpGuard, McpStdioGuard, TaskTokenVerifier

__all__ = [
    "Action",
    "McpAuth",
    "McpGuard",
    "McpStdioGuard",
    "TaskTokenVerifier",
    "argument",
    "call_tool",
    "serving_token",
]
