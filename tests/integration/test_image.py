"""The agent's container image: what is in it, under Docker and Podman, with each privilege and without.

The engines are real ones, in a machine of their own (harness/imagehost.py).
"""

import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import elf, imagehost
from harness.imagehost import NAME, Agent, Host
from harness.looking import until

pytestmark = [pytest.mark.full, pytest.mark.root, pytest.mark.timeout(900)]  # whoever is first builds the image
PTRACE = "unix:path and unix:sha256 of other users' processes"
READ = "unix:path and unix:sha256 of programs that the agent's user may not read"
APART = "unix:path of processes outside of the agent's own mount namespace"
CGROUPS = "unix:cgroup, containers and units of systemd"
NAMES = "unix:user, unix:group and unix:supplementary_group"
# The SDK's parts for frameworks are for workloads, which have these; so is `sojourn.mcp`.
IMPORTS = """import importlib, json, pkgutil
import sojourn, sojourn_attestors

modules = [each.name for package in (sojourn, sojourn_attestors)
           for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
           if not each.name.startswith(("sojourn.sdk.integrations", "sojourn.testing", "sojourn.__main__"))
           and not each.name.endswith((".env", "wsgi"))]
failed = []
for name in modules:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append((name, repr(error)))
print(json.dumps({"modules": len(modules), "failed": failed}))
"""
MAX_PACKED, MAX_UNPACKED = 45_000_000, 130_000_000


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, Host]]:
    with imagehost.hosts() as hosts:
        yield hosts


@pytest.fixture(scope="module")
def podman(hosts: dict[str, Host]) -> Host:
    return hosts["podman"]


@pytest.fixture(scope="module", params=["docker", "podman"])
def host(hosts: dict[str, Host], request: pytest.FixtureRequest) -> Host:
    found: Host = hosts[request.param]
    return found


@pytest.fixture(scope="module")
def workload(hosts: dict[str, Host]) -> int:
    """A service of the machine, of the user `daemon`, whose program the machine alone has."""
    machine = hosts["podman"].machine
    machine.run("sh", "-c", "mkdir -p /srv/own && cp /usr/bin/sleep /srv/own/work && chmod 711 /srv/own/work")
    machine.run("sh", "-c", "echo keeper:x:4711:4711::/:/bin/false >>/etc/passwd; echo keepers:x:4711: >>/etc/group")
    return machine.unit("work", "/srv/own/work", "1000", user="keeper")


def program(found: set[str]) -> set[str]:
    return {each for each in found if each.startswith(("unix:path:", "unix:sha256:"))}


@pytest.fixture(scope="module")
def files() -> dict[str, tarfile.TarInfo]:
    """What the image has, by its path."""
    return imagehost.content(imagehost.image())


