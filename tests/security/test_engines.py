"""Engines that fail or lie, and containers that come and go: nobody has another container's selectors."""

import asyncio
import contextlib
import dataclasses
import os
import random
from concurrent.futures import Executor
from typing import Any

import pytest
from harness.asking import ask, attestor
from harness.engineproxy import EngineProxy, on_the_wire
from harness.engines import Container, Engine
from harness.subjects import subject_of
from sojourn.attestation.peer import Peer
from sojourn.attestation.selectors import Selector
from sojourn.attestation.service import Attestation
from sojourn.errors import AttestationFailed
from sojourn.runtime.clock import SystemClock
from sojourn_attestors import docker as attestor_module
from sojourn_attestors.docker import DockerAttestor
from sojourn_attestors.engines import asking as engines_module

pytestmark = [pytest.mark.full, pytest.mark.root]
ROUNDS = 1_000
RESTARTS = 10


class TestFaults:
    @pytest.mark.parametrize(
        ("wire", "said"),
        [
            (b"", "hung up"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "hung up"),
            (b"garbage\r\n\r\n", "does not speak HTTP"),
            (on_the_wire(500, b"{}"), "answered 500"),
            (on_the_wire(200, b"[]"), "cannot be read"),
            (on_the_wire(200, b"nul"), "not JSON"),
            (on_the_wire(200, b" " * 1_100_000), "more than"),
        ],
    )
    async def test_wrong(self, docker, pool, docker_proxy, wire, said):
        """An engine that dies mid-answer, or answers garbage, or without end, is one that could not tell."""
        docker_proxy.fault = lambda connection, _: connection.sendall(wire)
        with pytest.raises(AttestationFailed, match=said):
            await ask(attestor(docker, pool, path=docker_proxy.path), docker.run().pid)

    async def test_silent(self, docker, pool, docker_proxy, monkeypatch):
        """While one does not answer, one caller at a time waits for it and others are told at once; then all have
        theirs again.
        """
        monkeypatch.setattr(attestor_module, "ENGINE_SECONDS", 0.3)
        monkeypatch.setattr(engines_module, "ENGINE_LATE_AGAIN_SECONDS", 0.5)
        containers = [docker.run() for _ in range(5)]
        docker_proxy.fault = lambda connection, _: docker_proxy.hold(connection)
        asked = attestor(docker, pool, path=docker_proxy.path)
        for container in containers[:2]:
            with pytest.raises(AttestationFailed, match=r"did not answer within 0\.3 s"):
                await ask(asked, container.pid)
            with pytest.raises(AttestationFailed, match="a moment ago"):
                await ask(asked, container.pid)
        answers = await asyncio.gather(*(ask(asked, each.pid) for each in containers), return_exceptions=True)
        assert 1 == sum("within" in str(each) for each in answers)
        assert 3 == len(docker_proxy.asked)
        docker_proxy.fault = None
        for container in containers:
            while True:
                try:
                    answer = await ask(asked, container.pid)
                except AttestationFailed:
                    await asyncio.sleep(0.05)
                else:
                    break
            assert "label:app:web" in answer.values

    async def test_one_container_that_is_stuck(self, docker, pool, docker_proxy, monkeypatch):
        """Where an engine never answers about one container, whose callers come again and again, others are told."""
        monkeypatch.setattr(attestor_module, "ENGINE_SECONDS", 0.2)
        monkeypatch.setattr(engines_module, "ENGINE_LATE_AGAIN_SECONDS", 60.0)
        stuck = docker.run()
        docker_proxy.fault = lambda connection, answer: (
            docker_proxy.hold(connection) if stuck.id in docker_proxy.asked[-1] else connection.sendall(answer)
        )
        asked = attestor(docker, pool, path=docker_proxy.path)
        for _ in range(3):
            for _ in range(5):
                with pytest.raises(AttestationFailed, match="did not answer"):
                    await ask(asked, stuck.pid)
            assert "label:app:web" in (await ask(asked, docker.run().pid)).values
        assert 1 == sum(stuck.id in path for path in docker_proxy.asked)

    async def test_many_connections_of_one_that_is_stuck(self, docker, pool, docker_proxy):
        """While many connections of a container wait for its engine, another container of that user does not."""
        stuck, other = docker.run(), docker.run()
        docker_proxy.fault = lambda connection, answer: (
            docker_proxy.hold(connection) if stuck.id in docker_proxy.asked[-1] else connection.sendall(answer)
        )
        attestation = Attestation({"docker": attestor(docker, pool, path=docker_proxy.path)}, SystemClock())
        peers = [Peer.of_pid(stuck.pid) for _ in range(20)]
        with contextlib.closing(Peer.of_pid(other.pid)) as peer:
            assert {peer.uid} == {each.uid for each in peers}
            waiting = [asyncio.ensure_future(attestation.attest(each)) for each in peers]
            while not any(stuck.id in path for path in docker_proxy.asked):
                await asyncio.sleep(0.01)
            found = await attestation.attest(peer)
            assert Selector("docker", "label:app:web") in found.selectors
            assert not any(each.done() for each in waiting)
        docker_proxy.let_go()
        assert {AttestationFailed} == {type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)}
        for each in peers:
            each.close()

    async def test_another_first_process(self, docker, pool, docker_proxy):
        """Whichever pid an engine lies about, the caller has no selector by it."""
        container, other = docker.run(), docker.run(flags=["--label", "team=admin"])
        for pid in (1, os.getpid(), other.pid, container.start_process("sleep", "100"), 2**22):
            docker_proxy.change = lambda _, told, pid=pid: (
                {**told, "State": {**told["State"], "Pid": pid}} if "State" in told else told
            )
            asked = attestor(docker, pool, path=docker_proxy.path)
            inside = pid not in {1, os.getpid(), other.pid, 2**22}
            try:
                answer = await ask(asked, container.pid)
            except AttestationFailed:
                assert not inside
            else:
                assert inside == bool(answer.values)

    async def test_another_containers_answer(self, docker, pool, docker_proxy):
        """An answer about another container, or another image, is refused."""
        container, other = docker.run(), docker.run(flags=["--label", "team=admin"])
        wrong = docker.ask(f"/containers/{other.id}/json")
        docker_proxy.change = lambda path, told: wrong if "/containers/" in path else told
        with pytest.raises(AttestationFailed, match="another container"):
            await ask(attestor(docker, pool, path=docker_proxy.path), container.pid)
        docker_proxy.change = lambda path, told: {**told, "Id": f"sha256:{'0' * 64}"} if "/images/" in path else told
        with pytest.raises(AttestationFailed, match="another image"):
            await ask(attestor(docker, pool, path=docker_proxy.path), container.pid)

    async def test_a_name_like_an_id(self, docker, pool):
        """Engines take names for ids: a container named as another's id is not that container."""
        container = docker.run()
        named = "ab" * 32
        docker.run(flags=["--name", named, "--label", "team=admin"])
        with subject_of(container.pid) as subject:
            forged = dataclasses.replace(subject, cgroup=subject.cgroup.replace(container.id, named))
            with pytest.raises(AttestationFailed, match="another container"):
                await attestor(docker, pool).attest(forged)

    async def test_hostile_labels(self, docker, pool):
        """Labels that could be read as others, or that no selector can hold, are withheld; the rest is given."""
        flags = [f"--label={each}" for each in ("a:b=c", "a=b:c", f"long={'x' * 5_000}", "n\nl=x\ny", "é=ü")]
        answer = await ask(attestor(docker, pool), docker.run(flags=flags).pid)
        labels = {value for value in answer.values if value.startswith("label:")}
        assert {"label:app:web", "label:a:b:c", "label:n\nl:x\ny", "label:é:ü"} == labels
        assert {"label:a:b", "label:long"} < set(answer.withheld)


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
