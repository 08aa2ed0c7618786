"""How a command is started that is confined."""

from pathlib import Path

import pytest
from sojourn.errors import FailedPrecondition
from sojourn.sdk.confinement import command


def test_an_interpreter_that_this_user_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a user cannot run Python, a network for the command alone is refused with that, and the program's name."""
    python = tmp_path / "python3"
    python.touch(mode=0o600)
    monkeypatch.setattr(command, "_PYTHON", (str(python),))
    with pytest.raises(FailedPrecondition, match=f"this user cannot run {python}: Permission denied"):
        command.network(None).__enter__()
