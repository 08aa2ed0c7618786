"""The packages, in Debians that are booted and had nothing of ours: installed, exchanged, removed, as docs/install.md says."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import elf
from harness.agent import ROOT
from harness.debianroot import Debian, debian
from harness.lacking import lacking_program
from harness.packages import build, need_nfpm, once
from harness.pagelines import lines_below

# Each boots a machine and installs: on one that is busy, that is its minutes.
pytestmark = [pytest.mark.full, pytest.mark.root, pytest.mark.timeout(900)]

PAGE = ROOT / "docs" / "install.md"
NEXT = "0.1.1"
STREAMS = 200
SUITES = {"bookworm": "deb12", "trixie": "deb13"}
OWN_PYTHON = "/usr/lib/sojourn/bin/python3 -IB"
REGISTER = "sojourn entry create --spiffe-id spiffe://example.org/web --selector unix:uid:0"


@dataclass(frozen=True)
class Made:
    """By suite: this release and the next."""

    this: dict[str, Path]
    following: dict[str, Path]


@pytest.fixture(scope="module")
def made() -> Made:
    need_nfpm()
    this = once("this", lambda folder: build(folder, *SUITES))
    following = once("following", lambda folder: build(folder, *SUITES, version=NEXT))
    return Made(_by_suite(this), _by_suite(following))


def _by_suite(folder: Path) -> dict[str, Path]:
    return {suite: next(folder.glob(f"*~{told}_*.deb")) for suite, told in SUITES.items()}


@pytest.fixture(scope="module", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine(suite: str, made: Made) -> Iterator[Debian]:
    """A booted one, with both packages at hand."""
    with debian(suite) as booted:
        booted.give(made.this[suite], made.following[suite], ROOT / "tests" / "harness" / "restartwatch.py")
        yield booted


@pytest.fixture(scope="module")
def installed(suite: str, made: Made) -> Iterator[Debian]:
    """One with the package, for tests that only look, or add what the others are not to notice."""
    with debian(suite) as booted:
        booted.give(made.this[suite])
        booted.sh(apt(made.this[suite]))
        yield booted


def apt(package: Path, *options: str) -> str:
    return f"cd /mnt/work && apt-get install -y {' '.join(options)} ./{package.name}"


def compiled(root: Path) -> dict[str, str]:
    """The machine of each ELF file in a folder."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if machine := elf.machine(file.read(20)):
                    found[str(path.relative_to(root))] = machine
    return found


def status(machine: Debian) -> dict:
    return json.loads(machine.sh("sojourn status --output json"))


class TestInstalled:
    def test_the_page(self, machine: Debian, made: Made, suite: str) -> None:
        """What the page says of packages is all that it takes, line by line: from a bare Debian to an SVID."""
        [install, *rest] = lines_below(PAGE, "A package")[1:5]
        this = f"./sojourn_0.1.0-1~{SUITES[suite]}_amd64.deb"
        assert this == f"./{made.this[suite].name}"
        machine.sh(
            "cd /mnt/work && " + install.replace("apt install", "apt install -y").replace("~deb12", f"~{SUITES[suite]}")
        )
        said = [machine.sh(line) for line in rest]
        assert "ready" in said[0]
        assert "spiffe://example.org/web" in said[2]

    def test_who_runs_and_with_what(self, installed: Debian) -> None:
        """The agent is a user's of its own without a shell; code, units and configuration are root's, keys the agent's alone."""
        main = installed.sh("systemctl show --property=MainPID --value sojourn").strip()
        assert "sojourn" == installed.sh(f"ps -o user= -p {main}").strip()
        assert "nologin" in installed.sh("getent passwd sojourn")
        others = installed.sh(
            "find /usr/lib/sojourn /etc/sojourn /usr/lib/systemd/system/sojourn* ! -user root -o -perm /022 ! -type l"
        )
        assert "" == others
        assert "sojourn 700" == installed.sh("stat --format='%U %a' /var/lib/sojourn").strip()

    def test_nothing_of_the_environment_counts(self, installed: Debian) -> None:
        """The command loads no module that the caller's environment, folder or the system's Python packages offer."""
        installed.sh(
            "mkdir -p /root/evil /usr/lib/python3/dist-packages/typer && echo 'raise SystemExit(7)' >/root/evil/typer.py"
        )
        installed.sh("cp /root/evil/typer.py /usr/lib/python3/dist-packages/typer/__init__.py")
        said = installed.sh("cd /root/evil && PYTHONPATH=/root/evil PYTHONHOME=/root sojourn --version")
        assert "sojourn 0.1.0" == said.strip()

    def test_libraries_of_your_own(self, installed: Debian) -> None:
        """What is put into /usr/local/lib/sojourn is among the agent's libraries, behind those of the package."""
        installed.sh("mkdir -p /usr/local/lib/sojourn && echo 'x = 5' >/usr/local/lib/sojourn/ours.py")
        installed.sh("echo 'raise SystemExit(7)' >/usr/local/lib/sojourn/typer.py")
        assert "5" == installed.sh(f"{OWN_PYTHON} -c 'import ours, typer; print(ours.x)'").strip()

    def test_manual_and_completion(self, installed: Debian) -> None:
        """There is a manual page for each noun of the command, and bash completes it."""
        pages = installed.sh("dpkg -L sojourn")
        assert {"sojourn", "sojourn-entry", "sojourn-status"} < set(re.findall(r"/man1/([\w-]+)\.1\.gz", pages))
        shown = "env COMP_WORDS='sojourn ent' COMP_CWORD=1 _SOJOURN_COMPLETE=complete_bash sojourn"
        assert "entry" in installed.sh(shown, check=False).split()


