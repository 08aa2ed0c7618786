"""The nodes of a server in the database, and the join tokens that are not used yet."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, bindparam, select

from sojourn.attestation.selectors import Selector, text_of
from sojourn.audit.journal import Event
from sojourn.server.node_records import BoundKey, JoinToken, Node
from sojourn.spiffe.ids import SpiffeId
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.tables import join_tokens, nodes

_NO_NODE = nodes.delete().where(nodes.c.id == bindparam("named"))
_NO_TOKEN = join_tokens.delete().where(join_tokens.c.digest == bindparam("named"))
# Serial numbers have up to 160 bits, which no column holds as a number: they lie in the document as lower-case hex.
_SERIALS = ("serial", "new_serial")
_PLAIN = ("expires_at", "reattestable", "attested_at", "new_expires_at", "name", "version")


class NodeTable:
    """The store that the nodes ask for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit

    def load(self) -> list[Node]:
        """All nodes, read in the calling thread: for the start."""

        def work(connection: Connection) -> list[Node]:
            return [_node(row) for row in connection.execute(select(nodes))]

        return self._database.read_now("nodes", work)

    async def write(self, put: Sequence[Node], remove: Sequence[SpiffeId], events: Sequence[Event] = ()) -> None:
        rows = [_row(each) for each in put]
        gone = [{"named": str(each)} for each in (*remove, *(each.spiffe_id for each in put))]

        def work(connection: Connection) -> None:
            if gone:
                connection.execute(_NO_NODE, gone)
            if rows:
                connection.execute(nodes.insert(), rows)
            self._audit.append_in(connection, events)

        await self._database.write(work)


class JoinTokenTable:
    """The store that the join tokens ask for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit

    def load(self) -> list[JoinToken]:
        """Those that are not used yet, read in the calling thread: for the start."""

        def work(connection: Connection) -> list[JoinToken]:
            return [JoinToken(row.digest, row.expires_at, row.name) for row in connection.execute(select(join_tokens))]

        return self._database.read_now("join tokens", work)

    async def put(self, token: JoinToken, events: Sequence[Event]) -> None:
        row = {"digest": token.digest, "expires_at": token.expires_at, "name": token.name}

        def work(connection: Connection) -> None:
            connection.execute(join_tokens.insert(), [row])
            self._audit.append_in(connection, events)

        await self._database.write(work)

    async def remove(self, digests: Sequence[str]) -> None:
        gone = [{"named": each} for each in digests]

        def work(connection: Connection) -> None:
            connection.execute(_NO_TOKEN, gone)

        await self._database.write(work)


def _row(node: Node) -> dict[str, Any]:
    document = {
        "selectors": text_of(node.selectors),
        **{name: f"{getattr(node, name):x}" for name in _SERIALS},
        **{name: getattr(node, name) for name in _PLAIN},
    }
    if node.bound is not None:
        document["bound"] = asdict(node.bound)
    return {
        "id": str(node.spiffe_id),
        "attestor": node.attestor,
        "banned": node.banned,
        "document": json.dumps(document),
    }


def _node(row: Any) -> Node:
    document = json.loads(row.document)
    given: dict[str, Any] = {name: int(document[name], 16) for name in _SERIALS}
    given |= {name: document[name] for name in _PLAIN}
    bound = document.get("bound")
    return Node(
        spiffe_id=SpiffeId.parse(row.id),
        attestor=row.attestor,
        banned=row.banned,
        selectors=frozenset(Selector.parse(text) for text in document["selectors"]),
        bound=None if bound is None else BoundKey(**bound),
        **given,
    )
