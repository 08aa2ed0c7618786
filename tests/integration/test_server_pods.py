"""A server of ours whose nodes join by the tokens of their pods: a real spire-agent, and nodes of ours.

Kubernetes' API is a stand-in (kubeapistandin.py). A real one, with a real kubelet, is in test_real_kubernetes_node.py.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import nodes
from harness.agent import AgentProcess
from harness.kubeapistandin import ACCOUNT, NAMESPACE, NODE, NODE_UID, POD, KubeApi
from harness.looking import until
from harness.raw import Wire
from harness.servers import ServerProcess
from harness.spireagent import SpireAgent
from harness.spirecli import binary

DOMAIN = "spire.example"
CLUSTER = "prod-1"
NODE_ID = f"spiffe://{DOMAIN}/spire/agent/k8s_psat/{CLUSTER}/{NODE_UID}"
ONE, TWO, OTHER = "eyJh.one.sig", "eyJh.two.sig", "eyJh.other.sig"


def table(api: KubeApi) -> str:
    keys = {"service_account_allow_list": [f"{NAMESPACE}:{ACCOUNT}"], "kube_config_file": str(api.kubeconfig())}
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join([f'[node_attestors.k8s_psat.clusters."{CLUSTER}"]', *lines, ""])


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    with KubeApi(tmp_path) as running:
        running.tokens = dict.fromkeys((ONE, TWO), f"{NAMESPACE}:{ACCOUNT}") | {OTHER: f"{NAMESPACE}:other"}
        yield running


@pytest.fixture
def server(api: KubeApi, tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "server", DOMAIN, more=table(api)) as running:
        yield running


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    put(file, ONE)
    return file


def put(file: Path, token: str) -> None:
    """As a kubelet does: the whole file is another one."""
    new = file.with_suffix(".new")
    new.write_text(token)
    new.chmod(0o600)
    os.replace(new, file)


def node(server: ServerProcess, folder: Path, token: Path, cluster: str = CLUSTER) -> AgentProcess:
    """A node of ours with the token of its pod in a file."""
    folder.mkdir(exist_ok=True)
    bundle = folder / "bundle.json"
    bundle.write_text(server.bundle())
    keys = {
        "kind": "spire",
        "servers": [server.address],
        "bundle": str(bundle),
        "attestor": "k8s_psat",
        "cluster": cluster,
        "token_file": str(token),
        "poll": nodes.POLL,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return AgentProcess(config="\n".join([f'trust_domain = "{DOMAIN}"', "[upstream]", *lines, ""]), folder=folder)


def selectors(server: ServerProcess) -> set[str]:
    return set(server.json("agent", "show", NODE_ID)["selectors"])


@pytest.mark.forked
def test_a_node_of_ours(server: ServerProcess, api: KubeApi, token: Path, tmp_path: Path) -> None:
    """A node in a pod joins by the pod's token, has the entries of its selectors, and attests anew by the token of then
    when it is evicted, as the same node; the stream of its workload goes on. Nobody writes down a token.
    """
    aliased = server.ours(
        "entry", "create", "--parent-id", f"spiffe://{DOMAIN}/spire/server", "--spiffe-id", f"spiffe://{DOMAIN}/pods",
        "--selector", f"k8s_psat:cluster:{CLUSTER}", "--selector", f"k8s_psat:agent_sa:{ACCOUNT}",
    )  # fmt: skip
    assert aliased.returncode == 0
    server.register("/on-kubernetes", parent=f"spiffe://{DOMAIN}/pods")
    with node(server, tmp_path / "node", token) as agent:
        assert NODE_ID == nodes.node_id(agent)
        assert {f"k8s_psat:agent_pod_name:{POD}", f"k8s_psat:agent_node_name:{NODE}"} <= selectors(server)
        assert agent.json("status")["upstream"]["reattestable"]
        until(lambda: agent.run("svid", "x509", check=False).returncode == 0, "it has its identity", 30)
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            assert [f"spiffe://{DOMAIN}/on-kubernetes"] == [each.spiffe_id for each in next(stream).svids]
            put(token, TWO)
            server.ours("agent", "evict", NODE_ID)
            until(lambda: TWO in api.reviewed, "it attests by the token of now", 60)
            server.register("/second", parent=NODE_ID)
            assert any(len(answer.svids) == 2 for answer in stream)
        assert [ONE, TWO] == api.reviewed
        journal = server.ours("audit", "list", "--output", "json").stdout
        for each in (server.log.read_text(), agent.log.read_text(), journal):
            assert "eyJh" not in each


@pytest.mark.full
def test_a_spire_agent(server: ServerProcess, api: KubeApi, token: Path, tmp_path: Path) -> None:
    """A real spire-agent with its plugin k8s_psat joins as at SPIRE's own server, and is the same node when it comes again."""
    for start in ("first", "second"):
        with SpireAgent(binary("spire-agent"), server, tmp_path / start, k8s_psat=(CLUSTER, token)) as agent:
            assert NODE_ID == agent.spiffe_id
    joined = server.events("node_joined")
    assert [None, True] == [each.get("again") for each in joined]
    assert {f"k8s_psat:agent_node_uid:{NODE_UID}", f"k8s_psat:agent_ns:{NAMESPACE}"} <= selectors(server)
    assert [ONE, ONE] == api.reviewed


