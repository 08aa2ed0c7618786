"""docs/operate/back-up.md and upgrade.md: each of their commands works as it stands, in the order in which they stand."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import COMMAND, ROOT, AgentProcess
from harness.lacking import lacking, lacking_program

pytestmark = pytest.mark.full
OPERATE = ROOT / "docs" / "operate"
UNITS = ROOT / "deploy" / "systemd"


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        yield running


def commands(page: str) -> list[str]:
    """The lines of a page that are to be typed."""
    text = (OPERATE / page).read_text()
    return [line.strip() for line in re.findall(r"^    .*$", text, re.MULTILINE)]


class Reader:
    """Somebody who types what a page says, line after line, and whose machine's places are in a folder."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent
        self._file = ""
        (agent.folder / "etc").mkdir()
        self.places = {
            "/etc/sojourn/backup-passphrase": str(agent.folder / "etc" / "backup-passphrase"),
            "/var/backups/sojourn": str(agent.folder / "backups"),
            "/var/lib/sojourn-mark": str(agent.folder / "mark"),
            "/var/lib/sojourn": str(agent.data_dir),
        }
        self.timers: list[str] = []

    def types(self, line: str) -> str:
        """Do what a line says; return what it prints."""
        match line.split():
            case ["systemctl", "stop", "sojourn.service", "sojourn-agent.socket", "sojourn-admin.socket"]:
                self._agent.stop()
                return ""
            case ["systemctl", "start", "sojourn-agent.socket", "sojourn-admin.socket", "sojourn.service"]:
                self._agent.start()
                return ""
            case ["systemctl", "restart", "sojourn"]:
                self._agent.stop()
                self._agent.start()
                return ""
            case ["systemctl", "enable", "--now", unit]:
                self.timers.append(unit)
                return ""
        for place, here in self.places.items():
            line = line.replace(place, here)
        environment = {
            **self._agent.environment,
            "SOJOURN_DATA_DIR": str(self._agent.data_dir),
            "PATH": f"{Path(COMMAND[0]).parent}:{os.environ['PATH']}",
            "FILE": self._file,
        }
        done = subprocess.run(
            ["bash", "-ec", f'{line}\necho "FILE=$FILE" >&2'],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert 0 == done.returncode, (line, done.stderr)
        self._file = done.stderr.splitlines()[-1].removeprefix("FILE=")
        return done.stdout


def test_back_up(agent: AgentProcess) -> None:
    """Whoever types what the page about backups says has one, has it checked, and has restored it."""
    lacking_program("openssl")
    agent.register("/before", "unix:uid:0")
    reader, said = Reader(agent), ""
    typed = commands("back-up.md")
    for line in typed:
        said += reader.types(line)
    assert any(line.startswith("sojourn restore") for line in typed)
    assert "whole, and opens" in said
    assert "restored " in said
    assert ["database_restored"] == [each["what"] for each in agent.failures()]
    assert 1 == agent.json("entry", "count")["count"]
    assert {(UNITS / unit).is_file() for unit in reader.timers} == {True}


def test_upgrade(agent: AgentProcess) -> None:
    """Whoever types what the page about upgrades says has a backup, and a copy that was made before is put back."""
    reader = Reader(agent)
    *typed, back = commands("upgrade.md")
    (agent.folder / "etc" / "backup-passphrase").touch(0o600)
    (agent.folder / "etc" / "backup-passphrase").write_text("correct horse battery staple")
    (agent.folder / "backups").mkdir()
    for line in typed:
        reader.types(line)
    assert 1 == len(list((agent.folder / "backups").iterdir()))
    agent.stop()
    (agent.data_dir / "before").mkdir(mode=0o700)
    shutil.copy(agent.data_dir / "sojourn.db", agent.data_dir / "before" / "pre-1.2.3.db")
    assert "restored " in reader.types(back.replace("VERSION", "1.2.3"))
    agent.start()


@pytest.mark.parametrize("unit", ["sojourn-backup.service", "sojourn-backup.timer"])
def test_units(unit: str, tmp_path: Path) -> None:
    """systemd finds nothing wrong with the units that make a backup each day."""
    lacking_program("systemd-analyze")
    for each in UNITS.glob("sojourn-backup.*"):
        text = each.read_text().replace("/usr/lib/sojourn/bin/sojourn", "/bin/true")
        (tmp_path / each.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)], capture_output=True, text=True, timeout=60
    )
    if "Failed to initialize" in done.stderr:
        lacking(f"needs a machine on which systemd-analyze works: {done.stderr}")
    mine = [line for line in done.stderr.splitlines() if unit in line]
    assert [] == mine
