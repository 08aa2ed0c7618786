"""Token revocation (RFC 7009): what clients may do to a token."""

import asyncio
from typing import Any, Final

from sojourn.errors import InvalidToken, StoreFailed
from sojourn.errors.oauth import UnsupportedTokenType
from sojourn.limits import REVOCATION_WRITE_SECONDS
from sojourn.oauth.client_auth import OAuthClient
from sojourn.oauth.resource_servers import Audiences
from sojourn.oauth.token_query import TokenQuery
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.task import COMPLETED, PENDING, Task
from sojourn.tasktoken import tokens
from sojourn.tasktoken.end_reasons import CANCELLED
from sojourn.tasktoken.tokens import TaskToken

TASK_HINT: Final = "task"  # `token_type_hint` of a revocation that means the whole task


class TokenRevocation:
    """Revokes task tokens, for clients that have authenticated."""

    def __init__(
        self,
        engine: TaskEngine,
        changing: TaskChanges,
        audiences: Audiences,
        write_seconds: float = REVOCATION_WRITE_SECONDS,
    ) -> None:
        """`write_seconds`: for so long a revocation waits for the disk."""
        self._engine = engine
        self._changing = changing
        self._audiences = audiences
        self._write_seconds = write_seconds

    async def revoke(self, client: OAuthClient, query: TokenQuery) -> Task | None:
        """Revoke a token, and return when that is on disk; None if there was nothing that this client may revoke.

        All tokens of the task that are as old die with it. Its holder ends the task by the hint TASK_HINT. Raise
        UnsupportedTokenType, or StoreFailed if it is in force and not on disk.
        """
        try:
            unverified = self._engine.issuing.signatures.parse_unverified(query.unverified_token)
            if unverified.typ != tokens.TYP:
                raise UnsupportedTokenType("only task tokens can be revoked: an SVID is revoked by an operator")
            token = self._engine.issuing.read(unverified)
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
            async with asyncio.timeout(self._write_seconds):  # also of what was revoked by an earlier request
                await self._engine.journal.written(task.id)
        except TimeoutError:
            raise StoreFailed("the token is revoked, and that could not be written yet") from None
        return task

    def _revoke(self, client: OAuthClient, token: TaskToken, task: Task, *, whole: bool) -> None:
        by: dict[str, Any] = {"by": str(client.identities[0]), "jti": token.claims.get("jti")}
        if whole:
            self._engine.end(task, COMPLETED, CANCELLED, **by)
        elif token.task_version >= task.version and not self._engine.issuing.has_expired(token):
            self._changing.supersede(task, **by)
