"""What clients may know of a token and do to it: introspection (RFC 7662) and revocation (RFC 7009).

A token's holder is the workload that it was issued to; its audience is the service that it is for. Nobody else learns
anything of it, not even whether it ever was one.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sojourn.errors import InvalidInput, InvalidToken, SojournError, StoreFailed, TaskOver
from sojourn.errors.oauth import UnsupportedTokenType
from sojourn.identity.entries import Entry
from sojourn.identity.identities import Identities
from sojourn.jose.jws import UnverifiedJws, audiences
from sojourn.limits import REVOCATION_WRITE_SECONDS
from sojourn.oauth.client_auth import OAuthClient
from sojourn.oauth.resource_servers import Audiences
from sojourn.runtime.clock import Clock
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.task import COMPLETED, PENDING, Task
from sojourn.tasktoken import tokens
from sojourn.tasktoken.end_reasons import CANCELLED
from sojourn.tasktoken.tokens import TaskToken

INTROSPECTION_TYP: Final = "token-introspection+jwt"  # RFC 9701, 5
TASK_HINT: Final = "task"  # `token_type_hint` of a revocation that means the whole task
INACTIVE: Final[Mapping[str, Any]] = {"active": False}
_OF_TOKEN = (
    "iss",
    "sub",
    "client_id",
    "aud",
    "iat",
    "nbf",
    "exp",
    "jti",
    "authorization_details",
    "task",
    "cnf",
    "act",
    "acr",
)
_OF_SVID = ("iss", "sub", "aud", "iat", "nbf", "exp", "jti")


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """A token that a client asks about, and what it says of its type."""

    unverified_token: str = field(repr=False)
    hint: str = ""

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> "TokenQuery":
        """Read a form's fields that have a value. Raise InvalidInput."""
        if not fields.get("token"):
            raise InvalidInput("token is missing")
        return cls(fields["token"], fields.get("token_type_hint", ""))


