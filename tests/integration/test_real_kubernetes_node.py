"""A node that attests by the token of its pod, at a server that asks a real Kubernetes about it: SPIRE's, and ours.

Nothing stands in for anything: the kubelet projects the token and replaces it, the API server reviews it, and the agent
runs in the pod. Run by `make test-kubernetes`.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import nodes
from harness.agent import AgentProcess
from harness.federating import SpireServer
from harness.forks import PROGRAM
from harness.kubernetes import Cluster, find_kubernetes
from harness.kubernetesfiles import NODE, REVIEWER_TOKEN, TOKEN, container, container_id
from harness.kubernetesnode import AUDIENCE, PodAgent, claims_of, run_holder, token_in
from harness.looking import until
from harness.program import published
from harness.raw import Wire
from harness.servers import ServerProcess
from harness.spireagent import SpireAgent
from harness.spirecli import binary

pytestmark = [pytest.mark.full, pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(300)]

DOMAIN = "example.org"
CLUSTER = "prod-1"
ACCOUNT = "sojourn-agent"
WEB = f"spiffe://{DOMAIN}/web"
Server = SpireServer | ServerProcess
# What either server says of a token that Kubernetes does not know.
UNKNOWN = "invalid bearer token|token not authenticated according to TokenReview API"
RESTART_SECONDS = 150.0  # a kubelet looks at its volumes once a minute or so


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(find_kubernetes()) as running:
        running.make_account(ACCOUNT)
        yield running


@pytest.fixture(params=["spire", "ours"])
def server(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Iterator[Server]:
    kind = spires if request.param == "spire" else ours
    with kind(cluster, tmp_path / "server") as running:
        yield running


def spires(cluster: Cluster, folder: Path) -> SpireServer:
    """SPIRE's own."""
    said = f"""
        service_account_allow_list = ["default:{ACCOUNT}"]
        kube_config_file = "{cluster.kubeconfig(REVIEWER_TOKEN)}"
    """
    plugin = f'NodeAttestor "k8s_psat" {{ plugin_data {{ clusters = {{ "{CLUSTER}" = {{ {said} }} }} }} }}'
    return SpireServer(binary("spire-server"), folder, DOMAIN, plugins=plugin, under=cluster.network)


def ours(cluster: Cluster, folder: Path) -> ServerProcess:
    """With the same rights in Kubernetes."""
    table = f"""[node_attestors.k8s_psat.clusters."{CLUSTER}"]
service_account_allow_list = ["default:{ACCOUNT}"]
kube_config_file = "{cluster.kubeconfig(REVIEWER_TOKEN)}"
"""
    return ServerProcess(folder, DOMAIN, more=table, under=cluster.network)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="sojourn-test-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


def config(server: Server, folder: Path, *lines: str, cluster: str = CLUSTER, **more: str) -> str:
    """Of a node in a pod. `lines`: after the table [upstream]; `more`: further keys of it."""
    bundle = folder / "bundle.pem"
    bundle.write_text(server.run("bundle", "show", "-format", "pem").stdout)
    keys = {
        "kind": "spire",
        "servers": [f"127.0.0.1:{server.node_port}"],
        "bundle": str(bundle),
        "attestor": "k8s_psat",
        "cluster": cluster,
        "poll": nodes.POLL,
        **more,
    }
    upstream = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join([f'trust_domain = "{DOMAIN}"', "[upstream]", *upstream, *lines, ""])


def k8s_attestor(cluster: Cluster, folder: Path) -> list[str]:
    """The tables of an agent that knows pods: what it needs of the kubelet is in its own folder."""
    shutil.copy(cluster.pki / "kubelet.crt", folder)
    (folder / "kubelet-token").write_text(TOKEN)
    settings = {
        "kubelet_ca_path": str(folder / "kubelet.crt"),
        "node_name": NODE,
        "token_path": str(folder / "kubelet-token"),
        "cgroup_root": cluster.cgroup_root,
    }
    return ["[attestors.unix]", "[attestors.k8s]", *(f'{key} = "{value}"' for key, value in settings.items())]


def listed(server: Server) -> list[dict[str, Any]]:
    """The nodes that the server has, with their selectors."""
    return json.loads(server.run("agent", "list", "-output", "json").stdout)["agents"]  # type: ignore[no-any-return]


def selectors(server: Server) -> set[str]:
    """Those of the only node."""
    (node,) = listed(server)
    assert "k8s_psat" == node["attestation_type"]
    return {f"{each['type']}:{each['value']}" for each in node["selectors"]}