@pytest.mark.parametrize(
    ("shown", "cluster", "code", "said"),
    [
        ("eyJh.unknown.sig", CLUSTER, "refused", "token not authenticated according to TokenReview API"),
        (OTHER, CLUSTER, "refused", f'"{NAMESPACE}:other" is not an allowed service account'),
        (ONE, "prod-2", "invalid_input", 'not configured for cluster "prod-2"'),
    ],
)
def test_what_makes_no_node(
    server: ServerProcess, token: Path, tmp_path: Path, shown: str, cluster: str, code: str, said: str
) -> None:
    """A token that Kubernetes does not know, one of another service account, or one for a cluster that this server does
    not know makes no node. The one who joins is told why, and the server's journal says so.
    """
    put(token, shown)
    agent = node(server, tmp_path / "node", token, cluster)
    done = agent.run("agent", "join", "--config", str(agent.config), "--data-dir", str(agent.data_dir), check=False)
    assert 1 == done.returncode
    assert said in " ".join(done.stderr.split())
    (record,) = server.events("node_not_joined")
    assert ("k8s_psat", code) == (record["attestor"], record["code"])
    assert shown not in json.dumps(record)
    assert [] == server.json("agent", "list")["nodes"]


@pytest.mark.forked
def test_while_kubernetes_is_away(server: ServerProcess, api: KubeApi, token: Path, tmp_path: Path) -> None:
    """While Kubernetes gives no answer nobody joins, the server's log says so once, and a node that waits joins afterwards."""
    api.raw = (503, b"{}")
    agent = node(server, tmp_path / "node", token)
    done = agent.run("agent", "join", "--config", str(agent.config), "--data-dir", str(agent.data_dir), check=False)
    assert 1 == done.returncode
    assert "Kubernetes' API gives no answer" in " ".join(done.stderr.split())
    assert "503" not in done.stderr
    (line,) = [each for each in server.log_lines() if each["event"] == "cluster_not_asked"]
    assert (CLUSTER, True) == (line["cluster"], "HTTP 503" in line["detail"])
    with agent:
        api.raw = None
        until(lambda: NODE_ID == nodes.node_id(agent), "it joins", 60)


def test_a_cluster_that_cannot_be_asked(api: KubeApi, tmp_path: Path) -> None:
    """A server whose kubeconfig cannot be used does not start, and says which and why."""
    text = table(api)
    file = api.kubeconfig()
    file.write_text(file.read_text().replace('"token"', '"username"'))
    with pytest.raises(RuntimeError, match=f"clusters.{CLUSTER}: .*username"):
        ServerProcess(tmp_path / "server", DOMAIN, more=text).start()