class TestContent:
    def test_size(self) -> None:
        """The image is small: 45 MB to fetch, 130 MB on disk."""
        packed, unpacked = imagehost.sizes(imagehost.image())
        assert (True, True) == (packed <= MAX_PACKED, unpacked <= MAX_UNPACKED), (packed, unpacked)

    def test_has_no_shell(self, files: dict[str, tarfile.TarInfo]) -> None:
        """There is Python and the command, and no other program: no shell, no package manager."""
        programs = {name for name, entry in files.items() if entry.mode & 0o111 and not entry.isdir()}
        named = {name for name in programs if re.search(r"(^|/)s?bin/", name) and files[name].type != tarfile.SYMTYPE}
        assert {"usr/bin/python3.11", "usr/bin/sojourn"} == named
        assert not [name for name in files if re.search(r"(^|/)(pip|ensurepip|apt|rich|pygments)(/|$)", name)]

    def test_gives_nobody_more(self, files: dict[str, tarfile.TarInfo]) -> None:
        """All of it is root's, and no program gives more than its caller has."""
        assert [] == [name for name, entry in files.items() if entry.mode & 0o6000 or entry.uid or entry.gid]
        writable = [name for name, entry in files.items() if entry.mode & 0o022 and not entry.issym()]
        assert ["tmp"] == writable

    def test_parts(self) -> None:
        """The list of its parts is beside it and in it, and names Debian's packages and Python's, with licences."""
        file = imagehost.image()
        beside = json.loads(file.with_suffix(".cdx.json").read_text())
        purls = {each["purl"].partition("@")[0] for each in beside["components"]}
        assert {"pkg:deb/debian/libssl3", "pkg:pypi/cryptography", "pkg:pypi/grpcio"} <= purls
        assert "pkg:pypi/pygments" not in purls
        assert ("CycloneDX", "1.6") == (beside["bomFormat"], beside["specVersion"])
        assert [] == [
            each["name"] for each in beside["components"] if each.get("licenses") == [{"license": {"name": "unknown"}}]
        ]

    @pytest.mark.release
    def test_is_built_again(self, tmp_path: Path) -> None:
        """The same Debian packages give the same image, byte for byte."""
        first = imagehost.image()
        imagehost.build(tmp_path, "--packages", str(first.with_suffix(".packages")))
        assert first.read_bytes() == (tmp_path / first.name).read_bytes()

    @pytest.mark.release
    def test_for_arm64(self, files: dict[str, tarfile.TarInfo], tmp_path: Path) -> None:
        """The image for arm64 has what that for amd64 has, and each program and library in it is for arm64."""
        imagehost.build(tmp_path, "--arch", "arm64")
        made = tmp_path / imagehost.FILE.replace("amd64", "arm64")
        found: dict[str, str | None] = {}
        with tarfile.open(made) as archive:
            [manifest] = json.load(archive.extractfile("manifest.json"))
            assert "arm64" == json.load(archive.extractfile(manifest["Config"]))["architecture"]
            for layer in manifest["Layers"]:
                with tarfile.open(fileobj=archive.extractfile(layer)) as tar:
                    found |= {
                        each.name: elf.machine(tar.extractfile(each).read(20)) if each.isreg() else None for each in tar
                    }
        machines = {name: machine for name, machine in found.items() if machine}
        assert (True, {"arm64"}) == (len(machines) > 50, set(machines.values())), machines
        assert "usr/bin/python3.11" in machines
        assert {each for each in files if each.endswith((".py", ".pyc")) and "sysconfigdata" not in each} == {
            each for each in found if each.endswith((".py", ".pyc")) and "sysconfigdata" not in each
        }

    def test_of_other_packages(self, tmp_path: Path) -> None:
        """A package that is not the one of the list ends the build."""
        lines = imagehost.image().with_suffix(".packages").read_text()
        (tmp_path / "wrong").write_text(re.sub(r"sha256:.", "sha256:0", lines))
        with pytest.raises(AssertionError, match="not the packages that the lock names"):
            imagehost.build(tmp_path, "--packages", str(tmp_path / "wrong"))

    def test_all_of_it_is_there(self, podman: Host) -> None:
        """Each module of the agent and the command is imported in it: all libraries that they need are there, but for
        those of extras that the image does not have.
        """
        (podman.machine.folder / "imports.py").write_text(IMPORTS)
        flags = f"--network none --volume /mnt/work/imports.py:/imports.py --entrypoint python3 {NAME}"
        told = json.loads(podman.run(f"podman run --rm {flags} -I /imports.py"))
        without = ["sojourn.keyprocess.aws_kms", "sojourn.keyprocess.library", "sojourn.mcp"]
        assert (True, without) == (told["modules"] > 300, [name for name, _ in told["failed"]]), told["failed"]


