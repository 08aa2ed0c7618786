"""Assertions that were used, in the database: each is good once, over restarts and clocks that are set."""

from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.exc import DBAPIError

from sojourn.errors import LimitExceeded, SojournError
from sojourn.errors.oauth import InvalidGrant
from sojourn.limits import (
    FORGOTTEN_GAP_SECONDS,
    JWT_LEEWAY_SECONDS,
    USED_TOKENS,
    USED_TOKENS_KEPT_SECONDS,
    USED_TOKENS_PURGE_SECONDS,
)
from sojourn.oauth.assertion_ids import Assertion
from sojourn.runtime.forgotten_times import Forgotten
from sojourn.store import settings
from sojourn.store.database import Database
from sojourn.store.forgotten_spans import spans_of
from sojourn.store.prepared_statements import Prepared
from sojourn.store.tables import used_tokens

log = structlog.get_logger()
_FORGOTTEN = "used_tokens_forgotten"  # when those that were forgotten had ended
_LAST_SECOND = 253_402_300_799  # of the year 9999
_KNOWN = Prepared(select(used_tokens.c.digest).where(used_tokens.c.digest == bindparam("named")))
_INSERT = Prepared(used_tokens.insert(), ("digest", "expires_at"))


class UsedTable:
    """The store that clients of the token service ask for."""

    def __init__(self, database: Database, room: int = USED_TOKENS) -> None:
        self._database = database
        self._room = room
        # The writer thread's. None: not looked at yet, or something was rolled back.
        self._count: int | None = None
        self._forgotten: Forgotten | None = None
        self._purged_at: int | None = None
        self._told: tuple[int, int] | None = None  # of the log
        database.on_rollback(self._forget_what_is_known)

    async def claim(self, assertions: Sequence[Assertion], now: int) -> None:
        """Use assertions up, all or none; on disk when this returns. `now`: seconds since the epoch.

        Raise InvalidGrant if one was used before, or might have been; LimitExceeded if no more can be remembered.
        """
        refused = await self._database.write(lambda connection: self._claim(connection, assertions, now))
        if refused is not None:
            raise refused

    def _claim(self, connection: Connection, assertions: Sequence[Assertion], now: int) -> SojournError | None:
        """Return why not. It is not raised here: a write that fails costs all others that were waiting with it time."""
        if self._forgotten is None:
            self._forgotten = Forgotten.parse(settings.get(connection, _FORGOTTEN))
            self._tell(now)
        if self._count is None:
            self._count = connection.execute(select(func.count()).select_from(used_tokens)).scalar_one()
        # Whoever sets the clock may have had something forgotten: nothing that ends as that did is taken again.
        if self._purged_at is None or abs(now - self._purged_at) >= USED_TOKENS_PURGE_SECONDS:
            self._purge(connection, now - USED_TOKENS_KEPT_SECONDS)
            self._purged_at = now
            self._tell(now)
        if self._count + len(assertions) > self._room:
            self._purge(connection, now - JWT_LEEWAY_SECONDS)
            if self._count + len(assertions) > self._room:
                return LimitExceeded("too many assertions were used of late: come again in a minute")
        for each in assertions:
            if self._forgotten.has(each.expires_at):
                return _used("it ends when others did that are forgotten, so it may have been used")
            if _KNOWN.run(connection, {"named": each.digest}).fetchone() is not None:
                return _used("it was used before: get a new one for each request")
        try:
            _INSERT.run_for_each(
                connection, [{"digest": each.digest, "expires_at": each.expires_at} for each in assertions]
            )
        except DBAPIError as error:
            if isinstance(error.orig, connection.dialect.loaded_dbapi.IntegrityError):  # another node was first
                raise _used("it was used before: get a new one for each request") from error
            raise
        self._count += len(assertions)
        return None

    def _purge(self, connection: Connection, ended_by: int) -> None:
        """Forget those that had ended by then, and from now on take none that ends as they did."""
        assert self._count is not None
        assert self._forgotten is not None
        ended = used_tokens.c.expires_at <= ended_by
        spans = spans_of(connection, used_tokens.c.expires_at, ended, FORGOTTEN_GAP_SECONDS)
        if not spans:
            return
        self._count -= connection.execute(used_tokens.delete().where(ended)).rowcount
        self._forgotten = self._forgotten.and_of(spans)
        settings.put(connection, _FORGOTTEN, self._forgotten.text)

    def _tell(self, now: int) -> None:
        """Say what a clock has left that stood ahead: some will be refused then who have done nothing wrong."""
        span = None if self._forgotten is None else self._forgotten.ahead(now)
        if span is not None and span != self._told:
            self._told = span
            first, last = (datetime.fromtimestamp(min(each, _LAST_SECOND), UTC).isoformat() for each in span)
            log.warning(
                "assertions_used_ahead",
                reason=f"the clock has stood ahead: assertions that end from {first} to {last} will be refused then",
            )

    def _forget_what_is_known(self) -> None:
        self._count = self._forgotten = self._purged_at = None


def _used(why: str) -> InvalidGrant:
    return InvalidGrant(f"the assertion is not good: {why}")
