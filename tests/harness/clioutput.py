"""What the command line prints: errors as they must be, and the keys of its JSON."""

import subprocess
from typing import Any


def check_error(done: "subprocess.CompletedProcess[str]", status: int, code: str) -> None:
    """One error: its exit status, at most three lines, no traceback, nothing on standard output."""
    assert status == done.returncode, done.stderr
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 3, done.stderr
    assert lines[0].startswith("error: ")
    assert lines[0].endswith(f"[{code}]"), lines[0]
    assert "Traceback" not in done.stderr
    assert "" == done.stdout


def keys_of(value: Any) -> set[str]:
    """All keys at any depth that are fixed names (not those of free maps)."""
    if isinstance(value, list):
        return {key for each in value for key in keys_of(each)}
    if isinstance(value, dict):
        free = {"claims", "params", "fields", "bundle", "values", "last_caller"}
        return set(value) | {key for name, each in value.items() if name not in free for key in keys_of(each)}
    return set()


TASK_KEYS = {
    "outside", "passes", "person",
    "id", "type", "spiffe_id", "state", "reason", "explanation", "grants", "params", "cut", "created_at", "expires_at", "holder_pid",
    "tokens_issued", "version", "calls", "refused", "refusals", "uses", "parent_id", "depth", "actors",
}  # fmt: skip
