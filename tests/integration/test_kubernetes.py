"""The attestor `k8s` in a real agent: real containers in cgroups of pods, and a kubelet that answers as a real one did.

With a real kubelet: test_real_kubernetes.py.
"""

import os
import secrets
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.engines import Container, Engine
from harness.inmates import Cgroups
from harness.kubeletstandin import Kubelet, listed, pod_of
from harness.looking import until
from harness.raw import Admin

pytestmark = [pytest.mark.full, pytest.mark.root]
WEB = ("k8s:ns:default", "k8s:sa:web", "k8s:container-name:main")


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[Kubelet]:
    with Kubelet(tmp_path) as kubelet:
        yield kubelet


@pytest.fixture
def agent(kubelet: Kubelet, tmp_path: Path) -> Iterator[AgentProcess]:
    with AgentProcess(config=f"[attestors.unix]\n{kubelet.toml(tmp_path)}\n") as agent:
        until(lambda: kubelet.asked, "the agent has looked whether it could tell")
        yield agent
        assert [] == [line for line in agent.log_lines() if line["event"] in {"call_failed", "attestor_raised"}]


@pytest.fixture
def admin(agent: AgentProcess) -> Iterator[Admin]:
    with Admin(agent.admin_socket) as admin:
        yield admin


@pytest.fixture(params=["docker", "docker_v2"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Real containers, with this machine's cgroups and with cgroup v2 alone."""
    engine: Engine = request.getfixturevalue(request.param)
    return engine


def parent(kubelet: Kubelet, pod: str = "web") -> str:
    """The cgroup of a pod, as the kubelet would make it."""
    return f"/kubepods/besteffort/pod{pod_of(kubelet.pods, pod)['metadata']['uid']}"


def in_pod(engine: Engine, kubelet: Kubelet, pod: str = "web", name: str = "main") -> Container:
    """A container that the kubelet lists as that of a pod."""
    container = engine.run(flags=["--cgroup-parent", parent(kubelet, pod)])
    listed(kubelet.pods, pod, name, container.id)
    return container


def found(admin: Admin, pid: int) -> set[str]:
    return {each for each in admin.explain(pid).selectors if each.startswith("k8s:")}


def failure(admin: Admin, pid: int) -> str:
    return {each.what: each.reason for each in admin.explain(pid).failed_attestors}.get("k8s", "")


class TestWorkloads:
    def test_a_pod_is_served(self, engine: Engine, kubelet: Kubelet, agent: AgentProcess, admin: Admin) -> None:
        """A workload in a pod gets the SVID of its service account; one in another pod, of the same user, does not."""
        admin.register("/ns/default/sa/web", *WEB)
        pod_of(kubelet.pods, "done")["spec"]["serviceAccountName"] = "other"
        web, done = (
            engine.caller(agent.socket, flags=["--cgroup-parent", parent(kubelet, pod)]) for pod in ("web", "done")
        )
        with web, done:
            for pod in ("web", "done"):
                pid = until(lambda pod=pod: member(parent(kubelet, pod)), f"a process of {pod}")
                listed(kubelet.pods, pod, "main", container_of(pid))
            assert ["spiffe://example.org/ns/default/sa/web"] == ids(web)
            assert "no identity issued" in done.ask("x509")["message"]

    def test_of_each_kind_of_container(self, engine: Engine, kubelet: Kubelet, admin: Admin) -> None:
        """Regular, init, sidecar, ephemeral and static pods' containers are told as such."""
        names = [("web", name) for name in ("main", "second", "first", "side", "debug")] + [("static-node1", "main")]
        for pod, name in names:
            container = in_pod(engine, kubelet, pod, name)
            values = found(admin, container.pid)
            assert {f"k8s:pod-name:{pod}", f"k8s:container-name:{name}"} <= values

    def test_a_pod_that_is_not_listed_yet(self, docker: Engine, kubelet: Kubelet, admin: Admin) -> None:
        """A pod that the kubelet does not list yet is waited for, and attested as soon as it is listed."""
        container = docker.run(flags=["--cgroup-parent", parent(kubelet)])
        before = kubelet.asked
        listing = threading.Timer(0.5, lambda: listed(kubelet.pods, "web", "main", container.id))
        listing.start()
        assert "k8s:pod-name:web" in found(admin, container.pid)
        listing.join()
        assert 2 <= kubelet.asked - before <= 12
        assert 1 == kubelet.at_once

    def test_outside_of_pods(self, docker: Engine, kubelet: Kubelet, admin: Admin) -> None:
        """Of this test, and of a container that is no pod's, nothing is so, whatever the kubelet does."""
        kubelet.answer, asked = b"broken", kubelet.asked
        for pid in (os.getpid(), docker.run().pid):
            assert (set(), "") == (found(admin, pid), failure(admin, pid))
        assert asked == kubelet.asked

    def test_many_at_once(self, docker: Engine, kubelet: Kubelet, admin: Admin) -> None:
        """Processes that are explained at once share the kubelet's list."""
        container = in_pod(docker, kubelet)
        pids = [container.start_process("sleep", "100") for _ in range(3)]
        found(admin, container.pid)
        asked = kubelet.asked
        assert all(found(admin, pid) == found(admin, container.pid) for pid in pids)
        assert kubelet.asked - asked <= 1


class TestAnAgentInAPod:
    @pytest.fixture
    def agent(self, kubelet: Kubelet, tmp_path: Path) -> Iterator[AgentProcess]:
        """An agent with the node's processes in sight, in the cgroups of a pod and a cgroup namespace of its own."""
        name = f"/sojourn-test-{secrets.token_hex(8)}/kubepods/besteffort/pod{uuid.uuid4()}/{secrets.token_hex(32)}"
        with Cgroups() as cgroups:
            enter = [f"echo 0 > {folder}/cgroup.procs" for folder in cgroups.make(name)]
            before = ["sh", "-c", " && ".join([*enter, 'exec unshare --cgroup -- "$@"']), "sh"]
            with AgentProcess(config=f"[attestors.unix]\n{kubelet.toml(tmp_path)}\n", under=before) as agent:
                yield agent

    def test_serves_pods(self, engine: Engine, kubelet: Kubelet, agent: AgentProcess, admin: Admin) -> None:
        """An agent in a pod sees the cgroups of other pods from its own, and tells those pods all the same."""
        container = in_pod(engine, kubelet)
        assert {"k8s:pod-name:web", "k8s:container-name:main"} <= found(admin, container.pid)
        assert (set(), "") == (found(admin, os.getpid()), failure(admin, os.getpid()))


class TestFailures:
    def test_a_kubelet_that_is_down(self, docker: Engine, kubelet: Kubelet, agent: AgentProcess, admin: Admin) -> None:
        """A pod's workload is told that attestation failed, not that it has no identity; afterwards it is served."""
        admin.register("/ns/default/sa/web", *WEB)
        kubelet.status = 503
        with docker.caller(agent.socket, flags=["--cgroup-parent", parent(kubelet)]) as caller:
            pid = until(lambda: member(parent(kubelet)), "a process of the pod")
            listed(kubelet.pods, "web", "main", container_of(pid))
            said = caller.ask("x509")
            assert ("error", True) == (said["event"], "the kubelet answered 503" in said["message"])
            kubelet.status = 200
            until(lambda: caller.ask("x509")["event"] == "x509", "it is served")

    def test_a_kubelet_that_hangs(self, docker: Engine, kubelet: Kubelet, admin: Admin) -> None:
        """A pod's process is told of in time, and others are not kept waiting."""
        container = in_pod(docker, kubelet)
        kubelet.gate.clear()
        waiting = threading.Thread(target=lambda: told.append(failure(admin, container.pid)))
        told: list[str] = []
        waiting.start()
        until(lambda: kubelet.asked, "it is asked")
        assert (set(), "") == (found(admin, os.getpid()), failure(admin, os.getpid()))
        assert [] == told
        waiting.join()
        assert "the kubelet did not answer within" in told[0]

    def test_tokens_are_in_no_log(self, docker: Engine, kubelet: Kubelet, agent: AgentProcess, admin: Admin) -> None:
        """What is shown to the kubelet is in neither log nor explanation, also when it is refused."""
        container = in_pod(docker, kubelet)
        shown, kubelet.token = kubelet.token, "another"
        assert "(401)" in failure(admin, container.pid)
        assert shown in kubelet.shown[-1]
        assert shown not in agent.log.read_text()


class TestAttacks:
    def test_joining_a_pods_cgroup(self, engine: Engine, kubelet: Kubelet, admin: Admin) -> None:
        """A process of the machine that is moved into a pod's cgroup gets nothing of the pod, before and after it is known."""
        container = in_pod(engine, kubelet)
        process = os.fork()
        if process == 0:
            try:
                os.execv("/bin/sleep", ["sleep", "60"])
            finally:
                os._exit(1)
        try:
            root = engine.cgroup_root if engine.v2 else Path("/sys/fs/cgroup")
            pattern = f"**{parent(kubelet)}/{container.id}" if engine.v2 else f"*{parent(kubelet)}/{container.id}"
            folders = list(root.glob(pattern.lstrip("/")))
            assert folders
            for folder in folders:
                (folder / "cgroup.procs").write_text(str(process))
            for known in (False, True):
                assert "container's" in failure(admin, process)
                assert set() == found(admin, process)
                if not known:
                    found(admin, container.pid)
        finally:
            os.kill(process, 9)
            os.waitpid(process, 0)
        assert "k8s:pod-name:web" in found(admin, container.pid)


def ids(caller: Caller) -> list[str]:
    return [each["spiffe_id"] for each in caller.ask("x509")["svids"]]


def member(cgroup: str) -> int:
    """A process in a cgroup below this one; 0 if there is none."""
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        if container_of(int(entry), cgroup):
            return int(entry)
    return 0


def container_of(pid: int, cgroup: str = "/kubepods/") -> str:
    """The container in whose cgroup a process is, if that is below this one."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return ""
    return next((line.rpartition("/")[2] for line in lines if cgroup in line), "")