def placed(cluster: Cluster, pod: dict[str, Any]) -> set[str]:
    """The selectors that SPIRE has for a node whose agent is in this pod."""
    node = cluster.get(f"/api/v1/nodes/{NODE}")
    values = {
        *(f"cluster:{CLUSTER}", "agent_ns:default", f"agent_sa:{ACCOUNT}"),
        *(f"agent_pod_name:{pod['metadata']['name']}", f"agent_pod_uid:{pod['metadata']['uid']}"),
        *(f"agent_node_name:{NODE}", f"agent_node_uid:{node['metadata']['uid']}"),
        f"agent_node_ip:{pod['status'].get('hostIP', '')}",
    }
    return {f"k8s_psat:{each}" for each in values}


def joined(cluster: Cluster, server: Server, folder: Path, token: str, name: str = CLUSTER) -> Any:
    """What comes of joining by a token, from elsewhere in the cluster's network: the finished command."""
    file = folder / "token"
    file.write_text(token)
    file.chmod(0o600)
    agent = AgentProcess(config=config(server, folder, cluster=name, token_file=str(file)), folder=folder)
    command = [PROGRAM, "agent", "join", "--config", str(agent.config), "--data-dir", str(agent.data_dir)]
    return subprocess.run(
        [*cluster.network, *command], capture_output=True, text=True, env=agent.environment, timeout=90
    )


def test_it_is_the_node_of_its_machine(cluster: Cluster, server: Server, folder: Path, go_client: Path) -> None:
    """An agent in a pod is the node of its machine, by the token that the kubelet has put there: the server has it with
    the selectors of that pod. A process of the machine and a pod get their SVIDs of it. When the kubelet puts another
    token into the pod, the agent attests anew by that; no stream ends over it.
    """
    text = config(server, folder, *k8s_attestor(cluster, folder))
    with PodAgent(cluster, "agent", ACCOUNT, text, folder) as agent:
        first = agent.token
        claims = claims_of(first)["kubernetes.io"]
        node = cluster.get(f"/api/v1/nodes/{NODE}")["metadata"]["uid"]
        assert {"name": "agent", "uid": agent.pod["metadata"]["uid"]} == claims["pod"]
        assert {"name": NODE, "uid": node} == claims["node"]
        spiffe_id = nodes.node_id(agent)
        assert f"spiffe://{DOMAIN}/spire/agent/k8s_psat/{CLUSTER}/{node}" == spiffe_id
        assert placed(cluster, agent.pod) == selectors(server)

        nodes.sees(agent, nodes.register(server, agent, "/web", f"unix:uid:{os.geteuid()}"), there=True)
        nodes.sees(agent, nodes.register(server, agent, "/pod", "k8s:sa:web", "k8s:pod-name:spiffe"), there=True)
        nodes.register(server, agent, "/other", "k8s:sa:other")
        assert [f"spiffe://{DOMAIN}/pod", WEB] == in_a_pod(cluster, agent, go_client)
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            assert [WEB] == [each.spiffe_id for each in next(stream).svids]
            cluster.stop_kubelet()
            cluster.start_kubelet()
            until(lambda: agent.token != first, "the kubelet puts another token there", RESTART_SECONDS)
            serial = listed(server)[0]["x509svid_serial_number"]
            server.run("agent", "evict", "-spiffeID", spiffe_id)
            until(lambda: [each["x509svid_serial_number"] for each in listed(server)] not in ([], [serial]), "anew", 60)
            nodes.sees(agent, nodes.register(server, agent, "/second", f"unix:uid:{os.geteuid()}"), there=True)
            assert any(len(answer.svids) == 2 for answer in stream)
        assert spiffe_id == nodes.node_id(agent)
        upstream = agent.json("status")["upstream"]
        assert ("k8s_psat", True, "") == (upstream["attestor"], upstream["reattestable"], upstream["refused"])
        journal = agent.run("audit", "list", "--output", "json").stdout
        for token in (first, agent.token):
            assert token not in agent.said + journal + server.log.read_text()


