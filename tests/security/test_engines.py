"""Engines that lie at random, and containers that come and go: nobody has another container's selectors."""

import asyncio
import os
import random
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import pytest
from harness.engineproxy import EngineProxy, on_the_wire
from harness.engines import Container, Engine
from harness.subjects import subject_of
from sojourn.errors import AttestationFailed
from sojourn_attestors import engines as engines_module
from sojourn_attestors.docker import DockerAttestor

pytestmark = pytest.mark.root
ROUNDS = 1_000
RESTARTS = 10


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


async def names_of(attestor: DockerAttestor, pid: int) -> set[str]:
    """Which containers a process is, by their labels `is`; none if it could not be told."""
    try:
        with subject_of(pid) as subject:
            answer = await attestor.attest(subject)
    except AttestationFailed:
        return set()
    return {value.removeprefix("label:is:") for value in answer.values if value.startswith("label:is:")}


async def test_an_engine_that_lies(docker: Engine, pool: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand answers of an engine that mixes up containers, pids and bytes: each process is told to be the container
    that it is in, or nothing. The engine's word alone gives nobody a container that it is not in.
    """
    monkeypatch.setattr(engines_module, "_PAUSES", (0.001, 0.0))
    random_ = random.Random(1)  # the same lies each time
    containers = {name: docker.run(flags=["--label", f"is={name}"]) for name in ("one", "two", "three")}
    true = {each.id: docker.ask(f"/containers/{each.id}/json") for each in containers.values()}
    pids = [*(each.pid for each in containers.values()), os.getpid(), 1, 0, -1, 2**22, None, "1"]
    strangers = {os.getpid(), os.getppid()}

    def lie(path: str, told: Any) -> Any:
        if "/containers/" not in path:
            return random_.choice([told, told, {**told, "Id": "sha256:" + "0" * 64}, [], {}])
        other = random_.choice(list(true.values()))
        asked = path.split("/")[2]
        match random_.randrange(6):
            case 0:
                return other
            case 1:  # of another one, as if it were this one: its labels come with its first process
                return {**other, "Id": asked}
            case 2:
                return {**other, "Id": asked, "State": {**other["State"], "Pid": random_.choice(pids)}}
            case 3:
                return {**told, "State": {**told["State"], "Running": random_.choice([False, None, 1])}}
            case 4:
                return {**told, random_.choice(list(told)): random_.choice([None, [], {}, 1, "x", [[]]])}
        return told

    def garble(connection: Any, answer: bytes) -> None:
        at = random_.randrange(len(answer))
        wire = random_.choice(
            [answer] * 6 + [answer[:at], answer[:at] + b"\0" + answer[at + 1 :], on_the_wire(404, b"")]
        )
        connection.sendall(wire)

    told_true = 0
    with EngineProxy(docker.folder / "lies.sock", docker.socket) as proxy:
        proxy.change, proxy.fault = lie, garble
        for round_ in range(ROUNDS):
            attestor = DockerAttestor({"docker_socket": str(proxy.path), "podman_socket": ""}, pool)
            name, container = random_.choice(list(containers.items()))
            found = await names_of(attestor, container.pid)
            believed = _labels_that_came_with(container, proxy)
            assert found <= believed, (round_, name, found)
            told_true += found == {name}
            if round_ % 50 == 0:
                assert set() == await names_of(attestor, random_.choice(list(strangers)))
            await attestor.close()
    assert told_true > ROUNDS / 20


def _labels_that_came_with(container: Container, proxy: EngineProxy) -> set[str]:
    """The labels of the last answer about this container that named a process which truly is in it."""
    for path, document in reversed(proxy.answered):
        if container.id not in path:
            continue
        try:
            pid, labels = document["State"]["Pid"], document["Config"]["Labels"]
        except (TypeError, KeyError):
            return set()
        return {labels["is"]} if pid == container.pid else set()
    return set()


async def test_containers_that_are_started_again(docker: Engine, pool: Executor) -> None:
    """While containers are ended and started again as fast as that goes, with pids that are used again, whoever asks
    has what its process is, or nothing.
    """
    attestor = DockerAttestor({"docker_socket": str(docker.socket), "podman_socket": ""}, pool)
    names = ("one", "two")
    running = {name: docker.run(flags=["--label", f"is={name}", "--name", f"r-{name}"]) for name in names}
    pids: dict[str, set[int]] = {name: {container.pid} for name, container in running.items()}
    over = False
    asked = right = 0

    async def ask(name: str) -> None:
        nonlocal asked, right
        while not over:
            for pid in list(pids[name]):
                found = await names_of(attestor, pid)
                now = container_of(pid)
                asked += 1
                if found:
                    right += 1
                    assert found == {name} or now != running[name].id, (name, found)
            await asyncio.sleep(0.005)

    asking = [asyncio.ensure_future(ask(name)) for name in names]
    loop = asyncio.get_running_loop()
    for _ in range(RESTARTS):
        for name in names:
            await loop.run_in_executor(pool, docker.command, "restart", "--time", "0", f"r-{name}")
            pids[name] = {docker.pid_of(f"r-{name}")}
    over = True
    await asyncio.gather(*asking)
    await attestor.close()
    assert right > RESTARTS
    assert asked >= right


def container_of(pid: int) -> str:
    """The container whose cgroup a process is in, or ''."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            return file.read().strip().rpartition("/")[2]
    except OSError:
        return ""
