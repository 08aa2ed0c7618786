"""What tests of registration ask and expect, as SPIRE's API has it."""

from collections.abc import Sequence

from sojourn._pb.spire.api.types import types_pb2 as types

ALIAS = "/spire/server"
OK, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, INTERNAL = 0, 3, 5, 6, 13
NO_IDENTITY = ("PERMISSION_DENIED", "no identity issued")
Match = types.SelectorMatch


def spiffe_id(path: str, trust_domain: str = "example.org") -> types.SPIFFEID:
    return types.SPIFFEID(trust_domain=trust_domain, path=path)


def paths(entries: Sequence[types.Entry]) -> list[str]:
    return sorted(each.spiffe_id.path for each in entries)
