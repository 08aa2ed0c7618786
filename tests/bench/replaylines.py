"""A change of policy, tried on what was decided: how long that takes."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from evidencelines import decided
from figures import Figure
from ground import Bench
from harness.agent import COMMAND, SAMPLES, clean_environment
from sojourn.audit.journal import FIRST, Record, digest_of
from sojourn.audit.leaves import line_of

DECISIONS, FEW = 100_000, 5_000


# --- 75 ---


def replayed(bench: Bench) -> Iterator[Figure | str]:
    """As many decisions as there are, of which none is the same question as another, and then of one question."""
    count = DECISIONS if bench.full else FEW
    with tempfile.TemporaryDirectory(prefix="sojourn-bench-") as name:
        for what, different in (("each another question", count), ("of one question", 1)):
            folder = Path(name) / what.replace(" ", "-")
            folder.mkdir()
            _write(folder / "records.ndjson", count, different)
            took = [_run(folder, count) for _ in range(bench.effort.repetitions)]
            yield Figure.of(f"{count:,} decisions, {what}: time", "s", took)


def _write(file: Path, count: int, different: int) -> None:
    """Records of one task: its beginning, and its tokens."""
    events = [decided("task_begun", {})]
    events += [decided("token_issued", {"tokens_issued": each} if each else {}) for each in range(different)]
    tokens = events[1:]
    with file.open("wb") as written:
        digest = FIRST
        told = (events[0], *(tokens[number % different] for number in range(count - 1)))
        for seq, each in enumerate(told, 1):
            digest = digest_of(digest, seq, each)
            written.write(line_of(Record(seq, each.at_ms, each.event, each.fields, digest)) + b"\n")


def _run(folder: Path, count: int) -> float:
    begun = time.monotonic()
    argv = [
        *COMMAND,
        "policy",
        "replay",
        SAMPLES / "task-types",
        "--records",
        folder,
        "--since",
        "2026-01-01T00:00:00Z",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=clean_environment())
    if f"{count} decisions asked again\n" not in done.stdout:
        raise RuntimeError(f"not all was asked: {done.stdout[:200]}")
    return time.monotonic() - begun


REPLAY_LINES = ((75, "A change of policy, tried on what was decided", replayed),)