class Introspection:
    """Tells of tokens and revokes them, for clients that have authenticated."""

    def __init__(
        self,
        engine: TaskEngine,
        changing: TaskChanges,
        audiences_: Audiences,
        identities: Identities,
        was_used: Callable[[TaskToken], bool],
        clock: Clock,
    ) -> None:
        """`was_used`: of a token that is good once."""
        self._was_used = was_used
        self._engine = engine
        self._changing = changing
        self._audiences = audiences_
        self._identities = identities
        self._clock = clock

    # --- introspection ----------------------------------------------------------------------------------------------

    def introspect(self, client: OAuthClient, query: TokenQuery) -> Mapping[str, Any]:
        """The answer of RFC 7662, 2.2: INACTIVE for whoever is neither holder nor audience. Never raises."""
        try:
            unverified = self._engine.issuing.signatures.parse_unverified(query.unverified_token)
            if unverified.typ != tokens.TYP:
                return self._of_jwt_svid(client, unverified)
            token = self._read(unverified)
        except SojournError:
            return INACTIVE
        is_audience = self._audiences.serves(client.entries, token.resource)
        if not is_audience and not client.has(token.actor):
            return INACTIVE
        try:
            if self._has_expired(token):
                raise TaskOver("the token has expired")
            if self._was_used(token):
                raise TaskOver("the token was good once, and was used")
            self._engine.check_token(token)
        except SojournError:
            return {**INACTIVE, "task_state": self._state(token)} if is_audience else INACTIVE
        actions = [action for action in token.actions if action not in token.asks]
        if not actions:  # nobody may act on this answer: of each use the agent itself must be asked
            return {**INACTIVE, "task_state": self._state(token)} if is_audience else INACTIVE
        claims = {name: token.claims[name] for name in _OF_TOKEN if name in token.claims}
        if token.asks:
            claims["authorization_details"] = [{**claims["authorization_details"][0], "actions": actions}]
        return {"active": True, "scope": " ".join(actions), "token_type": token.token_type, **claims}

    def signed(self, client: OAuthClient, answer: Mapping[str, Any]) -> str:
        """The answer as a JWT for this client alone (RFC 9701, 5)."""
        claims = {
            "iss": self._engine.issuer,
            "aud": str(client.identities[0]),
            "iat": int(self._now.timestamp()),
            "token_introspection": dict(answer),
        }
        return self._engine.keys.active.sign(claims, typ=INTROSPECTION_TYP)

    def _of_jwt_svid(self, client: OAuthClient, unverified: UnverifiedJws) -> Mapping[str, Any]:
        """What a JWT-SVID says, to its own subject and to its audience. Raises InvalidToken."""
        named = audiences(unverified.unverified_claims)
        ours = [each for each in named if self._is_audience(client.entries, each)]
        svid = self._identities.verify_jwt_svid(unverified.text, ours or named, client.entries)
        if not ours and not client.has(svid.spiffe_id):
            return INACTIVE
        if svid.expires_at <= self._now:
            return INACTIVE
        claims = {name: svid.claims[name] for name in _OF_SVID if name in svid.claims}
        return {"active": True, "token_type": "N_A", "client_id": str(svid.spiffe_id), **claims}

    def _is_audience(self, entries: tuple[Entry, ...], audience: str) -> bool:
        """A workload is the audience of what names it, or a resource that it serves."""
        return any(str(entry.spiffe_id) == audience for entry in entries) or self._audiences.serves(entries, audience)

    # --- revocation -------------------------------------------------------------------------------------------------

    async def revoke(self, client: OAuthClient, query: TokenQuery) -> Task | None:
        """Revoke a token, and return when that is on disk; None if there was nothing that this client may revoke.

        All tokens of the task that are as old die with it. Its holder ends the task by the hint TASK_HINT. Raise
        UnsupportedTokenType, or StoreFailed if it is in force and not on disk.
        """
        try:
            unverified = self._engine.issuing.signatures.parse_unverified(query.unverified_token)
            if unverified.typ != tokens.TYP:
                raise UnsupportedTokenType("only task tokens can be revoked: an SVID is revoked by an operator")
            token = self._read(unverified)
        except InvalidToken:
            return None
        is_holder = client.has(token.actor)
        if not is_holder and not self._audiences.serves(client.entries, token.resource):
            return None
        task = self._engine.tasks.find(token.task_id)
        if task is None:
            return None
        if task.live and task.state != PENDING:
            self._revoke(client, token, task, whole=is_holder and query.hint == TASK_HINT)
        try:
            async with asyncio.timeout(REVOCATION_WRITE_SECONDS):  # also of what was revoked by an earlier request
                await self._engine.journal.written(task.id)
        except TimeoutError:
            raise StoreFailed("the token is revoked, and that could not be written yet") from None
        return task

    def _revoke(self, client: OAuthClient, token: TaskToken, task: Task, *, whole: bool) -> None:
        by: dict[str, Any] = {"by": str(client.identities[0]), "jti": token.claims.get("jti")}
        if whole:
            self._engine.end(task, COMPLETED, CANCELLED, **by)
        elif token.task_version >= task.version and not tokens.has_expired(
            token, self._now, self._engine.issuing.steady()
        ):
            self._changing.supersede(task, **by)

    def _has_expired(self, token: TaskToken) -> bool:
        return tokens.has_expired(token, self._now, self._engine.issuing.steady())

    # --- both -------------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> datetime:
        return self._clock.now()

    def _read(self, unverified: UnverifiedJws) -> TaskToken:
        return tokens.read_issued(
            unverified,
            keys=self._engine.keys.published,
            issuer=self._engine.issuer,
            now=self._now,
            signatures=self._engine.issuing.signatures,
        )

    def _state(self, token: TaskToken) -> str:
        """What has become of the task of a token that its audience was given."""
        task = self._engine.tasks.find(token.task_id)
        return task.state if task is not None else "ended"
