"""The digest of one request: what a token that is for one request alone is compared with."""

from sojourn.tasktoken.request_digest import of_grpc, of_http, of_json, of_tool

__all__ = [
    "of_grpc",
    "of_http",
    "of_json",
    "of_tool",
]
