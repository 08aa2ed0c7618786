"""`sojourn agent install` from a bundle, in Debians that are booted and have no network, as docs/install.md says."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import ROOT
from harness.debianroot import PYTHONS, Debian, debian
from harness.packages import bundle, once
from harness.pagelines import lines_below

# Each boots a machine and installs: on one that is busy, that is its minutes.
pytestmark = [pytest.mark.full, pytest.mark.root, pytest.mark.timeout(900)]

PAGE = ROOT / "docs" / "install.md"
NEXT = "0.1.1"
REGISTER = "sojourn entry create --spiffe-id spiffe://example.org/web --selector unix:uid:0"


def folder(version: str, suite: str) -> str:
    return f"/root/sojourn-{version}-py{PYTHONS[suite]}-amd64"


@pytest.fixture(scope="module")
def bundles() -> dict[tuple[str, str], Path]:
    """By version and suite."""
    wanted = [*(("0.1.0", suite) for suite in PYTHONS), (NEXT, "bookworm")]

    def make(out: Path) -> None:
        for version, suite in wanted:
            bundle(out, PYTHONS[suite], version)

    out = once("bundles", make)
    return {each: out / f"sojourn-{each[0]}-py{PYTHONS[each[1]]}-amd64.tar" for each in wanted}


@pytest.fixture(params=PYTHONS)
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine(suite: str, bundles: dict[tuple[str, str], Path]) -> Iterator[Debian]:
    """A booted one, with the bundle for its Python unpacked by the page's line."""
    with debian(suite) as booted:
        unpack(booted, bundles["0.1.0", suite])
        yield booted


@pytest.fixture
def bookworm(bundles: dict[tuple[str, str], Path]) -> Iterator[Debian]:
    with debian("bookworm") as booted:
        unpack(booted, bundles["0.1.0", "bookworm"])
        yield booted


def unpack(machine: Debian, made: Path) -> None:
    machine.give(made)
    line = lines_below(PAGE, "Without a package")[1]
    assert "sojourn-0.1.0-py3.11-amd64.tar" in line
    machine.sh("cd /root && " + line.replace("sojourn-0.1.0-py3.11-amd64.tar", f"/mnt/work/{made.name}"))


def install(machine: Debian, version: str = "0.1.0", suite: str = "bookworm", *, options: str = "--yes") -> str:
    return machine.sh(f"{folder(version, suite)}/install {options}", seconds=600)


class TestInstalling:
    def test_the_page(self, machine: Debian, suite: str) -> None:
        """The page's lines show the plan and change nothing, then install, without a network; the agent then serves."""
        show, do = (
            line.replace("py3.11", f"py{PYTHONS[suite]}") for line in lines_below(PAGE, "Without a package")[2:4]
        )
        planned = machine.sh(f"cd /root && {show}", seconds=600)
        assert "do  make the environment /opt/sojourn/0.1.0" in planned
        assert "" == machine.sh("ls -d /opt/sojourn /etc/sojourn 2>/dev/null || true")
        said = machine.sh(f"cd /root && {do}", seconds=600)
        assert "is ready. Next:" in said
        assert "ready" in machine.sh("sojourn agent health")
        machine.sh(REGISTER)
        assert "spiffe://example.org/web" in machine.sh("sojourn svid x509")
        shipped = sorted(path.name for path in (ROOT / "deploy" / "systemd" / "drop-ins").iterdir())
        assert shipped == machine.sh("ls /usr/share/doc/sojourn/drop-ins").split()

    def test_a_second_time(self, bookworm: Debian) -> None:
        """A second installation finds nothing to do, and leaves the agent that runs alone."""
        install(bookworm)
        before = bookworm.sh("systemctl show --property=MainPID --value sojourn")
        planned = json.loads(
            bookworm.sh("sojourn agent install --print --output json --wheels /nowhere || true") or "{}"
        )
        assert "plan" not in planned
        plan = install(bookworm, options="--print --output json")
        assert [] == [each["step"] for each in json.loads(plan)["plan"] if each["needed"]]
        install(bookworm)
        assert before == bookworm.sh("systemctl show --property=MainPID --value sojourn")

    def test_upgrade_and_back(self, bookworm: Debian, bundles: dict[tuple[str, str], Path]) -> None:
        """A newer bundle is the upgrade, and the older one's installer the way back; entries and keys stay, one release behind."""
        install(bookworm)
        bookworm.sh(REGISTER)
        root = bookworm.sh("sojourn bundle show")
        unpack(bookworm, bundles[NEXT, "bookworm"])
        install(bookworm, NEXT)
        assert f"sojourn {NEXT}" == bookworm.sh("sojourn --version").strip()
        assert root == bookworm.sh("sojourn bundle show")
        assert "0.1.0 0.1.1 current" == " ".join(bookworm.sh("ls /opt/sojourn").split())
        install(bookworm)
        assert "sojourn 0.1.0" == bookworm.sh("sojourn --version").strip()
        assert "spiffe://example.org/web" in bookworm.sh("sojourn entry show")

    def test_interrupted(self, bookworm: Debian) -> None:
        """What an installation that was cut off has left is made anew."""
        bookworm.sh("mkdir -p /opt/sojourn/0.1.0/bin && touch /opt/sojourn/0.1.0/bin/python3")
        install(bookworm)
        assert "ready" in bookworm.sh("sojourn agent health")

    def test_what_is_there(self, bookworm: Debian) -> None:
        """All that is installed is root's and nobody else's to change; the environment has no pip; the agent is a user's of its own."""
        install(bookworm)
        assert "" == bookworm.sh(
            "find /opt/sojourn /etc/sojourn /usr/local/bin/sojourn ! -user root -o -perm /022 ! -type l"
        )
        assert "sojourn" == bookworm.sh("ls /opt/sojourn/current/bin | grep -v python").strip()
        bookworm.sh("! /opt/sojourn/current/bin/python3 -m pip --version 2>/dev/null")
        main = bookworm.sh("systemctl show --property=MainPID --value sojourn").strip()
        assert "sojourn" == bookworm.sh(f"ps -o user= -p {main}").strip()


