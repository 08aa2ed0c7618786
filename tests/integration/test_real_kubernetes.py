"""Pods of a real Kubernetes: kubelet, API server, etcd and containerd. Run by `make test-kubernetes`."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.kubernetes import Cluster, find_kubernetes
from harness.kubernetesfiles import IMAGE, NODE, READ_ONLY_PORT, TOKEN, USELESS_TOKEN, container, container_id
from harness.looking import until
from harness.program import published
from harness.raw import Admin

pytestmark = [pytest.mark.full, pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(180)]
DEBUG = {"ephemeralContainers": [container("debug")]}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(find_kubernetes()) as running:
        yield running


def settings(cluster: Cluster, *lines: str, token: str = TOKEN) -> str:
    """Of an agent that trusts the kubelet's own certificate, and shows a token."""
    file = cluster.folder / f"token-of-{token}"
    file.write_text(token)
    kubelet = cluster.pki / "kubelet.crt"
    lines = (f'cgroup_root = "{cluster.cgroup_root}"', *lines)
    return "\n".join([f'kubelet_ca_path = "{kubelet}"', f'node_name = "{NODE}"', f'token_path = "{file}"', *lines])


@pytest.fixture(scope="module")
def agent(cluster: Cluster) -> Iterator[AgentProcess]:
    with cluster.agent(settings(cluster)) as running:
        yield running
        assert [] == [line for line in running.log_lines() if line["event"] in {"call_failed", "attestor_raised"}]


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> dict[str, Any]:
    """A pod with every kind of container, all of which run but the first."""
    cluster.run_pod(
        "web",
        labels={"app.kubernetes.io/name": "web", "empty": ""},
        initContainers=[container("first", "true"), container("side", restartPolicy="Always")],
    )
    cluster.send("PATCH", "/api/v1/namespaces/default/pods/web/ephemeralcontainers", {"spec": DEBUG})
    return cluster.wait_for("web", lambda pod: made(pod, "ephemeralContainerStatuses"))


def made(pod: dict[str, Any], kind: str) -> bool:
    """Whether the first container of a kind has an id."""
    return "containerID" in pod["status"].get(kind, [{}])[0]


def found(admin: Admin, pid: int) -> set[str]:
    """The selectors of type `k8s`, without their type."""
    explained = admin.explain(pid)
    assert [] == list(explained.failed_attestors)
    return {each.removeprefix("k8s:") for each in explained.selectors if each.startswith("k8s:")}


def failure(agent: AgentProcess, pid: int) -> str:
    """Why the attestor could not tell."""
    with Admin(agent.admin_socket) as admin:
        failures = {each.what: each.reason for each in admin.explain(pid).failed_attestors}
    return failures.get("k8s", "")


class TestSelectors:
    def test_of_each_kind_of_container(self, cluster: Cluster, admin: Admin, web: dict[str, Any]) -> None:
        """A regular, a sidecar and an ephemeral container's processes have what the kubelet and SPIRE call them."""
        image = web["status"]["containerStatuses"][0]["imageID"]
        common = {
            *("ns:default", "sa:web", f"node-name:{NODE}", "pod-name:web", f"pod-uid:{web['metadata']['uid']}"),
            *("pod-label:app.kubernetes.io/name:web", "pod-label:empty:", "pod-image-count:1"),
            *(f"pod-image:{IMAGE}", f"pod-image:{image}", "pod-init-image-count:2"),
            *(f"pod-init-image:{IMAGE}", f"pod-init-image:{image}"),
            *(f"container-image:{IMAGE}", f"container-image:{image}"),
        }
        kinds = {"main": "containerStatuses", "side": "initContainerStatuses", "debug": "ephemeralContainerStatuses"}
        for name, kind in kinds.items():
            pid = cluster.pid_of(container_id(web, name, kind))
            assert {*common, f"container-name:{name}"} == found(admin, pid)

    def test_of_a_static_pod(self, cluster: Cluster, admin: Admin) -> None:
        """A pod of the node's own, which the API server only mirrors, has its own uid and no service account."""
        spec = {"hostNetwork": True, "terminationGracePeriodSeconds": 1, "containers": [container("main")]}
        static = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "st", "namespace": "kube-system"},
            "spec": spec,
        }
        (cluster.static_pods / "static.json").write_text(json.dumps(static))
        mirror = cluster.wait_for(f"st-{NODE}", lambda pod: pod["status"].get("phase") == "Running", "kube-system")
        values = found(admin, cluster.pid_of(container_id(mirror)))
        assert {"ns:kube-system", f"pod-name:st-{NODE}", "container-name:main"} <= values
        assert f"pod-uid:{mirror['metadata']['annotations']['kubernetes.io/config.hash']}" in values
        assert f"pod-uid:{mirror['metadata']['uid']}" not in values
        assert [] == [each for each in values if each.startswith("sa:")]

    def test_of_owners(self, cluster: Cluster, admin: Admin) -> None:
        """Owners are given by kind, name and uid; a kind with a colon, which anyone may write, is withheld."""
        owner = {"apiVersion": "apps/v1", "name": "x", "uid": "1-2"}
        owners = [{**owner, "kind": "ReplicaSet"}, {**owner, "kind": "A:B"}]
        made = cluster.run_pod("owned", owners=owners)
        pid = cluster.pid_of(container_id(made))
        values = {each for each in found(admin, pid) if each.startswith("pod-owner")}
        assert {"pod-owner:ReplicaSet:x", "pod-owner-uid:ReplicaSet:1-2"} == values
        assert {"k8s:pod-owner", "k8s:pod-owner-uid"} == {
            each.what for each in admin.explain(pid).withheld if each.what.startswith("k8s:")
        }

    def test_of_nothing(self, admin: Admin) -> None:
        """A process outside of pods has none, and nothing fails."""
        assert set() == found(admin, os.getpid())

    def test_of_a_pod_of_the_same_name(self, cluster: Cluster, admin: Admin) -> None:
        """A pod that takes another's name later is another pod."""
        uids = []
        for _ in range(2):
            pod = cluster.run_pod("again")
            uids.append(f"pod-uid:{pod['metadata']['uid']}")
            values = found(admin, cluster.pid_of(container_id(pod)))
            assert [uids[-1]] == [each for each in values if each.startswith("pod-uid:")]
            cluster.delete("again")
        assert 2 == len(set(uids))


