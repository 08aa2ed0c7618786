"""Backups of an agent's data folder, and folders that are put back by hand."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import forks
from harness.agent import COMMAND, AgentProcess

PASSPHRASE = "correct horse battery staple"


def passphrase_file(folder: Path) -> Path:
    """A file that only its owner can read."""
    path = folder / "passphrase"
    if not path.exists():
        path.touch(0o600)
        path.write_text(PASSPHRASE + "\n")
    return path


def command(agent: AgentProcess, *arguments: str, by: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
    """Run `sojourn` for the agent's data folder, whether the agent runs or not; `by`: by that command."""
    places = [] if arguments[:2] == ("backup", "check") else ["--data-dir", str(agent.data_dir)]
    secret = [] if "--sealed" in arguments else ["--passphrase-file", str(passphrase_file(agent.folder))]
    return forks.run([*by, *COMMAND, *arguments, *secret, *places], env=agent.environment, text=True, timeout=60)


def done(agent: AgentProcess, *arguments: str) -> Any:
    """Run it, and return what it printed as JSON."""
    found = command(agent, *arguments, "--output", "json")
    assert 0 == found.returncode, found.stderr
    return json.loads(found.stdout)


def back_up(agent: AgentProcess, name: str = "agent.backup") -> Path:
    """Make a backup beside the agent's folder, and return where it is."""
    return Path(done(agent, "backup", "create", "--to", str(agent.folder / name))["file"])


def put_back(kept: Path, agent: AgentProcess) -> None:
    """Have the agent's data folder be as a copy of it was, as a snapshot of a machine has it."""
    shutil.rmtree(agent.data_dir)
    shutil.copytree(kept, agent.data_dir)
    agent.data_dir.chmod(0o700)
