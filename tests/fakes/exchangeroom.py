"""The token service in which the endpoint is abused: its task types, and what is asked of it."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes.granting_room import Room
from fakes.task_types import TICKETS, TRIAGE, WIKI, task_type
from sojourn.identity.issued_svids import JWT, IssuedSvid
from sojourn.oauth.client_auth import ClientSender
from sojourn.tasktoken.sender_constraint import JKT, Binding, thumbprint_of

JKT_A, JKT_B = (Binding(JKT, thumbprint_of(each)) for each in (b"a", b"b"))
ELSEWHERE = ClientSender(address="192.0.2.1")
DELEGATION = '{to = ["spiffe://example.org/web", "spiffe://example.org/store"], max_depth = 2, max_children = 50}'
TWO = (
    f'[{{resource = "{TICKETS}", actions = ["page:read", "ticket:read", "ticket:write"]}},'
    f' {{resource = "{WIKI}", actions = ["page:read", "ticket:read"]}}]'
)
TYPES = {
    "triage": task_type(delegation=DELEGATION, ceiling=TWO),
    "kept": task_type("kept", ceiling=f'[{{resource = "{WIKI}/kept", actions = ["page:read"]}}]'),
    "careful": task_type(
        "careful", consequence='"high"', ceiling=f'[{{resource = "{WIKI}/c", actions = ["page:read"]}}]'
    ),
}


@contextmanager
def opened(types: Any = None) -> Iterator[Room]:
    with tempfile.TemporaryDirectory() as folder:
        room = Room(Path(folder) / "keys", types or TYPES)
        try:
            yield room
        finally:
            room.close()


def details(*actions: str, name: str = "triage", at: str = TICKETS, **more: Any) -> str:
    return json.dumps([{"type": name, "actions": list(actions), "locations": [at], **more}])


READ = details("ticket:read")


def revoked(kind: str, svid_id: str) -> IssuedSvid:
    issuer = "" if kind == JWT else "00" * 20
    return IssuedSvid(kind, svid_id, TRIAGE, "e", 4_000_000_000, issuer, issuer)