def in_a_pod(cluster: Cluster, agent: PodAgent, go_client: Path) -> list[str]:
    """The SPIFFE IDs of which a go-spiffe client in a pod of account `web` has SVIDs."""
    published(go_client, agent.folder, "client")
    folders = {"agent": str(agent.folder), "lib": "/lib", "lib64": "/lib64"}
    command = [f"{agent.folder}/client", "watch", "-updates", "1", "-timeout", "30s"]
    main = container(
        "main",
        *command,
        volumeMounts=[{"name": name, "mountPath": path} for name, path in folders.items()],
        env=[{"name": "SPIFFE_ENDPOINT_SOCKET", "value": f"unix://{agent.socket}"}],
    )
    volumes = [{"name": name, "hostPath": {"path": path}} for name, path in folders.items()]
    cluster.start_pod("spiffe", containers=[main], volumes=volumes)
    cluster.wait_for("spiffe", lambda pod: pod["status"].get("phase") in {"Succeeded", "Failed"})
    said = cluster.log_of("spiffe")
    cluster.delete("spiffe")
    assert "spiffe://" in said, f"{said}\n{agent.said[-4000:]}"
    return sorted(set(re.findall(rf"spiffe://{DOMAIN}/\w+", said)))


def test_a_pod_that_is_replaced(cluster: Cluster, server: Server, folder: Path) -> None:
    """A new pod of the agent on the same machine, as an upgrade makes it, is the same node: it serves at once what was
    kept, attests anew by its own token, and the server knows its pod. Who has the token of the pod before is refused.
    """
    text = config(server, folder)
    with PodAgent(cluster, "agent-1", ACCOUNT, text, folder) as before:
        spiffe_id, token = nodes.node_id(before), before.token
        nodes.sees(before, nodes.register(server, before, "/web", f"unix:uid:{os.geteuid()}"), there=True)
        with Wire(before.socket) as wire:
            assert [WEB] == wire.x509_ids()
    with PodAgent(cluster, "agent-2", ACCOUNT, text, folder) as after:
        with Wire(after.socket) as wire:
            assert [WEB] == wire.x509_ids()
        server.run("agent", "evict", "-spiffeID", spiffe_id)
        until(lambda: listed(server), "it attests anew", 60)
        assert placed(cluster, after.pod) == selectors(server)
        assert spiffe_id == nodes.node_id(after)
        thief = folder / "thief"
        thief.mkdir()
        check_refused(joined(cluster, server, thief, token), thief, token)
        assert 1 == len(listed(server))


def check_refused(done: Any, folder: Path, token: str, *, code: str = "refused") -> str:
    """Joining failed with this code, nothing is kept, and no token told. Return what it said."""
    said = " ".join(done.stderr.split())
    assert (1, "") == (done.returncode, done.stdout), said
    assert said.endswith(f"[{code}]"), said
    assert "with a join token" not in said
    assert token not in said
    kept = folder / "data" / "node"
    assert not kept.exists() or [] == [each.name for each in kept.iterdir()]
    return said


@pytest.mark.parametrize(
    ("account", "audience", "name", "words"),
    [
        ("web", AUDIENCE, CLUSTER, '"default:web" is not an allowed service account'),
        (ACCOUNT, "vault", CLUSTER, UNKNOWN),
        (ACCOUNT, AUDIENCE, "prod-2", 'not configured for cluster "prod-2"'),
    ],
    ids=["another account", "another audience", "another cluster"],
)
def test_what_makes_no_node(
    cluster: Cluster, server: Server, folder: Path, account: str, audience: str, name: str, words: str
) -> None:
    """A token that the kubelet has put into a pod makes no node if it is of another service account, for another
    audience or shown for another cluster: joining says so with its code, and nothing is kept.
    """
    pod = run_holder(cluster, "holder", account, audience)
    try:
        token = token_in(cluster, pod)
        assert re.search(words, check_refused(joined(cluster, server, folder, token, name), folder, token))
        assert [] == listed(server)
    finally:
        cluster.delete("holder")


def test_the_token_of_a_pod_that_is_gone(cluster: Cluster, server: Server, folder: Path) -> None:
    """A token that was copied out of a pod is good as long as the pod is there, and no longer."""
    token = token_in(cluster, run_holder(cluster, "holder", ACCOUNT))
    cluster.delete("holder")
    assert re.search(UNKNOWN, check_refused(joined(cluster, server, folder, token), folder, token))
    assert [] == listed(server)


def test_a_spire_agent_at_our_server(cluster: Cluster, tmp_path: Path) -> None:
    """A real spire-agent joins a server of ours by a pod's token, read where the kubelet has mounted it, as it joins SPIRE's."""
    pod = run_holder(cluster, "holder", ACCOUNT)
    try:
        token = Path(f"/proc/{cluster.pid_of(container_id(pod))}/root/var/run/secrets/tokens/spire-agent")
        with ours(cluster, tmp_path / "server") as server:
            shown = (CLUSTER, token)
            with SpireAgent(binary("spire-agent"), server, tmp_path / "agent", k8s_psat=shown, under=cluster.network):
                assert placed(cluster, pod) == selectors(server)
    finally:
        cluster.delete("holder")
