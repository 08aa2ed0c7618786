"""Assertions that were used, in the database: each is good once, over restarts and clocks that are set."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.exc import DBAPIError

from sojourn.errors import LimitExceeded, SojournError
from sojourn.limits import JWT_LEEWAY_SECONDS, USED_TOKENS, USED_TOKENS_KEPT_SECONDS, USED_TOKENS_PURGE_SECONDS
from sojourn.oautherrors import InvalidGrant
from sojourn.store import settings
from sojourn.store.database import Database
from sojourn.store.prepared import Prepared
from sojourn.store.tables import used_tokens
from sojourn.tasks.assertions import Assertion

_FORGOTTEN = "used_tokens_forgotten"  # the latest end of one that was forgotten, seconds since the epoch
_KNOWN = Prepared(select(used_tokens.c.digest).where(used_tokens.c.digest == bindparam("named")))
_INSERT = Prepared(used_tokens.insert(), ("digest", "expires_at"))


class UsedTable:
    """The store that clients of the token service ask for."""

    def __init__(self, database: Database, room: int = USED_TOKENS) -> None:
        self._database = database
        self._room = room
        # Of the writer thread. None: not looked at yet, or something was rolled back.
        self._count: int | None = None
        self._forgotten: int | None = None
        self._purged_at: int | None = None
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
            self._forgotten = int(settings.get(connection, _FORGOTTEN) or -1)
        if self._count is None:
            self._count = connection.execute(select(func.count()).select_from(used_tokens)).scalar_one()
        # Whoever sets the clock may have had something forgotten: nothing that ends so early is taken again.
        if self._purged_at is None or abs(now - self._purged_at) >= USED_TOKENS_PURGE_SECONDS:
            self._purge(connection, now - USED_TOKENS_KEPT_SECONDS)
            self._purged_at = now
        if self._count + len(assertions) > self._room:
            self._purge(connection, now - JWT_LEEWAY_SECONDS)
            if self._count + len(assertions) > self._room:
                return LimitExceeded("too many assertions were used of late: come again in a minute")
        for each in assertions:
            if each.expires_at <= self._forgotten:
                return _used("it is as old as others that are forgotten, so it may have been used")
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
        """Forget those that had ended by then, and from now on take none that ends so early."""
        assert self._count is not None
        assert self._forgotten is not None
        ended = used_tokens.c.expires_at <= ended_by
        latest = connection.execute(select(func.max(used_tokens.c.expires_at)).where(ended)).scalar()
        if latest is None:
            return
        self._count -= connection.execute(used_tokens.delete().where(ended)).rowcount
        if latest > self._forgotten:
            self._forgotten = latest
            settings.put(connection, _FORGOTTEN, str(latest))

    def _forget_what_is_known(self) -> None:
        self._count = self._forgotten = self._purged_at = None


def _used(why: str) -> InvalidGrant:
    return InvalidGrant(f"the assertion is not good: {why}")