class TestExchanged:
    def test_upgrade_under_load(self, machine: Debian, made: Made, suite: str) -> None:
        """An upgrade, and the downgrade after it, refuse no connect; each stream that was held has an SVID again."""
        machine.sh(apt(made.this[suite]))
        machine.sh(REGISTER)
        watch = subprocess.Popen(
            machine.entered(*OWN_PYTHON.split(), "/mnt/work/restartwatch.py", "/run/sojourn/agent.sock", str(STREAMS)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert watch.stdin is not None
        assert watch.stdout is not None
        try:
            assert {"held": STREAMS} == json.loads(watch.stdout.readline())
            for package, options in ((made.following[suite], ()), (made.this[suite], ("--allow-downgrades",))):
                before = machine.sh("systemctl show --property=MainPID --value sojourn")
                watch.stdin.write("forget\n")
                assert {} == json.loads(watch.stdout.readline())
                machine.sh(apt(package, *options))
                assert before != machine.sh("systemctl show --property=MainPID --value sojourn")
                watch.stdin.write("tell\n")
                told = json.loads(watch.stdout.readline())
                assert told["knocks"] > 0
                assert 0 == told["refused"], told
                assert STREAMS == told["back"]
        finally:
            watch.kill()
            watch.communicate()
        assert "0.1.0" in machine.sh("sojourn --version")

    def test_configuration_is_kept(self, machine: Debian, made: Made, suite: str) -> None:
        """An upgrade leaves a changed configuration as it is, and the trust domain with it."""
        machine.sh("mkdir -p /etc/sojourn && echo 'trust_domain = \"prod.example\"' >/etc/sojourn/agent.toml")
        options = ("-o", "Dpkg::Options::=--force-confold")
        machine.sh(apt(made.this[suite], *options))
        machine.sh(apt(made.following[suite]))
        assert "prod.example" in machine.sh("cat /etc/sojourn/agent.toml")
        assert "prod.example" == status(machine)["trust_domain"]


class TestRemoved:
    def test_remove_and_come_again(self, machine: Debian, made: Made, suite: str) -> None:
        """The page's removal stops the agent and closes its sockets; the package that comes again has the same keys and entries."""
        machine.sh(apt(made.this[suite]))
        machine.sh(REGISTER)
        root = machine.sh("sojourn bundle show")
        [remove, _] = lines_below(PAGE, "A package")[-2:]
        machine.sh(remove.replace("apt", "apt-get -y"))
        assert "" == machine.sh("pgrep -u sojourn || true")
        assert "" == machine.sh("ls /run/sojourn/*.sock 2>/dev/null || true")
        assert "" == machine.sh("find /usr/lib/sojourn -mindepth 1 2>/dev/null || true")
        machine.sh(apt(made.this[suite]))
        assert root == machine.sh("sojourn bundle show")
        assert "spiffe://example.org/web" in machine.sh("sojourn entry show")

    def test_purge(self, machine: Debian, made: Made, suite: str) -> None:
        """The page's purge takes the configuration and leaves the keys, and says so; told to, it takes them too."""
        machine.sh(apt(made.this[suite]))
        [_, purge] = lines_below(PAGE, "A package")[-2:]
        said = machine.sh(purge.replace("apt", "apt-get -y"))
        assert "kept in /var/lib/sojourn" in said
        assert "" == machine.sh("ls /etc/sojourn 2>/dev/null || true")
        assert "" != machine.sh("ls /var/lib/sojourn")
        machine.sh(apt(made.this[suite]))
        machine.sh("SOJOURN_PURGE=keys apt-get -y purge sojourn")
        assert "" == machine.sh("ls -d /var/lib/sojourn 2>/dev/null || true")


class TestMade:
    @pytest.mark.release
    def test_the_same_bytes(self, made: Made, tmp_path: Path) -> None:
        """A second build, with another umask, makes the same file."""
        [again] = build(tmp_path, "bookworm", umask=0o077)
        assert made.this["bookworm"].read_bytes() == again.read_bytes()

    def test_links(self, made: Made) -> None:
        """A link in a package is the same whether what it leads to is on the machine that builds or not."""
        for package in made.this.values():
            listed = subprocess.run(
                ["dpkg-deb", "--contents", str(package)], capture_output=True, text=True, check=True
            )
            links = [line for line in listed.stdout.splitlines() if line.startswith("l")]
            assert len(links) > 1
            assert {"lrwxrwxrwx"} == {line.split()[0] for line in links}, links

    def test_lintian(self, made: Made) -> None:
        """Debian's own checker of packages finds no error in either."""
        lacking_program("lintian")
        for package in made.this.values():
            done = subprocess.run(["lintian", "--fail-on", "error", str(package)], capture_output=True, text=True)
            assert 0 == done.returncode, done.stdout

    @pytest.mark.release
    @pytest.mark.parametrize("arch", ["amd64", "arm64"])
    def test_ubuntu(self, arch: str, tmp_path: Path) -> None:
        """Ubuntu's deb, for both kinds of machine, needs its Python 3.12; all that is compiled in it is of that machine."""
        lacking_program("lintian")
        [package] = build(tmp_path, "noble", arch=arch)
        asked = ["dpkg-deb", "--show", "--showformat", "${Architecture} ${Version} ${Depends}", str(package)]
        told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        assert told.startswith(f"{arch} 0.1.0-1~ubuntu24.04 python3.12, ")
        subprocess.run(["dpkg-deb", "--extract", str(package), str(tmp_path / "root")], check=True)
        modules = compiled(tmp_path / "root")
        assert (True, {arch}) == (len(modules) > 10, set(modules.values())), modules
        tagged = {tag for name in modules for tag in re.findall(r"cpython-\d+-[a-z0-9_]+", name)}
        assert {f"cpython-312-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}[arch] }"} == tagged
        done = subprocess.run(["lintian", "--fail-on", "error", str(package)], capture_output=True, text=True)
        assert 0 == done.returncode, done.stdout

    @pytest.mark.release
    def test_rpm_for_arm64(self, tmp_path: Path) -> None:
        """The rpm for arm64 says that it is, and all that is compiled in it is."""
        lacking_program("rpm")
        [package] = build(tmp_path, "el10", arch="arm64")
        asked = ["rpm", "-qp", "--queryformat", "%{ARCH}", str(package)]
        assert "aarch64" == subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        (tmp_path / "root").mkdir()
        options = ["--nodeps", "--noscripts", "--ignorearch", "-i", str(package)]
        subprocess.run(["rpm", "--root", str(tmp_path / "root"), *options], check=True, capture_output=True)
        assert {"arm64"} == set(compiled(tmp_path / "root").values())

    def test_rpm(self, tmp_path: Path) -> None:
        """The rpm needs that system's Python of one minor version, has the same files, and installs into an empty root."""
        lacking_program("rpm")
        [package] = build(tmp_path, "el9")
        asked = subprocess.run(
            ["rpm", "-qp", "--requires", str(package)], capture_output=True, text=True, check=True
        ).stdout
        assert {"python3.11", "systemd >= 249", "/usr/bin/python3.11"} <= set(asked.splitlines())
        root = tmp_path / "root"
        root.mkdir()
        installed = ["rpm", "--root", str(root), "--nodeps", "--noscripts", "-i", str(package)]
        subprocess.run(installed, check=True, capture_output=True)
        for place in (
            "usr/lib/sojourn/bin/sojourn",
            "usr/lib/systemd/system/sojourn.service",
            "etc/sojourn/agent.toml",
        ):
            assert (root / place).is_file()
        listed = subprocess.run(["rpm", "-qpc", str(package)], capture_output=True, text=True, check=True).stdout
        assert "/etc/sojourn/agent.toml" == listed.strip()
        scripts = subprocess.run(
            ["rpm", "-qp", "--scripts", str(package)], capture_output=True, text=True, check=True
        ).stdout
        assert "systemd-sysusers sojourn.conf" in scripts
        shutil.rmtree(root)
