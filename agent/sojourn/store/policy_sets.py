"""The sets of task types that records name by their digests, for as long as the journal has such a record.

Each text lies here once, in however many sets it is.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from sojourn.limits import WRITES_WAITING
from sojourn.store import settings
from sojourn.store.database import Database
from sojourn.store.tables import policy_sets, policy_texts


class PolicySetTable:
    """Keeps the set in force, beside those of before."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, digest: str, texts: Mapping[str, str]) -> None:
        """Have this set as the one in force. Raise StoreFailed, StoreFull, LimitExceeded."""
        digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}

        def work(connection: Connection) -> None:
            head = int((settings.get(connection, settings.AUDIT_HEAD) or "0").split(" ")[0])
            # Decisions by a set may be on disk before it is here, and wait for the disk when another has come.
            retired = policy_sets.update().where(policy_sets.c.until_seq == 0, policy_sets.c.digest != digest)
            connection.execute(retired.values(until_seq=head + WRITES_WAITING))
            for name, text in texts.items():
                put = insert(policy_texts).values(digest=digests[name], text=text).on_conflict_do_nothing()
                connection.execute(put)
            row = {"from_seq": max(1, head - WRITES_WAITING), "until_seq": 0, "files": json.dumps(digests)}
            made = insert(policy_sets).values(digest=digest, **row)
            connection.execute(made.on_conflict_do_update(index_elements=["digest"], set_={"until_seq": 0}))

        await self._database.write(work)

    async def named(self, begin: int, end: int) -> Sequence[str]:
        """The digests of the sets that records from `begin` to `end` may name."""

        def work(connection: Connection) -> list[str]:
            over = (policy_sets.c.until_seq > 0) & (policy_sets.c.until_seq < begin)
            found = select(policy_sets.c.digest).where(policy_sets.c.from_seq <= end, ~over)
            return [row.digest for row in connection.execute(found.order_by(policy_sets.c.from_seq))]

        return await self._database.read(work)

    async def files(self, digest: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """A set's files by their names, each as the digest of its text, and the texts by their digests; nothing, if it
        was taken away meanwhile.
        """

        def work(connection: Connection) -> tuple[dict[str, str], dict[str, str]]:
            files = connection.execute(select(policy_sets.c.files).where(policy_sets.c.digest == digest)).scalar()
            digests: dict[str, str] = json.loads(files or "{}")
            texts = {}
            for each in set(digests.values()):
                found = select(policy_texts.c.text).where(policy_texts.c.digest == each)
                texts[each] = str(connection.execute(found).scalar())
            return digests, texts

        return await self._database.read(work)


def prune(connection: Connection, last: int) -> None:
    """Take away the sets that no record behind `last` names, and the texts that are in no other."""
    over = (policy_sets.c.until_seq > 0) & (policy_sets.c.until_seq <= last)
    if not connection.execute(delete(policy_sets).where(over)).rowcount:
        return
    rows = connection.execute(select(policy_sets.c.files))
    kept = {digest for row in rows for digest in json.loads(row.files).values()}
    there = {row.digest for row in connection.execute(select(policy_texts.c.digest))}
    for digest in there - kept:
        connection.execute(delete(policy_texts).where(policy_texts.c.digest == digest))
