"""Join tokens: each lets one node join, once. What is kept of a token is its digest."""

import hashlib
import uuid
from datetime import timedelta
from typing import Any, NoReturn

from sojourn.audit.journal import Audit
from sojourn.errors import AlreadyExists, InvalidInput, InvalidSpiffeId, LimitExceeded
from sojourn.limits import JOIN_TOKEN_MAX_BYTES, JOIN_TOKEN_MAX_SECONDS, JOIN_TOKENS
from sojourn.runtime.background import whole
from sojourn.runtime.clock import Clock
from sojourn.server.node_attestor import Attested, Challenge, node_id
from sojourn.server.node_records import JoinToken, JoinTokenStore
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spireapi.bound_key import TOKEN_PREFIX
from sojourn.spireapi.bound_key import TYPE as BOUND_KEY


class JoinTokens:
    """Those that are not used yet, and the attestor `join_token`."""

    type = "join_token"

    def __init__(self, store: JoinTokenStore, trust_domain: TrustDomain, audit: Audit, clock: Clock) -> None:
        self._store = store
        self._trust_domain = trust_domain
        self._audit = audit
        self._clock = clock
        self._tokens = {each.digest: each for each in store.load()}

    def __len__(self) -> int:
        return len(self._tokens)

    def node_of(self, token: str) -> SpiffeId:
        """The ID of the node that joins by a token. Raise InvalidInput if no node can have it."""
        try:
            return node_id(self._trust_domain, self.type, token)
        except InvalidSpiffeId as error:
            raise InvalidInput(f"failed to create join token ID: {error.public}") from error

    @whole
    async def make(
        self, ttl: int, *, token: str = "", name: str = "", bound: bool = False, by: dict[str, Any]
    ) -> tuple[str, int]:
        """Make a token that is good for `ttl` seconds, and return it and when it ends, in seconds since the epoch.

        `token`: what it is to be; empty: a random one. `bound`: it binds the name to a key, and is good for the
        attestor `bound_key` alone. `by`: who asks for it, for the audit. Raise InvalidInput, AlreadyExists,
        LimitExceeded.
        """
        if not 1 <= ttl <= JOIN_TOKEN_MAX_SECONDS:
            raise InvalidInput(
                f"ttl is {ttl} s: it must be from 1 s to {JOIN_TOKEN_MAX_SECONDS} s"
                if ttl
                else "ttl is required, you must provide one"
            )
        if token.startswith(TOKEN_PREFIX) or (bound and (token or not name)):
            raise InvalidInput("a token that binds a key is made up by the server, and for a name")
        value = token or f"{TOKEN_PREFIX if bound else ''}{uuid.uuid4()}"
        if len(value.encode()) > JOIN_TOKEN_MAX_BYTES:
            raise InvalidInput(f"the token is longer than {JOIN_TOKEN_MAX_BYTES} bytes")
        self.node_of(value)  # one that no node could be called by is none
        now = self._clock.now()
        await self._forget_ended(now.timestamp())
        made = JoinToken(_digest(value), int((now + timedelta(seconds=ttl)).timestamp()), name)
        if made.digest in self._tokens:
            raise AlreadyExists("there is such a join token already")
        if len(self._tokens) >= JOIN_TOKENS:
            raise LimitExceeded(f"{JOIN_TOKENS} join tokens wait to be used: wait until some have ended")
        self._tokens[made.digest] = made
        # The token itself is in the node's ID, and is told by no record while it is good.
        said = {"digest": made.digest[:16], "expires_at": made.expires_at, "name": name or None, **by}
        if bound:
            said["attestor"] = BOUND_KEY
        try:
            await self._store.put(made, [self._audit.event("join_token_made", said)])
        except BaseException:
            self._tokens.pop(made.digest, None)
            raise
        return value, made.expires_at

    async def attest(self, payload: bytes, challenge: Challenge) -> Attested:
        """Use a token up, whatever becomes of who shows it. Raise InvalidInput."""
        del challenge  # who has the token has proved all that there is to prove
        try:
            token = payload.decode()
            spiffe_id = node_id(self._trust_domain, self.type, token)
        except (UnicodeDecodeError, InvalidSpiffeId):
            raise _unknown() from None
        found = None if token.startswith(TOKEN_PREFIX) else self._tokens.get(_digest(token))
        if found is None:
            raise _unknown()
        await self.use_up(found)
        return Attested(spiffe_id, frozenset(), reattestable=False, name=found.name)

    def bound(self, token: str) -> JoinToken | None:
        """The token that binds a key, which is not used up yet; None: there is none."""
        return self._tokens.get(_digest(token)) if token.startswith(TOKEN_PREFIX) else None

    async def use_up(self, token: JoinToken) -> None:
        """Let nobody else have it, before anything is given for it. Raise InvalidInput if it is too late."""
        if self._tokens.pop(token.digest, None) is None:  # at once
            raise _unknown()
        await self._store.remove([token.digest])
        if token.expires_at < self._clock.now().timestamp():
            raise InvalidInput("join token expired")

    def refuse_unknown(self) -> NoReturn:
        """Raise InvalidInput in SPIRE's words."""
        raise _unknown()

    async def _forget_ended(self, now: float) -> None:
        ended = [each.digest for each in self._tokens.values() if each.expires_at < now]
        if ended:
            await self._store.remove(ended)
            for each in ended:
                self._tokens.pop(each, None)


def _unknown() -> InvalidInput:
    return InvalidInput("failed to attest: join token does not exist or has already been used")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
