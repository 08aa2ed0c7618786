"""The plan of an installation and of its removal."""

import os
import pwd
import sys
import sysconfig
from pathlib import Path

from sojourn.installing import environment, steps, units
from sojourn.installing.layout import COMMAND, SERVICE, USER, Layout
from sojourn.installing.plan import Step
from sojourn.installing.programs import run
from sojourn.installing.refusals import check_code
from sojourn.installing.release import Release, drop_ins, installed_files, unit_files


def check(release: Release) -> None:
    """Raise CannotInstall for code that is not root's alone."""
    libraries = Path(sysconfig.get_path("purelib"))
    own = installed_files().values() if release.wheels is None else Path(__file__).parents[1].rglob("*.py")
    check_code([environment.interpreter(), Path(sys.executable), libraries, *_imported_from(), *own])


def _imported_from() -> list[Path]:
    """Each place that modules come from here, and the files that add such places or run code at every start."""
    places = [Path(each or ".") for each in sys.path if os.path.exists(each or ".")]
    return places + [path for place in places if place.is_dir() for path in place.glob("*.pth")]


def installing(layout: Layout, release: Release) -> list[Step]:
    """All that an installation consists of, in order."""
    shipped = unit_files()
    folder = layout.release(release.version)
    return [
        steps.file(layout.user, shipped["sojourn.sysusers"]),
        Step(f"make the user {USER}", _has_user, lambda: _make_user(layout)),
        Step(
            f"make the environment {folder}, with {environment.interpreter()}",
            lambda: environment.is_made(folder, release),
            lambda: environment.make(folder, release),
        ),
        steps.file(layout.configuration, shipped["agent.toml"], keep=True),
        steps.file(layout.folders, shipped["sojourn.tmpfiles"]),
        Step(f"make {layout.run}", layout.run.is_dir, lambda: _make_folders(layout)),
        *(steps.file(layout.units / name, text) for name, text in units.texts().items()),
        *(steps.file(layout.drop_ins / name, text) for name, text in drop_ins().items()),
        steps.link(layout.current, release.version),
        steps.link(layout.command, COMMAND),
        units.loaded(),
        units.enabled(),
        units.listening(),
        units.running(layout, [layout.current, folder / ".installed"]),
        *(steps.gone(old) for old in _older(layout, release.version)),
    ]


def removing(layout: Layout, *, purge: bool) -> list[Step]:
    """What is to go. Configuration, keys and database stay unless `purge` says that they go too."""
    made = [
        units.stopped(),
        *(steps.gone(layout.units / name) for name in units.texts()),
        *(steps.gone(layout.units / f"{name}.d") for name in units.texts() if purge),
        Step("have systemd forget its units", lambda: not _known(), _forget),
        steps.gone(layout.command),
        steps.gone(layout.releases),
        steps.gone(layout.documents),
        steps.gone(layout.folders),
        steps.gone(layout.user),
        steps.gone(layout.run),
    ]
    if purge:
        made += [steps.gone(layout.configuration.parent), steps.gone(layout.state)]
    return made


def _has_user() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def _make_user(layout: Layout) -> None:
    run("systemd-sysusers", str(layout.user))


def _make_folders(layout: Layout) -> None:
    run("systemd-tmpfiles", "--create", str(layout.folders))


def _known() -> bool:
    return run("systemctl", "show", "--property=LoadState", "--value", SERVICE).strip() != "not-found"


def _forget() -> None:
    run("systemctl", "daemon-reload")


def _older(layout: Layout, version: str) -> list[Path]:
    """Releases but this one and the one that runs now, to which one may want to go back."""
    if not layout.releases.is_dir():
        return []
    kept = {version, os.readlink(layout.current) if layout.current.is_symlink() else "", "current"}
    # What begins with a dot is half a release, which an attempt that was cut off has left.
    if kept == {version, "current"}:  # it runs already: the newest of the others is the one before
        others = [path for path in layout.releases.iterdir() if path.name not in kept and path.name[0] != "."]
        kept |= {max(others, key=lambda path: path.stat().st_mtime).name} if others else set()
    return sorted(path for path in layout.releases.iterdir() if path.name not in kept)
