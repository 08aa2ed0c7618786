"""The index of the journal: which records of a block have what is searched for.

A block is BLOCK numbers of records. Once all of them are written its records are read, and what they are found by
(`audit/searchable.py`) is written beside them, a row for each term with the places of the records that have it. So a
request that is recorded pays nothing for it, and what is written lies at the end of a table. The records of the last
block, and those that an upgrade found here, are looked through until they are indexed.

A term is 48 bits of a digest: whoever searches looks at the records themselves, too.
"""

import asyncio
import hashlib
import sys
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final, NoReturn

import structlog
from sqlalchemy import Connection, bindparam, delete, func, select, tuple_

from sojourn.audit.searchable import Key, keys_of
from sojourn.errors import SojournError
from sojourn.operating_limits import INDEX_AGAIN_SECONDS, INDEX_PAUSE_SECONDS, INDEX_PRUNED, INDEX_READ, INDEX_WRITTEN
from sojourn.store.database import Database
from sojourn.store.prepared_statements import Prepared
from sojourn.store.tables import audit, audit_blocks, audit_terms

log = structlog.get_logger()
BLOCK: Final = 2048  # records; a part of what is on disk: another number needs a migration
_BITMAP_BYTES: Final = BLOCK // 8
_BITMAP_FROM: Final = _BITMAP_BYTES // 2  # so many places, of two bytes each, are as long as a bitmap
_TERM_BYTES: Final = 6
_ALL: Final = (1 << BLOCK) - 1
_READ = Prepared(
    select(audit.c.seq, audit.c.at_ms, audit.c.event, audit.c.fields)
    .where(audit.c.seq >= bindparam("low"), audit.c.seq < bindparam("high"))
    .order_by(audit.c.seq)
)
# A crash may have left some of a block's.
_PUT = Prepared(audit_terms.insert().prefix_with("OR REPLACE"), ("block", "term", "places"))


@dataclass(frozen=True, slots=True)
class Block:
    """What is indexed of a block."""

    number: int
    first_ms: int
    last_ms: int
    places: Mapping[int, bytes]  # by term


def term_of(key: Key) -> int:
    """What stands in the index for what a record is found by."""
    what, value = key
    made = hashlib.blake2b(f"{what}\n{value}".encode(errors="surrogatepass"), digest_size=_TERM_BYTES)
    return int.from_bytes(made.digest(), "big")


