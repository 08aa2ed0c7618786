"""What attestation costs: by attestor, and with many containers at once. Beside SPIRE: workloadlines.py."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from figures import Figure, percentile
from ground import FULL, Bench
from harness.agent import AgentProcess
from harness.dockerd import Dockerd
from harness.engineproxy import EngineProxy
from harness.engines import HOST_IMAGE
from harness.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, call_headers, frame, message
from harness.kubeletstandin import Kubelet, listed, pod_of
from harness.looking import until
from harness.nspawn import Helper as MachineHelper
from harness.nspawn import Machine
from harness.podman import Podman
from harness.subjects import subject_of
from processes import cpu_seconds
from sojourn.attestation.attestor import Attestor
from sojourn_attestors.docker import DockerAttestor
from sojourn_attestors.kubernetes import KubernetesAttestor
from sojourn_attestors.unix import UnixAttestor

CALL = (
    PREFACE
    + frame(SETTINGS)
    + frame(HEADERS, END_HEADERS, 1, call_headers("/SpiffeWorkloadAPI/FetchX509SVID"))
    + frame(DATA, END_STREAM, 1, message(b""))
)
CONTAINERS = 100
_FLAGS = ("--volume", "/usr:/usr:ro", "--volume", "/etc/ld.so.cache:/etc/ld.so.cache:ro")


def has_docker() -> str:
    """Why there can be no containers, or ''."""
    return _lacks("/usr/sbin/dockerd", "/usr/bin/docker", "/usr/sbin/runc", "/bin/busybox")


def has_podman() -> str:
    return _lacks("/usr/bin/podman", "/usr/sbin/runc", "/bin/busybox")


def has_systemd() -> str:
    return _lacks("/usr/bin/systemd-nspawn", "/usr/bin/dbus-daemon", "/lib/systemd/systemd")


def _lacks(*programs: str) -> str:
    if os.geteuid() != 0:
        return "needs root, for namespaces of its own"
    if not all(Path(each).exists() for each in programs):
        return f"needs {', '.join(programs)}: .ci/tools names the packages"
    return ""


# --- 22 ---


def by_attestor(bench: Bench) -> Iterator[Figure | str]:
    with ThreadPoolExecutor(8) as pool:
        yield from _times(bench, "unix", lambda: UnixAttestor({}, pool), [os.getpid()])
        without = {"path": False, "sha256": False}
        yield from _times(bench, "unix without path and sha256", lambda: UnixAttestor(without, pool), [os.getpid()])
        for name, missing, measure in (
            ("systemd", has_systemd(), _of_units),
            ("docker and k8s", has_docker(), _of_docker),
            ("podman", has_podman(), _of_podman),
        ):
            if missing:
                yield f"{name}: {missing}"
            else:
                yield from measure(bench, pool)


def _of_units(bench: Bench, _pool: ThreadPoolExecutor) -> Iterator[Figure]:
    """In a machine of its own: the attestor runs there."""
    with Machine() as machine, MachineHelper(machine, "attesting.py", "systemd") as attesting:
        pid = machine.unit("measured")

        def asked() -> float:
            answer = attesting.ask(pid=pid)
            if "error" in answer:
                raise RuntimeError(f"could not tell: {answer}")
            return float(answer["seconds"])

        cold: list[float] = []
        warm: list[float] = []
        for _ in range(bench.effort.tries):
            attesting.ask(settings={})  # another attestor
            cold.append(asked())
            warm += [asked() for _ in range(5)]
    yield from _both("systemd", cold, warm)


def _of_docker(bench: Bench, pool: ThreadPoolExecutor) -> Iterator[Figure]:
    with Dockerd() as engine:
        pids = [engine.run().pid for _ in range(3)]
        settings = {"docker_socket": str(engine.socket), "podman_socket": ""}
        yield from _times(bench, "docker, in a container", lambda: DockerAttestor(settings, pool), pids)
        yield from _times(bench, "docker, outside", lambda: DockerAttestor(settings, pool), [os.getpid()])
        yield from _times(bench, "unix, in a container of this second", lambda: UnixAttestor({}, pool), pids)
        with tempfile.TemporaryDirectory() as folder, Kubelet(Path(folder)) as kubelet:
            pod = pod_of(kubelet.pods, "web")["metadata"]["uid"]
            container = engine.run(flags=["--cgroup-parent", f"/kubepods/besteffort/pod{pod}"])
            listed(kubelet.pods, "web", "main", container.id)
            of_pods = kubelet.settings(Path(folder))
            name = f"k8s, a stand-in kubelet with {len(kubelet.pods['items'])} pods"
            yield from _times(bench, name, lambda: KubernetesAttestor(of_pods, pool), [container.pid])


def _of_podman(bench: Bench, pool: ThreadPoolExecutor) -> Iterator[Figure]:
    with Podman() as engine:
        pids = [engine.run().pid for _ in range(3)]
        settings = {"docker_socket": "", "podman_socket": str(engine.socket)}
        yield from _times(bench, "podman, in a container", lambda: DockerAttestor(settings, pool), pids)


def _times(bench: Bench, name: str, make: Callable[[], Attestor], pids: list[int]) -> Iterator[Figure]:
    yield from _both(name, *asyncio.run(_measured(make, pids, bench.effort.tries)))


def _both(name: str, cold: list[float], warm: list[float]) -> Iterator[Figure]:
    yield Figure.of(f"{name}: cold", "ms", [each * 1000 for each in cold])
    yield Figure.of(f"{name}: warm", "ms", [each * 1000 for each in warm])


async def _measured(make: Callable[[], Attestor], pids: list[int], tries: int) -> tuple[list[float], list[float]]:
    """The times of a first question to a new attestor, and of the next ones."""
    cold: list[float] = []
    warm: list[float] = []
    for number in range(tries):
        attestor = make()
        with subject_of(pids[number % len(pids)]) as subject:
            for times, again in ((cold, 1), (warm, 5)):
                for _ in range(again):
                    begun = time.perf_counter()
                    answer = await attestor.attest(subject)
                    times.append(time.perf_counter() - begun)
                    if answer.untold:
                        raise RuntimeError(f"could not tell: {dict(answer.untold)}")
        closing = getattr(attestor, "close", None)
        if closing is not None:
            await closing()
    return cold, warm


# --- 24 ---


def many_containers(bench: Bench) -> Iterator[Figure | str]:
    if missing := has_docker():
        yield missing
        return
    count = CONTAINERS if bench.effort is FULL else 10
    with Dockerd() as engine, EngineProxy(engine.folder / "counted.sock", engine.socket) as counted:
        config = f'[attestors.unix]\n[attestors.docker]\ndocker_socket = "{counted.path}"\npodman_socket = ""\n'
        with AgentProcess(config=config) as agent:
            agent.register("/box", "docker:label:bench:yes")
            shared = agent.folder / "shared"
            shared.mkdir()
            (shared / "call").write_bytes(CALL)
            (shared / "incontainer.py").write_bytes(Path(__file__).with_name("incontainer.py").read_bytes())
            folder = str(agent.folder)
            for _ in range(count):
                engine.run(
                    "/usr/bin/python3",
                    "-I",
                    "-S",
                    f"{shared}/incontainer.py",
                    agent.socket,
                    str(shared),
                    image=HOST_IMAGE,
                    flags=[*_FLAGS, "--label", "bench=yes", "--volume", f"{folder}:{folder}"],
                )
            until(lambda: len(list(shared.glob("ready-*"))) == count, "all containers run", 120)
            counted.asked.clear()
            before = cpu_seconds(agent.pid)
            (shared / "go").touch()
            until(lambda: len(list(shared.glob("done-????????????"))) == count, "all containers have fetched", 60)
            found = [tuple(map(float, each.read_text().split())) for each in shared.glob("done-????????????")]
            asked, used = list(counted.asked), cpu_seconds(agent.pid) - before
    if not all(served for _, _, served in found):
        raise RuntimeError(f"{sum(not served for *_, served in found)} of {count} containers were not served")
    took = [(done - begun) * 1000 for begun, done, _ in found]
    whole = max(done for _, done, _ in found) - min(begun for begun, _, _ in found)
    yield Figure.of(f"{count} containers at once: until all are served", "ms", [whole * 1000])
    yield Figure.of("connect to SVID: p50", "ms", [percentile(took, 50)])
    yield Figure.of("connect to SVID: p99", "ms", [percentile(took, 99)])
    yield Figure.of("questions to the engine about containers, for each", "", [_about(asked, "/containers/") / count])
    yield Figure.of("questions to the engine about images, in all", "", [_about(asked, "/images/")])
    yield Figure.of("agent CPU a container", "ms", [used * 1000 / count])


def _about(asked: list[str], what: str) -> int:
    return sum(what in each for each in asked)


ATTEST_LINES = (
    (22, "attestation of a process, by attestor", by_attestor),
    (24, "containers that fetch at once, one engine", many_containers),
)