class TestPrivileges:
    def test_with_all(self, host: Host, workload: int) -> None:
        """With two capabilities and nothing else nothing is lost: path, digest, names and unit are the machine's."""
        with host.agent() as agent:
            agent.ready()
            found, _ = agent.explain(workload)
            assert {"unix:path:/srv/own/work", "unix:user:keeper", "unix:group:keepers", "unix:uid:4711"} <= found
            assert 2 == len(program(found))
            assert {} == agent.limitations()

    def test_of_another_user_with_podman(self, podman: Host, workload: int) -> None:
        """Podman gives the capabilities to another user than root too: nothing is lost."""
        podman.run("install -d -o 65532 /mnt/work/humble && install -d -o 65532 -m 700 /mnt/work/humble-data")
        flags = (
            "-volume humble-data:/var/lib/sojourn",
            "+volume /mnt/work/humble-data:/var/lib/sojourn",
            "+user 65532",
        )
        with podman.agent(*flags, name="humble") as agent:
            agent.ready()
            found, _ = agent.explain(workload)
            assert {"unix:path:/srv/own/work", "unix:user:keeper"} <= found
            assert {} == agent.limitations()

    def test_of_another_user_with_docker(self, hosts: dict[str, Host], workload: int) -> None:
        """Docker gives capabilities to root alone: as another user the agent says what it cannot prove."""
        host = hosts["docker"]
        host.run("mkdir -p /mnt/work/other /mnt/work/other-data && chown 4712 /mnt/work/other /mnt/work/other-data")
        flags = ("-volume other-data:/var/lib/sojourn", "+volume /mnt/work/other-data:/var/lib/sojourn", "+user 4712")
        with host.agent(*flags, name="other") as agent:
            agent.ready()
            assert {PTRACE, APART, NAMES} == set(agent.limitations())
            assert set() == program(agent.explain(workload)[0])

    def test_without_looking_into_processes(self, host: Host, workload: int) -> None:
        """Without SYS_PTRACE programs and names are withheld, with the reason, and status says so."""
        with host.agent("-cap-add SYS_PTRACE") as agent:
            agent.ready()
            found, withheld = agent.explain(workload)
            assert (set(), "unix:uid:4711" in found) == (program(found), True)
            assert "CAP_SYS_PTRACE" in withheld["unix:path"]
            assert "CAP_SYS_PTRACE" in withheld["unix:user"]
            limitations = agent.limitations()
            assert {PTRACE, APART, NAMES} == set(limitations)
            assert "CAP_SYS_PTRACE" in limitations[PTRACE]

    def test_without_reading_all(self, host: Host, workload: int) -> None:
        """Without DAC_READ_SEARCH there is no digest of a program that not everybody may read, and status says so."""
        with host.agent("-cap-add DAC_READ_SEARCH") as agent:
            agent.ready()
            host.run("chown 4711 /srv/own/work")
            found, withheld = agent.explain(workload)
            host.run("chown 0 /srv/own/work")
            assert {"unix:path:/srv/own/work"} == program(found)
            assert "CAP_DAC_READ_SEARCH" in withheld["unix:sha256"]
            assert [READ] == list(agent.limitations())

    def test_without_the_machines_processes(self, host: Host) -> None:
        """In a process namespace of its own the agent ends at once, and says which option to add."""
        with host.agent("-pid host") as agent:
            assert "--pid host" in agent.refusal()

    def test_in_another_containers_processes(self, podman: Host) -> None:
        """In another container's process namespace it ends as well: that is not the machine's."""
        podman.run(
            f"podman run --detach --name shop --network none --entrypoint python3 {NAME} -c 'import time; time.sleep(1000)'"
        )
        try:
            with podman.agent("-pid host", "+pid container:shop") as agent:
                assert "--pid host" in agent.refusal()
        finally:
            podman.run("podman rm --force shop")

    @pytest.mark.parametrize("place", ["/var/lib/sojourn", "/run/sojourn"])
    @pytest.mark.parametrize("how", ["missing", "read-only"])
    def test_without_a_mount(self, podman: Host, place: str, how: str) -> None:
        """Where data or sockets lie on no mount, or on one that cannot be written, it ends, and says which to add."""
        source = "sojourn-data" if place == "/var/lib/sojourn" else "/mnt/work/sojourn"
        flags = [f"-volume {source}:{place}"]
        flags += [f"+volume {source}:{place}:ro"] if how == "read-only" else []
        with podman.agent(*flags) as agent:
            assert f"--volume {'sojourn-data' if source == 'sojourn-data' else place}:{place}" in agent.refusal()

    def test_without_the_machines_name(self, podman: Host) -> None:
        """With the container's name for the node it ends, and says what to do: the entries would stay behind."""
        with podman.agent("-uts host") as agent:
            assert "--uts host" in agent.refusal()

    def test_without_the_machines_cgroups(self, podman: Host) -> None:
        """In a cgroup namespace of its own it says what it cannot tell."""
        with podman.agent("-cgroupns host", "+cgroupns private") as agent:
            agent.ready()
            assert [CGROUPS] == list(agent.limitations())