class BlockMaking:
    """A block while its records are read, in order."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._found: dict[Key, list[int]] = {}
        self._first_ms, self._last_ms = sys.maxsize, -sys.maxsize

    def add(self, seq: int, at_ms: int, event: str, fields: str) -> None:
        place = seq - self.number * BLOCK
        self._first_ms, self._last_ms = min(self._first_ms, at_ms), max(self._last_ms, at_ms)
        for key in keys_of(event, fields):
            self._found.setdefault(key, []).append(place)

    def made(self) -> Block:
        """The block, its terms in the order in which they are written."""
        places: dict[int, bytes] = {}
        by_term = sorted((term_of(key), found) for key, found in self._found.items())
        for term, several in groupby(by_term, key=lambda each: each[0]):
            places[term] = _packed(sorted({place for _, found in several for place in found}))
        return Block(self.number, self._first_ms, self._last_ms, places)


def _packed(places: Sequence[int]) -> bytes:
    """Ascending places in a block: two bytes each, low byte first, or a bitmap of the block if there are many."""
    if len(places) >= _BITMAP_FROM:
        bits = 0
        for place in places:
            bits |= 1 << place
        return bits.to_bytes(_BITMAP_BYTES, "little")
    made = array("H", places)
    if sys.byteorder == "big":
        made.byteswap()
    return made.tobytes()


def unpacked(packed: bytes) -> int:
    """Places in a block, as bits of a number."""
    if len(packed) == _BITMAP_BYTES:
        return int.from_bytes(packed, "little")
    made = array("H")
    made.frombytes(packed)
    if sys.byteorder == "big":
        made.byteswap()
    bits = 0
    for place in made:
        bits |= 1 << place
    return bits


def places_in(bits: int, *, descending: bool = False) -> Iterator[int]:
    """The places that `unpacked` has, the lowest first or the highest."""
    while bits:
        place = bits.bit_length() - 1 if descending else (bits & -bits).bit_length() - 1
        bits ^= 1 << place
        yield place


def indexed_until(connection: Connection) -> int:
    """The number of the last record that is indexed; 0 if none is."""
    last = connection.execute(select(func.max(audit_blocks.c.number))).scalar()
    return 0 if last is None else (int(last) + 1) * BLOCK - 1


def candidates(
    connection: Connection,
    terms: Sequence[Collection[int]],
    numbers: range,
    between_ms: tuple[int, int],
    *,
    descending: bool,
) -> Iterator[tuple[int, int]]:
    """The blocks of these numbers that have a record with one of each of these terms, with its places as bits.

    `terms`: all records of a block if there are none. `between_ms`: blocks whose records are all older than the first,
    or none older than the second, are left out.
    """
    since_ms, until_ms = between_ms
    order = audit_blocks.c.number.desc() if descending else audit_blocks.c.number
    among = (
        (audit_blocks.c.number >= numbers.start)
        & (audit_blocks.c.number < numbers.stop)
        & (audit_blocks.c.last_ms >= since_ms)
        & (audit_blocks.c.first_ms < until_ms)
    )
    if not terms:
        for row in connection.execute(select(audit_blocks.c.number).where(among).order_by(order)):
            yield row.number, _ALL
        return
    asked = (
        select(audit_blocks.c.number, audit_terms.c.term, audit_terms.c.places)
        .join(audit_terms, audit_terms.c.block == audit_blocks.c.number)
        .where(among, audit_terms.c.term.in_(sorted({term for each in terms for term in each})))
        .order_by(order)
    )
    for number, rows in groupby(connection.execute(asked), key=lambda row: row.number):
        found = {row.term: row.places for row in rows}
        bits = _ALL
        for each in terms:
            one_of = 0
            for term in each:
                one_of |= unpacked(found.get(term, b""))
            bits &= one_of
            if not bits:
                break
        if bits:
            yield number, bits


def prune(connection: Connection, last: int) -> None:
    """Take away what is indexed of records that are gone, up to the record `last`. Where that is very much, some of it
    goes the next time; nobody finds it until then.
    """
    gone = (last + 1) // BLOCK
    connection.execute(delete(audit_blocks).where(audit_blocks.c.number < gone))
    some = select(audit_terms.c.block, audit_terms.c.term).where(audit_terms.c.block < gone)
    some = some.order_by(audit_terms.c.block, audit_terms.c.term).limit(INDEX_PRUNED)
    connection.execute(delete(audit_terms).where(tuple_(audit_terms.c.block, audit_terms.c.term).in_(some)))


class AuditIndex:
    """Indexes block after block, behind the records."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wake = asyncio.Event()
        self._wanted = 0  # the record with which the next block is whole, as far as is known

    def heard(self, loop: asyncio.AbstractEventLoop, seq: int) -> None:
        """The journal is on disk up to this record. Called in the writer's thread, after each commit."""
        if seq >= self._wanted and not self._wake.is_set():
            loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> NoReturn:
        """Index what is whole, until cancelled."""
        while True:
            pause = INDEX_PAUSE_SECONDS
            try:
                if not await self.step():
                    await self._wake.wait()
            except SojournError as error:
                log.error("audit_not_indexed", reason=error.public, detail=error.detail)
                pause = INDEX_AGAIN_SECONDS
            await asyncio.sleep(pause)

    async def step(self) -> bool:
        """Index the next block. False: none is whole. Raise StoreFailed, StoreFull, LimitExceeded."""
        self._wake.clear()
        number, newest = await self._database.read(_next)
        self._wanted = (number + 1) * BLOCK - 1
        if newest < self._wanted:
            return False
        making = BlockMaking(number)
        for low in range(number * BLOCK, (number + 1) * BLOCK, INDEX_READ):
            await self._database.read(partial(_read, making, low))
        block = await asyncio.to_thread(making.made)
        rows = [{"block": number, "term": term, "places": places} for term, places in block.places.items()]
        for begin in range(0, len(rows), INDEX_WRITTEN):
            await self._database.write(partial(_write, rows[begin : begin + INDEX_WRITTEN]))
        await self._database.write(lambda connection: _finish(connection, block))
        return True


def _next(connection: Connection) -> tuple[int, int]:
    """The number of the block that is to be indexed next, and of the newest record."""
    oldest = connection.execute(select(func.min(audit.c.seq))).scalar() or 0
    newest = connection.execute(select(func.max(audit.c.seq))).scalar() or 0
    return max((indexed_until(connection) + 1) // BLOCK, oldest // BLOCK), newest


def _read(making: BlockMaking, low: int, connection: Connection) -> None:
    for row in _READ.run(connection, {"low": low, "high": low + INDEX_READ}):
        making.add(*row)


def _write(rows: Sequence[Mapping[str, object]], connection: Connection) -> None:
    _PUT.run_for_each(connection, rows)


def _finish(connection: Connection, block: Block) -> None:
    """What was written of the block is found from now on."""
    times = {"first_ms": block.first_ms, "last_ms": block.last_ms}
    connection.execute(audit_blocks.insert().values(number=block.number, **times))