class TestRefused:
    def test_code_of_somebody_else(self, bookworm: Debian) -> None:
        """An environment that another user could change installs nothing: it would own the authority's keys."""
        install(bookworm, options="--print")
        bookworm.sh("useradd alice && mkdir -p /home/alice && python3 -m venv --without-pip /home/alice/env")
        wheels = f"{folder('0.1.0', 'bookworm')}/wheels"
        bookworm.sh(f"set -- {wheels}/pip-*.whl; python3 $1/pip --python /home/alice/env/bin/python install -q --no-index"
                    f" --find-links {wheels} --no-deps {wheels}/[!p]*.whl {wheels}/p[!i]*.whl", seconds=600)  # fmt: skip
        bookworm.sh("chown -R alice /home/alice")
        said = bookworm.sh(f"/home/alice/env/bin/sojourn agent install --yes --wheels {wheels} 2>&1 || true")
        assert "belongs to user" in said
        assert "" == bookworm.sh("ls -d /opt/sojourn 2>/dev/null || true")

    def test_a_changed_wheel(self, bookworm: Debian) -> None:
        """A bundle of which one byte is another installs nothing."""
        bookworm.sh(f"set -- {folder('0.1.0', 'bookworm')}/wheels/typer-*.whl && test -f $1 && printf x >>$1")
        said = bookworm.sh(f"{folder('0.1.0', 'bookworm')}/install --yes 2>&1 || true")
        assert "typer" in said
        assert "" == bookworm.sh("ls -d /opt/sojourn 2>/dev/null || true")


class TestRemoving:
    def test_the_page(self, bookworm: Debian) -> None:
        """The page's lines show and remove all that was made but configuration, database and keys, with which it comes again."""
        install(bookworm)
        bookworm.sh(REGISTER)
        show, do = lines_below(PAGE, "Without a package")[-2:]
        assert "do  stop the agent" in bookworm.sh(show)
        assert "Kept: /etc/sojourn, /var/lib/sojourn" in bookworm.sh(do)
        left = "/opt/sojourn /usr/local/bin/sojourn /etc/systemd/system/sojourn* /run/sojourn /usr/share/doc/sojourn"
        assert "" == bookworm.sh(f"ls -d {left} 2>/dev/null || true")
        assert "" == bookworm.sh("pgrep -u sojourn || true")
        install(bookworm)
        assert "spiffe://example.org/web" in bookworm.sh("sojourn entry show")

    def test_purge(self, bookworm: Debian) -> None:
        """With --purge keys, database and configuration go too."""
        install(bookworm)
        bookworm.sh("sojourn agent uninstall --purge --yes")
        assert "" == bookworm.sh("ls -d /opt/sojourn /etc/sojourn /var/lib/sojourn 2>/dev/null || true")


def test_no_systemd() -> None:
    """Where systemd does not run the machine it is refused, with what to do instead."""
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs this machine")
    done = subprocess.run(
        [sys.executable, "-m", "sojourn", "agent", "uninstall", "--print", "--output", "json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert 1 == done.returncode
    assert "cannot_install" in done.stderr + done.stdout
    assert "systemd does not run this machine" in done.stderr + done.stdout
