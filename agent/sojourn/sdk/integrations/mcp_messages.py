"""MCP messages as a guard and a client of guarded servers see them: which method or tool, with which arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sojourn.errors import InvalidInput
from sojourn.jose import strict_json
from sojourn.tasktoken import request_digest

CALL: Final = "tools/call"
# Where there are no headers, these members of a call's `_meta` are what Authorization and DPoP are elsewhere.
AUTHORIZATION_KEY: Final = "sojourn/authorization"
PROOF_KEY: Final = "sojourn/dpop"
# What a client must say before it can call a tool. It needs a token, and no action of its own. All else that is no
# tool is refused unless the service says which action it is: it may read what a tool would.
GREETINGS: Final = frozenset(
    {
        *("initialize", "ping", "server/discover", "logging/setLevel"),
        *("tools/list", "prompts/list", "resources/list", "resources/templates/list"),
        *("notifications/initialized", "notifications/cancelled", "notifications/progress"),
        *("notifications/roots/list_changed",),
    }
)


@dataclass(frozen=True, slots=True)
class McpCall:
    """One message. `tool` is the name of the tool that it calls, or ''; `method` is '' for an answer."""

    method: str
    tool: str
    arguments: Mapping[str, Any]  # of a tool or prompt; of any other method its parameters
    prompt: str = ""  # the name of the one that it gets

    @property
    def digest(self) -> str:
        """What a token that is for this call alone is compared with. '' if it cannot be told."""
        try:
            if self.tool:
                return request_digest.of_tool(self.tool, self.arguments)
            named = {"prompt": self.prompt} if self.prompt else {}
            return request_digest.of_json({"arguments": dict(self.arguments), "method": self.method, **named})
        except InvalidInput:
            return ""


def call_of(method: object, params: object) -> McpCall:
    """What a method with these parameters is. Raise InvalidInput for what is no MCP message."""
    if not isinstance(method, str) or not isinstance(params, Mapping | None):
        raise InvalidInput("message has no method and parameters as JSON-RPC has them")
    given = {name: value for name, value in (params or {}).items() if name != "_meta"}
    if method not in {CALL, "prompts/get"}:
        return McpCall(method, "", given)
    name, arguments = given.get("name"), given.get("arguments")
    if not isinstance(name, str) or not name or not isinstance(arguments, Mapping | None):
        raise InvalidInput("call has no name, or arguments that are no object")
    return (
        McpCall(method, name, dict(arguments or {}))
        if method == CALL
        else McpCall(method, "", dict(arguments or {}), name)
    )


def meta_of(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """What goes along with a message. Raise InvalidInput if that is no object."""
    found = (params or {}).get("_meta") or {}
    if not isinstance(found, Mapping):
        raise InvalidInput("_meta is no object")
    return dict(found)


def read(content: bytes) -> McpCall:
    """Parse the one message that an HTTP request has. Raise InvalidInput for what may be read in two ways."""
    try:
        message = strict_json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise InvalidInput("content is not one JSON-RPC message: each member once, in UTF-8") from error
    if not isinstance(message, dict):
        raise InvalidInput("content is not one JSON-RPC message")
    if "method" not in message and ("result" in message or "error" in message):
        return McpCall("", "", {})  # the answer to something that the server asked
    return call_of(message.get("method"), message.get("params"))