class TestLife:
    def test_of_a_workload_in_a_container(self, host: Host) -> None:
        """A container that has the folder of the sockets gets its SVID; another file of its at a trusted path is not
        that program.
        """
        with host.agent() as agent:
            agent.ready()
            agent.tell("entry create --spiffe-id spiffe://example.org/web --selector unix:uid:1000")
            agent.tell(
                "entry create --spiffe-id spiffe://example.org/forged --selector unix:uid:1000"
                f" --selector unix:path:{os.path.realpath('/usr/bin/python3')}"
            )
            said = host.run(
                f"{host.engine} run --rm --user 1000 --network none --volume /mnt/work/sojourn:/run/sojourn"
                f" --env SPIFFE_ENDPOINT_SOCKET=unix:///run/sojourn/agent.sock --entrypoint sojourn {NAME} svid x509 -o json"
            )
            assert ["spiffe://example.org/web"] == [each["spiffe_id"] for each in json.loads(said)["svids"]]

    def test_is_stopped_and_goes_on(self, host: Host) -> None:
        """Another container with the same volume goes on where the first one ended; it is stopped within seconds."""
        with host.agent(name="lasting") as agent:
            agent.ready()
            agent.tell("entry create --spiffe-id spiffe://example.org/kept --selector unix:uid:1000")
            host.run(f"{host.engine} stop lasting", seconds=9)
            host.run(f"{host.engine} rm lasting")
            with host.agent(name="lasting") as other:
                other.ready()
                assert "spiffe://example.org/kept" in other.tell("entry show")

    def test_health(self, hosts: dict[str, Host]) -> None:
        """Docker shows the agent as healthy by the image's own check."""
        host = hosts["docker"]
        with host.agent("+health-interval 1s") as agent:
            shows = "docker inspect --format '{{.State.Health.Status}}' sojourn"
            until(lambda: "healthy\n" == host.run(shows), "it is healthy", 60)
            assert isinstance(agent, Agent)


@pytest.mark.parametrize("heading", ["Docker", "Podman"])
def test_the_page(hosts: dict[str, Host], heading: str) -> None:
    """Each command of docs/operate/container.md does what it stands for, as it is written there."""
    host = hosts[heading.lower()]
    engine = host.engine
    clean = f"{engine} rm --force sojourn; {engine} volume rm sojourn-data; rm -rf /run/sojourn /var/lib/sojourn"
    host.run(clean, check=False)
    try:
        said = "".join(
            host.run(each, seconds=300) for block in imagehost.blocks(heading) for each in imagehost.commands(block)
        )
    finally:
        host.run(clean, check=False)
    assert "unix:path:/usr/bin/dash" in said
    assert "spiffe://example.org/web" in said or heading == "Podman"


def test_the_image_file_is_the_pages() -> None:
    """The page names the file and the image that are built."""
    text = imagehost.GUIDE.read_text()
    assert (True, True) == (f"build/image/{imagehost.FILE}" in text, NAME in text)
    assert subprocess.run(["tar", "-tf", str(imagehost.image())], capture_output=True, check=True).stdout
