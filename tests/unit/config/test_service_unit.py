"""service_unit.py: whether systemd starts the agent of this machine, and what clients say where it does not answer."""

from pathlib import Path

import pytest
from sojourn.config import paths, service_unit
from sojourn.sdk.client.grpc_status import unreachable_sentence


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the unit's sockets, and units that lie in a folder of the test's."""
    units = (tmp_path / "etc", tmp_path / "lib")
    monkeypatch.setattr(service_unit, "SYSTEM_RUN", tmp_path / "run")
    monkeypatch.setattr(service_unit.is_installed, "__defaults__", (units,))
    monkeypatch.setattr(service_unit.is_of_unit, "__defaults__", (units,))
    units[1].mkdir()
    return tmp_path / "run"


def test_the_units_sockets(run: Path, tmp_path: Path) -> None:
    """A client of the unit's agent is told to start the unit, and where the journal is; one of another agent is not."""
    path, other = str(run / "agent.sock"), str(tmp_path / "other" / "agent.sock")
    assert not service_unit.is_of_unit(path)
    assert "start the agent with `sojourn agent run`, or" in unreachable_sentence(path)
    (tmp_path / "lib" / "sojourn.service").touch()
    told = unreachable_sentence(path)
    assert f"no socket at {path!r}: start the agent with `systemctl start sojourn`, as root" in told
    assert "`journalctl -u sojourn` says why it does not run" in told
    assert "agent run" not in told
    assert "start the agent with `sojourn agent run`, or" in unreachable_sentence(other)


def test_one_that_is_masked(run: Path, tmp_path: Path) -> None:
    """A unit that is a link to nowhere or to /dev/null counts as one: systemctl says what is wrong with it."""
    (tmp_path / "lib" / "sojourn.service").symlink_to("/dev/null")
    assert service_unit.is_of_unit(str(run / "admin.sock"))


def test_where_it_looks() -> None:
    """Units of packages, of `sojourn agent install` and of the operator are looked for, and the sockets are root's."""
    assert {Path("/etc/systemd/system"), Path("/usr/lib/systemd/system")} <= set(service_unit.FOLDERS)
    assert paths.SYSTEM_RUN == Path("/run/sojourn") == service_unit.SYSTEM_RUN
