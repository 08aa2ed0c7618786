"""In which container a process is, with real engines: Docker and Podman, cgroup v1 and v2."""

import json
import os
import subprocess
import sys

import pytest
from harness.disguises import entering
from harness.engines import Container, Engine
from harness.inmates import Cgroups, inmate, subject_of
from sojourn.attestation.proc_reader import reader
from sojourn.errors import AttestationFailed
from sojourn_attestors.containers.place import Containers, NotInside

POD = "1b2c3d4e-89ab-4def-8123-456789abcdef"
pytestmark = [pytest.mark.full, pytest.mark.root]


async def check(containers: Containers, pid: int, container: Container) -> None:
    """The process is found in this container, which is known by its first process, and is inside."""
    subject = subject_of(pid)
    place = await containers.locate(subject)
    assert place is not None
    assert (container.id, 0, ()) == (place.id, place.owner, place.enclosing)
    await containers.check_inside(subject, place, container.pid)


async def test_whoever_is_inside(engine: Engine, containers: Containers) -> None:
    """The first process, its children and what was started later are inside, whoever they are."""
    container = engine.run("sh", "-c", "sleep 500 & sleep 600")
    later = container.start_process("sleep", "100")
    other = container.start_process("sleep", "200", flags=["--user", "1234"])
    pids = container.pids()
    assert {container.pid, later, other} < set(pids)
    for pid in pids:
        await check(containers, pid, container)
    place = await containers.locate(subject_of(later))
    assert place is not None
    assert {"docker": "", "podman": "libpod"}[engine.kind] == place.runtime
    assert container.pid == await containers.first_process(place)


async def test_pods(engine: Engine, containers: Containers) -> None:
    """At a place such as the kubelet chooses the pod is told too."""
    container = engine.run(flags=["--cgroup-parent", f"/kubepods/besteffort/pod{POD}"])
    later = container.start_process("sleep", "100")
    place = await containers.locate(subject_of(later))
    assert place is not None
    assert (container.id, POD) == (place.id, place.pod)
    assert container.pid == await containers.first_process(place)
    await check(containers, later, container)


async def test_that_share_much(engine: Engine, containers: Containers) -> None:
    """Containers that share the machine's namespaces or each other's are told apart."""
    first = engine.run(flags=["--ipc", "shareable"])
    second = engine.run(flags=["--pid", f"container:{first.id}", "--ipc", f"container:{first.id}"])
    third = engine.run(flags=["--pid", "host", "--ipc", "host", "--uts", "host"])
    for one in (first, second, third):
        await check(containers, one.pid, one)
        subject = subject_of(one.pid)
        place = await containers.locate(subject)
        assert place is not None
        assert one.pid == await containers.first_process(place)
        for other in {first, second, third} - {one}:
            with pytest.raises(NotInside):
                await containers.check_inside(subject, place, other.pid)


async def test_nobody_else(engine: Engine, containers: Containers) -> None:
    """Processes of this machine, the engine's own among them, are in no container."""
    container = engine.run()
    assert engine.process is not None
    for pid in (1, os.getpid(), engine.process.pid, reader.stat(container.pid).parent):
        assert await containers.locate(subject_of(pid)) is None


async def test_outside_its_cgroup(engine: Engine, containers: Containers) -> None:
    """A container whose processes were moved elsewhere is told by its mounts, and they by its namespaces."""
    container = engine.run("sh", "-c", "sleep 500 & sleep 600")
    with Cgroups() as cgroups:
        for pid in container.pids():
            for root in cgroups.every_root():
                (root / "cgroup.procs").write_text(str(pid))
        for pid in container.pids():
            place = await containers.locate(subject_of(pid))
            assert place is not None
            assert (container.id, "mounts", 0) == (place.id, place.found, place.owner)
            await containers.check_inside(subject_of(pid), place, container.pid)
        with inmate(join=[f"--target={container.pid}", "--mount"]) as process:
            place = await containers.locate(process.subject)
            assert place is not None
            assert container.id == place.id
            with pytest.raises(NotInside):
                await containers.check_inside(process.subject, place, container.pid)


_AGENT = """
import asyncio, json, sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from sojourn_attestors.containers.place import Containers

async def main(pid):
    with open(f"/proc/{pid}/cgroup") as file:
        subject = SimpleNamespace(pid=pid, cgroup=file.read())
    with ThreadPoolExecutor(1) as pool:
        containers = Containers(pool)
        place = await containers.locate(subject)
        first = await containers.first_process(place)
        await containers.check_inside(subject, place, first)
    print(json.dumps([place.id, place.pod, place.owner, first, sorted(each.path for each in place.cgroups)]))

asyncio.run(main(int(sys.argv[1])))
"""


@pytest.mark.parametrize("mounting", ["true", "umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup"])
def test_from_a_container_of_the_agents(docker_v2: Engine, mounting: str) -> None:
    """From a cgroup namespace of the agent's own too, whether it sees all of the machine's cgroups or its own alone."""
    container = docker_v2.run(flags=["--cgroup-parent", f"/kubepods/besteffort/pod{POD}"])
    later = container.start_process("sleep", "100")
    with Cgroups() as cgroups:
        (folder,) = cgroups.make(f"/sojourn-test-{os.getpid()}/agent", "cgroup2")
        program = [sys.executable, "-c", _AGENT, str(later)]
        own = ["unshare", "--cgroup", "--mount", "sh", "-c", f'{mounting} && exec "$@"', "sh", *program]
        argv = ["sh", "-c", entering([folder]), "sh", *docker_v2.inside(*own)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    path = f"/../../kubepods/besteffort/pod{POD}/{container.id}"
    assert [container.id, POD, 0, container.pid, [path]] == json.loads(done.stdout)


async def test_once_it_is_gone(engine: Engine, containers: Containers) -> None:
    """A container that has ended has nobody inside."""
    container = engine.run()
    subject = subject_of(container.pid)
    place = await containers.locate(subject)
    assert place is not None
    container.remove()
    for asking in (containers.check_inside(subject, place, container.pid), containers.first_process(place)):
        with pytest.raises(AttestationFailed, match=r"has gone|no process"):
            await asking
