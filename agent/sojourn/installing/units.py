"""systemd's view of the agent's units, and what is asked of it."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sojourn.config.paths import PUBLIC_NAME
from sojourn.installing.layout import COMMAND, PACKAGED_COMMAND, SERVICE, SOCKETS, Layout
from sojourn.installing.plan import Step
from sojourn.installing.programs import run
from sojourn.installing.release import unit_files

UNITS: Final = (*SOCKETS, SERVICE)
BACKUP_TIMER: Final = "sojourn-backup.timer"
KEYS_SERVICE: Final = "sojourn-keys.service"
_KINDS: Final = (".service", ".socket", ".timer")
READY_WAIT: Final = "30s"
_WHEN: Final = "%a %Y-%m-%d %H:%M:%S.%f UTC"
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


def texts() -> dict[str, str]:
    """All units, with the command as it lies in this kind of installation; those of backups are off until enabled."""
    units = {name: text for name, text in unit_files().items() if name.endswith(_KINDS)}
    return {name: text.replace(PACKAGED_COMMAND, COMMAND) for name, text in units.items()}


def loaded() -> Step:
    """Let systemd have read the units as they are on disk."""

    def is_done() -> bool:
        return all(_shown(unit, "LoadState", "NeedDaemonReload") == ["loaded", "no"] for unit in UNITS)

    return Step("have systemd read its units", is_done, lambda: _ask("daemon-reload"))


def enabled() -> Step:
    """They come up with the machine."""
    wanted = ["enabled"] * len(UNITS)
    return Step(
        "have the agent started with the machine",
        lambda: [_shown(unit, "UnitFileState")[0] for unit in UNITS] == wanted,
        lambda: _ask("enable", "--quiet", *UNITS),
    )


def listening() -> Step:
    """Let systemd hold the sockets."""
    return Step(
        "open the sockets",
        lambda: all(_shown(unit, "ActiveState") == ["active"] for unit in SOCKETS),
        lambda: _ask("start", *SOCKETS),
    )


def running(layout: Layout, made_of: Iterable[Path]) -> Step:
    """The agent runs, and was started after the last change of these; it is waited for until it is ready."""
    files = [*made_of, *(layout.units / name for name in UNITS)]

    def is_done() -> bool:
        return _shown(SERVICE, "ActiveState") == ["active"] and _started() > max(_changed(each) for each in files)

    def act() -> None:
        _ask("restart", SERVICE)
        run(COMMAND, "agent", "health", "--wait", READY_WAIT, "--socket", str(layout.run / PUBLIC_NAME))

    return Step("start the agent, and wait until it is ready", is_done, act)


def stopped() -> Step:
    """Neither runs nor comes up again."""

    def going() -> list[str]:
        states = {unit: _shown(unit, "ActiveState", "UnitFileState") for unit in (BACKUP_TIMER, KEYS_SERVICE, *UNITS)}
        return [unit for unit, (active, file) in states.items() if active == "active" or file not in {"", "disabled"}]

    return Step(
        "stop the agent, and close its sockets",
        lambda: not going(),
        lambda: _ask("disable", "--quiet", "--now", *going()),
    )


def _ask(*what: str) -> None:
    run("systemctl", *what)


def _shown(unit: str, *properties: str) -> list[str]:
    """The values in the order asked; "" for what the unit does not have."""
    said = run("systemctl", "show", f"--property={','.join(properties)}", unit)
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    return [found.get(each, "") for each in properties]


def _started() -> datetime:
    said = run("systemctl", "show", "--timestamp=us+utc", "--property=ExecMainStartTimestamp", "--value", SERVICE)
    try:
        return datetime.strptime(said.strip(), _WHEN).replace(tzinfo=UTC)
    except ValueError:  # it never was
        return _NEVER


def _changed(path: Path) -> datetime:
    """When the file, or the link itself, was made."""
    try:
        return datetime.fromtimestamp(path.lstat().st_mtime, UTC)
    except FileNotFoundError:
        return datetime.now(UTC)