class TestTime:
    def test_processes_that_have_just_begun(self, cluster: Cluster, admin: Admin) -> None:
        """A container's first process is attested as soon as it is there, before the kubelet lists it."""
        for number in range(8):
            name = f"new-{number}"
            uid = cluster.start_pod(name)
            pid = until(lambda uid=uid: cluster.process_in(uid, "3600"), f"a process of {name}")
            assert f"pod-name:{name}" in found(admin, pid)
            cluster.delete(name)

    def test_a_kubelet_that_restarts(self, cluster: Cluster, agent: AgentProcess, admin: Admin) -> None:
        """While the kubelet is down its pods cannot be told, with that reason; afterwards they can."""
        pid = cluster.pid_of(container_id(cluster.run_pod("before")))
        assert "pod-name:before" in found(admin, pid)
        cluster.stop_kubelet()
        try:
            until(lambda: "kubelet cannot be asked" in failure(agent, pid), "the failure is told")
            assert set() == found(admin, os.getpid())
        finally:
            cluster.start_kubelet()
        until(lambda: failure(agent, pid) == "", "the kubelet is asked again")
        assert "pod-name:before" in found(admin, pid)


class TestWorkloads:
    def test_of_go_spiffe(self, cluster: Cluster, agent: AgentProcess, admin: Admin, go_client: Path) -> None:
        """A go-spiffe client in a pod gets the SVID of its service account, and none of another's."""
        admin.register("/ns/default/sa/web", "k8s:ns:default", "k8s:sa:web", "k8s:container-name:spiffe")
        admin.register("/ns/default/sa/other", "k8s:ns:default", "k8s:sa:other")
        published(go_client, agent.folder, "client")
        folders = {"agent": str(agent.folder), "lib": "/lib", "lib64": "/lib64"}
        mounts = [{"name": name, "mountPath": path} for name, path in folders.items()]
        volumes = [{"name": name, "hostPath": {"path": path}} for name, path in folders.items()]
        environment = [{"name": "SPIFFE_ENDPOINT_SOCKET", "value": f"unix://{agent.socket}"}]
        command = [f"{agent.folder}/client", "watch", "-updates", "1", "-timeout", "30s"]
        spec = container("spiffe", *command, volumeMounts=mounts, env=environment)
        cluster.start_pod("spiffe", containers=[spec], volumes=volumes)
        cluster.wait_for("spiffe", lambda pod: pod["status"].get("phase") in {"Succeeded", "Failed"})
        said = cluster.log_of("spiffe")
        assert '"spiffe://example.org/ns/default/sa/web"' in said, said
        assert "sa/other" not in said


