"""Kubernetes as a server of nodes asks it: one pod on one node, and its token, as documents that a test changes."""

import asyncio
from copy import deepcopy
from typing import Any

from sojourn.errors import NotFound, Unavailable

AUDIENCES = ("spire-server",)
EXTRA = "authentication.kubernetes.io/"
REVIEW: dict[str, Any] = {
    "kind": "TokenReview",
    "status": {
        "authenticated": True,
        "audiences": ["spire-server"],
        "user": {
            "username": "system:serviceaccount:agents:sojourn",
            "extra": {
                f"{EXTRA}pod-name": ["sojourn-x2k9p"],
                f"{EXTRA}pod-uid": ["pod-1"],
                f"{EXTRA}node-name": ["node1"],
                f"{EXTRA}node-uid": ["node-1"],
            },
        },
    },
}
POD: dict[str, Any] = {
    "metadata": {"namespace": "agents", "name": "sojourn-x2k9p", "uid": "pod-1", "labels": {"app": "sojourn"}},
    "spec": {"nodeName": "node1"},
    "status": {"hostIP": "10.0.0.7"},
}
NODE: dict[str, Any] = {"metadata": {"name": "node1", "uid": "node-1", "labels": {"zone": "a"}}}


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of a document in which a value is another; None: it has none."""
    made = deepcopy(document)
    *tables, last = path.split(".")
    place = made
    for each in tables:
        place = place[each]
    last = last.replace("@", EXTRA)
    if value is None:
        del place[last]
    else:
        place[last] = value
    return made


class FakeKubeApi:
    """Answers with these documents; None: there is no such object. `asked`: what it was asked for."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any] | None] = {"review": REVIEW, "pod": POD, "node": NODE}
        self.asked: list[tuple[str, ...]] = []
        self.away = ""  # why it gives no answer
        self.hangs = False
        self.closed = False

    async def review(self, token: str, audiences: tuple[str, ...]) -> dict[str, Any]:
        return await self._answer("review", token, *audiences)

    async def pod(self, namespace: str, name: str) -> dict[str, Any]:
        return await self._answer("pod", namespace, name)

    async def node(self, name: str) -> dict[str, Any]:
        return await self._answer("node", name)

    async def close(self) -> None:
        self.closed = True

    async def _answer(self, what: str, *words: str) -> dict[str, Any]:
        self.asked.append((what, *words))
        if self.away:
            raise Unavailable(self.away, detail="10.0.0.1:6443")
        if self.hangs:
            await asyncio.Event().wait()
        found = self.documents[what]
        if found is None:
            raise NotFound("there is no such object")
        return found
