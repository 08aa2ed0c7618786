"""The attestor `bound_key`: an operator's token binds a node's name to a key of the node's own, which proves it at each
join from then on.

With each join the node has another stamp. Who has the key, and a stamp that is not the last one, is one of two that
have the same files: the node is locked then, and is given nothing until an operator's token binds another key.
"""

import hmac
import os
from dataclasses import replace
from typing import Final, NoReturn

from sojourn.attestation.selectors import Selector
from sojourn.errors import FailedPrecondition, Refused, quoted
from sojourn.server.authorized_entries import named_node
from sojourn.server.join_tokens import JoinTokens
from sojourn.server.node_attestor import Attested, Challenge
from sojourn.server.node_records import BoundKey, JoinToken, Node
from sojourn.server.nodes import Nodes
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spireapi import bound_key as messages
from sojourn.spireapi.bound_key import Answer, Asked, digest_of

_UNKNOWN: Final = "failed to attest: no node is bound to this key: have a token made for it"


class BoundKeys:
    """The keys that are bound, which lie with the nodes themselves."""

    type = messages.TYPE

    def __init__(self, nodes: Nodes, tokens: JoinTokens, trust_domain: TrustDomain, restored_at: int = 0) -> None:
        """`restored_at`: when the server was begun on a database that is not the one of its last run, in seconds since
        the epoch; 0: never. A node that has joined before that has a stamp of which such a database knows nothing.
        """
        self._nodes = nodes
        self._tokens = tokens
        self._trust_domain = trust_domain
        self._restored_at = restored_at
        self._keys: dict[SpiffeId, str] = {}  # digests
        self._bound: dict[str, SpiffeId] = {}  # the nodes by them
        for each in nodes:
            self._changed(each.spiffe_id, each)
        nodes.on_change(self._changed)

    def _changed(self, spiffe_id: SpiffeId, node: Node | None) -> None:
        before = self._keys.pop(spiffe_id, None)
        if before is not None:
            self._bound.pop(before, None)
        if node is not None and node.bound is not None:
            self._keys[spiffe_id] = node.bound.key
            self._bound[node.bound.key] = spiffe_id

    async def attest(self, payload: bytes, challenge: Challenge) -> Attested:
        """Raise InvalidInput for what cannot be read and for a token that is not good, Refused for what proves nothing,
        and for a node that is locked.
        """
        asked = Asked.parse(payload)
        theirs = os.urandom(messages.NONCE_BYTES)
        answer = Answer.parse(await challenge(messages.challenge(theirs)))
        if not messages.is_proof(self._trust_domain.name, theirs, asked, answer):
            raise Refused("challenge response verification failed: the signature is not good")
        token = self._tokens.bound(asked.token) if asked.token else None
        if token is not None:
            return await self._bind(asked, answer, token)
        # Its answer may have been lost when the token was used: then the key is bound, and the node has no other proof.
        node = self._node_of(digest_of(asked.key_der))
        if node is not None and node.bound is not None:
            return await self._again(node, node.bound, answer)
        if asked.token:
            self._tokens.refuse_unknown()
        raise Refused(_UNKNOWN)

    def _node_of(self, key: str) -> Node | None:
        spiffe_id = self._bound.get(key)
        return None if spiffe_id is None else self._nodes.get(spiffe_id)

    async def _bind(self, asked: Asked, answer: Answer, token: JoinToken) -> Attested:
        """Bind a key by a token, in the place of the one before: that opens nothing any more, and a lock is gone."""
        spiffe_id = named_node(self._trust_domain, token.name)
        self._nodes.check_welcome(spiffe_id)
        if asked.name and asked.name != token.name:
            raise Refused(
                f"failed to attest: the token is for the node {quoted(token.name)}, and who shows it is the node"
                f" {quoted(asked.name)}"
            )
        key = digest_of(asked.key_der)
        if key in self._bound:
            raise Refused("failed to attest: the key is bound already: a token binds a new one")
        await self._tokens.use_up(token)
        before = self._nodes.get(spiffe_id)
        return self._attested(spiffe_id, token.name, BoundKey(key, answer.following.hex(), joins=1),
                              None if before is None else before.bound)  # fmt: skip

    async def _again(self, node: Node, bound: BoundKey, answer: Answer) -> Attested:
        self._nodes.check_welcome(node.spiffe_id)
        if bound.locked:
            _refuse_locked(node)
        known = any(hmac.compare_digest(digest_of(each), bound.stamp) for each in answer.held)
        if not known and node.attested_at >= self._restored_at:
            await self._nodes.lock(node.spiffe_id, bound)
            _refuse_locked(node)
        following = replace(bound, stamp=answer.following.hex(), joins=bound.joins + 1)
        return self._attested(node.spiffe_id, node.spiffe_id.path.rpartition("/")[2], following, bound)

    def _attested(self, spiffe_id: SpiffeId, name: str, bound: BoundKey, seen: BoundKey | None) -> Attested:
        selectors = frozenset({Selector.from_parts(self.type, f"node:{name}")})
        return Attested(spiffe_id, selectors, reattestable=True, name=name, bound=bound, seen=seen)


def check_free(nodes: Nodes, trust_domain: TrustDomain, name: str) -> None:
    """Raise FailedPrecondition if a name is bound to a key: who joined by a token that binds none would have what is
    the node's own.
    """
    if nodes.is_bound(named_node(trust_domain, name)):
        raise FailedPrecondition(
            f"the node {quoted(name)} is bound to a key: make a token with --bound, or evict it (`sojourn agent evict`)"
        )


def _refuse_locked(node: Node) -> NoReturn:
    name = node.spiffe_id.path.rpartition("/")[2]
    raise Refused(
        f"failed to attest: the node {quoted(name)} is locked, since two have its key: a token of `sojourn token"
        f" generate --bound --node {name}` binds another one"
    )
