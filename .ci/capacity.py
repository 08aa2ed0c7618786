"""Write docs/operate/capacity.md from the figures of docs/performance.md and the limits in the code, or, with
`--check`, fail if it is stale.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codes import table
from sojourn.limits import (
    AUDIT_DISK_SHARE,
    AUDIT_MAX_BYTES,
    DESCRIPTORS_PER_CONNECTION,
    DESCRIPTORS_RESERVED,
    HOST_MEMORY_MAX_BYTES,
    TOKEN_TTL_MAX_SECONDS,
)

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "operate" / "capacity.md"
FIGURES = ROOT / "docs" / "performance.md"
RECORD_BYTES = 700  # of the journal, as AUDIT_MAX_BYTES has it
EXCHANGE_RECORDS = 3  # that a task began, that a token was given, that the task ended
DAY = 86_400
MEBIBYTE, GIBIBYTE = 2**20, 2**30
ROOM = 2  # times what is used, for bursts
WARM_MIB = 30  # of the server for HTTP, which is loaded with its first request, and of caches that are full


TEXT = """\
# Capacity: how much to give it

For whoever sizes a machine, a unit or a container. `make capacity` writes this page from the figures of
[performance.md](../performance.md), which one run of the bench measured on two shared cores, and from the limits
in the code. What one user may take of it is in [limits.md](limits.md#what-one-agent-holds).

## Give it this

{given}

Memory and processors are twice what it takes. The agent is one loop, and can use one processor, and half of another
that writes the journal. Attestors of your own are processes of their own, up to {attestor} MiB each. Disk is for the
audit journal of ninety days, or of as long as `audit.max_bytes` allows by default; see below. Above the last line
there is nothing more to give it: begin with a second machine.

## What each thing takes

{parts}

They add up. The first request over HTTP loads its server, and caches fill up to their limits: {warm} MiB, once. An
exchange's task lives as long as its token, {life} seconds: 1,000 exchanges a second are {many} live tasks. With 10,000
entries a call takes no longer than with ten.

## The journal

A record takes about {record} bytes. An exchange without a task leaves {records} (the task began, the token was given,
the task ended); a token of a task that goes on leaves one, and so does a JWT-SVID that is given.

{journal}

`audit.max_bytes` is {most} GiB by default, or {share} of the disk if that is less; then the oldest records make room.
`sojourn_store_bytes`, `sojourn_store_max_bytes` and `sojourn_journal_oldest_timestamp_seconds` show where it stands,
and [JournalPrunesSoon](alerts.md#journalprunessoon) tells before the first record goes. A year at high rates is kept
elsewhere: read the journal as it grows, by `sojourn audit follow --output json`.

## Open files

The agent keeps {reserved} for itself, takes {each} for each connection of this machine (the socket, and the process
behind it), one for each over the network, and one for each process that holds tasks. It raises its own limit as far
as the hard one allows, and takes fewer connections where that is low: `LimitNOFILE=` of a unit, `--ulimit nofile` of a
container. `process_open_fds` beside `process_max_fds` show how much is taken.
"""


@dataclass(frozen=True, slots=True)
class Load:
    """How much there is of everything at once, and how many tokens are exchanged a second."""

    name: str
    entries: int
    streams: int
    tasks: int
    tokens: int


LOADS = (
    Load("a machine with some services", 10, 0, 0, 1),
    Load("a machine with many", 1_000, 1_000, 1_000, 10),
    Load("a machine of agents that act all day", 1_000, 1_000, 10_000, 100),
    Load("as much as one agent is for", 10_000, 5_000, 10_000, 1_000),
)
RATES = (1, 10, 100, 1_000)


@dataclass(frozen=True, slots=True)
class Model:
    """What each thing takes, by the measurements: MiB of memory, and seconds of a processor."""

    idle: float
    entry: float
    stream: float
    task: float
    exchange: float
    fetch: float
    jwt: float
    validation: float
    connection: float

    def memory(self, load: Load) -> float:
        """MiB. Each exchange has a task that lives as long as its token."""
        tasks = load.tasks + load.tokens * TOKEN_TTL_MAX_SECONDS
        return self.idle + WARM_MIB + load.entries * self.entry + load.streams * self.stream + tasks * self.task

    def processor(self, load: Load) -> float:
        """How many processors the exchanges take."""
        return load.tokens * self.exchange


def figure(text: str, row: str, place: int = 0) -> float:
    """A figure of Sojourn's by the beginning of its row; `place`: of several rows that begin so. Raise SystemExit."""
    found = re.findall(rf"^\| {re.escape(row)} \| [^|]*\| ([\d.,]+)", text, re.MULTILINE)
    if len(found) <= place:
        raise SystemExit(f"docs/performance.md has no row {row!r}")
    return float(found[place].replace(",", ""))


def model(text: str) -> Model:
    """By the page of figures."""

    def each(what: str, few: int, many: int) -> float:
        rows = [figure(text, f"RSS, {number:,} {what}") for number in (few, many)]
        return (rows[1] - rows[0]) / (many - few)

    def microseconds(row: str) -> float:
        return figure(text, f"{row}: daemons' CPU a call") / 1e6

    return Model(
        idle=figure(text, "idle: RSS of all daemons"),
        entry=each("registered entries", 100, 10_000),
        stream=figure(text, "for each of 5,000 streams, over none") / 1024,
        task=each("live tasks", 10, 9_900),
        exchange=microseconds("access token exchanged, 8 connections"),
        fetch=microseconds("FetchX509SVID, 8 clients"),
        jwt=microseconds("FetchJWTSVID, a new audience each, 8 clients"),
        validation=microseconds("ValidateJWTSVID, 8 clients"),
        connection=microseconds("new connection and FetchX509SVID, 8 clients"),
    )


def journal_bytes(tokens: float) -> float:
    """Bytes a day."""
    return tokens * EXCHANGE_RECORDS * RECORD_BYTES * DAY


def lasting(seconds: float) -> str:
    """A time as people say it."""
    for unit, size in (("days", DAY), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds / 60:,.0f} minutes"


def rounded(mebibytes: float) -> int:
    """Up to the next 64 MiB."""
    return int(-(-mebibytes // 64) * 64)


def page() -> str:
    """docs/operate/capacity.md, whole."""
    known = model(FIGURES.read_text("utf-8"))
    return TEXT.format(
        given="\n".join(_given(known)),
        parts="\n".join(_parts(known)),
        journal="\n".join(_journal()),
        attestor=HOST_MEMORY_MAX_BYTES // MEBIBYTE,
        warm=WARM_MIB,
        life=TOKEN_TTL_MAX_SECONDS,
        many=f"{1_000 * TOKEN_TTL_MAX_SECONDS:,}",
        record=RECORD_BYTES,
        records=EXCHANGE_RECORDS,
        most=AUDIT_MAX_BYTES // GIBIBYTE,
        share=f"{AUDIT_DISK_SHARE:.0%}",
        reserved=DESCRIPTORS_RESERVED,
        each=DESCRIPTORS_PER_CONNECTION,
    )


def _given(known: Model) -> Iterator[str]:
    rows = []
    for load in LOADS:
        takes, processor = known.memory(load), ROOM * known.processor(load)
        disk = min(AUDIT_MAX_BYTES, journal_bytes(load.tokens) * 90) / AUDIT_DISK_SHARE / GIBIBYTE
        files = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_CONNECTION * load.streams + load.tasks
        given = (
            f"{rounded(takes * ROOM)} MiB",
            f"{max(0.1, -(-processor * 10 // 1) / 10):.1f} CPU",
            f"{max(1, round(disk))} GiB",
            f"{max(1024, -(-files // 1024) * 1024):,} files",
        )
        counts = (load.entries, load.streams, load.tasks, load.tokens)
        rows.append((load.name, *(f"{each:,}" for each in counts), f"{takes:.0f} MiB", f"**{', '.join(given)}**"))
    head = ("Load", "Entries", "Streams", "Live tasks", "Exchanges a second", "Memory it takes", "Give it this")
    return table(head, rows)


def _parts(known: Model) -> Iterator[str]:
    kib = 1024
    return table(
        ("What", "Takes", "Seen in"),
        [
            ("the agent, idle", f"{known.idle:.0f} MiB", "`process_resident_memory_bytes`"),
            ("an entry", f"{known.entry * kib:.1f} KiB", "`sojourn_entries`"),
            ("an open stream", f"{known.stream * kib:.1f} KiB", "`sojourn_streams`"),
            ("a live task", f"{known.task * kib:.1f} KiB", "`sojourn_tasks_live`"),
            ("FetchX509SVID", _cost(known.fetch), "`sojourn_calls_total`"),
            ("FetchJWTSVID, of a new audience", _cost(known.jwt), "`sojourn_svids_issued_total`"),
            ("ValidateJWTSVID", _cost(known.validation), "`sojourn_calls_total`"),
            ("a new connection with its first call", _cost(known.connection), "`sojourn_connections`"),
            ("a token exchange, with the task that it begins", _cost(known.exchange), "`sojourn_token_requests_total`"),
        ],
    )


def _cost(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs, so {1 / seconds:,.0f} a second fill one processor"


def _journal() -> Iterator[str]:
    rows = []
    for rate in RATES:
        day = journal_bytes(rate)
        kept, year = lasting(AUDIT_MAX_BYTES / day * DAY), f"{day * 365 / GIBIBYTE:,.0f} GiB"
        rows.append((f"{rate:,}", f"{day / GIBIBYTE:,.1f} GiB", kept, year))
    most = AUDIT_MAX_BYTES // GIBIBYTE
    return table(("Exchanges a second, all day", "Journal a day", f"{most} GiB last for", "A year takes"), rows)


def main() -> None:
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text, "utf-8")
    elif not PAGE.exists() or PAGE.read_text("utf-8") != text:
        raise SystemExit("docs/operate/capacity.md is not what the figures say: run `make capacity`")
    else:
        print("docs/operate/capacity.md is up to date")


if __name__ == "__main__":
    main()
