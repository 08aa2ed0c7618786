"""Exports of an agent's signed journal, and what both verifiers say of them."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sojourn.errors import SojournError
from sojourn.evidence.check import FolderCheck, Verdict
from sojourn.tlog.notes import VerifierKey

from harness.agent import AgentProcess
from harness.raw import Wire


def key_of(agent: AgentProcess) -> str:
    return str(agent.json("audit", "key")["vkey"])


def export(agent: AgentProcess, name: str, *more: str) -> Path:
    folder = agent.folder / name
    agent.run("audit", "export", "--to", str(folder), *more)
    return folder


def checkpoint(folder: Path) -> Path:
    """The one of the log that is signed now, kept beside the folder."""
    origin = json.loads((folder / "manifest.json").read_text())["logs"][-1]["origin"]
    kept = folder.with_name(f"{folder.name}-checkpoint")
    shutil.copy(folder / "logs" / origin.rpartition("/")[2] / "checkpoint", kept)
    return kept


def check(agent: AgentProcess, folder: Path, *more: str, key: str = "") -> dict[str, Any]:
    """What `sojourn audit check` says in JSON, whatever it is."""
    done = agent.run(
        *("audit", "check", str(folder), "--key", key or key_of(agent), *more, "--output", "json"), check=False
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["good"] == (done.returncode == 0)
    return found


def codes(found: dict[str, Any]) -> set[str]:
    return {each["code"] for each in found["faults"]}


def by_go(
    client: Path,
    folder: Path,
    *keys: str,
    after: Path | None = None,
    witnesses: Sequence[str] = (),
) -> dict[str, Any]:
    """The verdict of the other verifier."""
    argv = [client, "audit", "-path", folder, *(each for key in keys for each in ("-key", key))]
    argv += [] if after is None else ["-after", after]
    argv += [each for witness in witnesses for each in ("-witness", witness)]
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=60, check=False)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said if said["event"] == "audit" else {"good": False, "first_bad_seq": 0}


def by_python(folder: Path, *keys: str, after: Path | None = None, witnesses: Sequence[str] = ()) -> Verdict | None:
    older = None if after is None else after.read_bytes()
    with suppress(SojournError):
        cosigners = [VerifierKey.parse_cosigner(each) for each in witnesses]
        return FolderCheck(folder, [VerifierKey.parse(each) for each in keys], older, lambda *_: None, cosigners).run()
    return None


@contextmanager
def load(agent: AgentProcess) -> Iterator[None]:
    """JWT-SVIDs are issued within, as fast as can be: a record for each."""
    over = threading.Event()

    def ask() -> None:
        number = 0
        while not over.is_set():
            with suppress(Exception), Wire(agent.socket) as wire:  # the agent may be gone just now
                while not over.is_set():
                    number += 1
                    wire.jwt(f"https://a.example/{number}")
            time.sleep(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