class TestAccess:
    @pytest.fixture
    def pid(self, cluster: Cluster, web: dict[str, Any]) -> int:
        return cluster.pid_of(container_id(web))

    def test_by_client_certificate(self, cluster: Cluster, pid: int) -> None:
        """A client certificate that the kubelet knows is enough."""
        lines = [f'kubelet_ca_path = "{cluster.pki / "kubelet.crt"}"', f'kubelet_name = "{NODE}"']
        lines += [
            f'cgroup_root = "{cluster.cgroup_root}"',
            f'certificate_path = "{cluster.clients.chain}"',
            f'private_key_path = "{cluster.clients.key}"',
        ]
        with cluster.agent("\n".join(lines)) as agent, Admin(agent.admin_socket) as admin:
            assert "pod-name:web" in found(admin, pid)

    def test_by_a_foreign_certificate(self, cluster: Cluster, pid: int) -> None:
        """A client certificate of somebody else's authority is refused by the kubelet, which is told."""
        foreign = cluster.foreign_clients
        lines = [f'kubelet_ca_path = "{cluster.pki / "kubelet.crt"}"', f'kubelet_name = "{NODE}"']
        lines += [
            f'cgroup_root = "{cluster.cgroup_root}"',
            f'certificate_path = "{foreign.chain}"',
            f'private_key_path = "{foreign.key}"',
        ]
        with cluster.agent("\n".join(lines)) as agent:
            assert "refuses this agent (401)" in failure(agent, pid)

    def test_by_read_only_port(self, cluster: Cluster, pid: int) -> None:
        """The read-only port is asked if it is configured."""
        text = f'kubelet_read_only_port = {READ_ONLY_PORT}\ncgroup_root = "{cluster.cgroup_root}"'
        with cluster.agent(text) as agent, Admin(agent.admin_socket) as admin:
            assert "pod-name:web" in found(admin, pid)

    @pytest.mark.parametrize(
        ("token", "reason"),
        [(USELESS_TOKEN, "(403): it takes the right to `get` `nodes/pods`"), ("none", "(401)")],
        ids=["without rights", "unknown"],
    )
    def test_tokens_that_are_not_good(self, cluster: Cluster, pid: int, token: str, reason: str) -> None:
        """A token that the kubelet does not know, or that has no right, is told with what it takes."""
        with cluster.agent(settings(cluster, token=token)) as agent:
            assert reason in failure(agent, pid)

    @pytest.mark.parametrize("wrong", ["authority", "name"])
    def test_a_kubelet_that_does_not_prove_who_it_is(self, cluster: Cluster, pid: int, wrong: str) -> None:
        """A certificate of another authority, or of another name, is not believed, and gets no token."""
        text = settings(cluster)
        if wrong == "authority":
            text = text.replace(str(cluster.pki / "kubelet.crt"), str(cluster.clients.ca))
        else:
            text += '\nkubelet_name = "node2"'
        with cluster.agent(text) as agent:
            assert "the kubelet cannot be asked" in failure(agent, pid)

    def test_a_kubelet_of_another_node(self, cluster: Cluster, pid: int) -> None:
        """A list of another node's pods says nothing about this one's."""
        text = settings(cluster, f'kubelet_name = "{NODE}"').replace(f'node_name = "{NODE}"', 'node_name = "node2"')
        with cluster.agent(text) as agent:
            assert "not of node 'node2'" in failure(agent, pid)

    def test_a_token_that_is_renewed(self, cluster: Cluster, pid: int) -> None:
        """Another token in the file is used for the next request: here one that Kubernetes issued, for a false one."""
        group = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "pods-of-node"}
        who = {"kind": "ServiceAccount", "name": "web", "namespace": "default"}
        cluster.send("POST", group, {"metadata": {"name": "web"}, "roleRef": role, "subjects": [who]})
        path = "/api/v1/namespaces/default/serviceaccounts/web/token"
        issued = cluster.send(
            "POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        )
        text = settings(cluster, 'max_age = "0s"', token="renewed")
        with cluster.agent(text) as agent:
            assert "(401)" in failure(agent, pid)
            renewed = cluster.folder / "new-token"
            renewed.write_text(issued["status"]["token"])
            renewed.rename(cluster.folder / "token-of-renewed")
            until(lambda: failure(agent, pid) == "", "the new token is used")


class TestAttacks:
    def test_a_process_that_joins_a_pods_cgroup(self, cluster: Cluster, agent: AgentProcess, admin: Admin) -> None:
        """A process of the machine that was moved into a pod's cgroups gets nothing of the pod's, 50 times of 50."""
        pod = cluster.run_pod("joined")
        first = cluster.pid_of(container_id(pod))
        uid, name = pod["metadata"]["uid"], container_id(pod)
        wrong = 0
        for number in range(50):
            if number == 25:  # up to here the agent has not seen the container's own processes
                assert "pod-name:joined" in found(admin, first)
            with subprocess.Popen(["sleep", "60"]) as stranger:
                try:
                    for folder in cgroup_folders(cluster, uid, name):
                        (folder / "cgroup.procs").write_text(str(stranger.pid))
                    assert "container's" in failure(agent, stranger.pid)
                    wrong += any(each.startswith("k8s:") for each in admin.explain(stranger.pid).selectors)
                finally:
                    stranger.kill()
        assert 0 == wrong
        assert "pod-name:joined" in found(admin, first)


def cgroup_folders(cluster: Cluster, uid: str, name: str) -> list[Path]:
    folders = list(Path("/sys/fs/cgroup").glob(f"*{cluster.cgroup_root}/kubepods/besteffort/pod{uid}/{name}"))
    assert folders
    return folders
