"""A node that attests by the token of its pod, at a real spire-server that asks a Kubernetes API about it.

The agent's side is as in a pod: a token in a file, which is exchanged as the kubelet does it. The API server is a
stand-in (kubeapistandin.py), which the server's own plugin is pointed at. A real one: test_real_kubernetes_node.py.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import nodes
from harness.agent import AgentProcess
from harness.federating import SpireServer
from harness.kubeapistandin import ACCOUNT, NAMESPACE, NODE_UID, KubeApi
from harness.looking import until
from harness.raw import Wire
from harness.spirecli import binary

pytestmark = pytest.mark.full

DOMAIN = "example.org"
CLUSTER = "prod-1"
NODE_ID = f"spiffe://{DOMAIN}/spire/agent/k8s_psat/{CLUSTER}/{NODE_UID}"
WEB = f"spiffe://{DOMAIN}/web"


class ProjectedToken:
    """A volume as the kubelet projects it: the file is a link into a folder of the day, and both are exchanged as one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._count = folder, 0
        folder.mkdir()
        self.file = folder / "spire-agent"
        self.file.symlink_to("..data/spire-agent")

    def put(self, token: str) -> None:
        self._count += 1
        day = self.folder / f"..{self._count}"
        day.mkdir()
        (day / "spire-agent").write_text(token)
        (self.folder / "..new").symlink_to(day.name)
        os.replace(self.folder / "..new", self.folder / "..data")
        self.folder.chmod(0o1777)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    with KubeApi(tmp_path) as running:
        running.tokens = {"eyJh.one.sig": f"{NAMESPACE}:{ACCOUNT}", "eyJh.two.sig": f"{NAMESPACE}:{ACCOUNT}"}
        running.tokens["eyJh.other.sig"] = f"{NAMESPACE}:other"
        yield running


@pytest.fixture
def server(api: KubeApi, tmp_path: Path) -> Iterator[SpireServer]:
    server = SpireServer(binary("spire-server"), tmp_path / "server", DOMAIN, plugins=api.plugin(CLUSTER))
    with server:
        yield server


@pytest.fixture
def token(tmp_path: Path) -> ProjectedToken:
    projected = ProjectedToken(tmp_path / "tokens")
    projected.put("eyJh.one.sig\n")
    return projected


def config(server: SpireServer, folder: Path, token: ProjectedToken, cluster: str = CLUSTER) -> str:
    bundle = folder / "bundle.pem"
    bundle.write_text(server.run("bundle", "show", "-format", "pem").stdout)
    keys = {
        "kind": "spire",
        "servers": [f"127.0.0.1:{server.node_port}"],
        "bundle": str(bundle),
        "attestor": "k8s_psat",
        "cluster": cluster,
        "token_file": str(token.file),
        "poll": nodes.POLL,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join([f'trust_domain = "{DOMAIN}"', "[upstream]", *lines, ""])


def test_it_is_the_node_of_its_machine(
    server: SpireServer, api: KubeApi, token: ProjectedToken, tmp_path: Path
) -> None:
    """The agent is the node that Kubernetes says its pod runs on, and serves the entries below it. When it attests anew it
    shows the token that is in the file by then, and is the same node; no stream ends over it.
    """
    with AgentProcess(config=config(server, tmp_path, token)) as agent:
        assert NODE_ID == nodes.node_id(agent)
        assert ["eyJh.one.sig"] == api.reviewed
        nodes.sees(agent, nodes.register(server, agent, "/web", f"unix:uid:{os.geteuid()}"), there=True)
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            assert [WEB] == [each.spiffe_id for each in next(stream).svids]
            token.put("eyJh.two.sig")
            server.run("agent", "evict", "-spiffeID", NODE_ID)
            until(lambda: "eyJh.two.sig" in api.reviewed, "it attests by the token of now", 60)
            nodes.sees(agent, nodes.register(server, agent, "/second", f"unix:uid:{os.geteuid()}"), there=True)
            for answer in stream:
                if len(answer.svids) == 2:
                    break
        assert NODE_ID == nodes.node_id(agent)
        upstream = agent.json("status")["upstream"]
        assert ("k8s_psat", True, "") == (upstream["attestor"], upstream["reattestable"], upstream["refused"])
        for each in (agent.log.read_text(), agent.run("audit", "list", "--output", "json").stdout):
            assert "eyJh" not in each


@pytest.mark.parametrize(
    ("shown", "cluster", "said"),
    [
        ("eyJh.unknown.sig", CLUSTER, "token review API response contains an error: [invalid bearer token]"),
        ("eyJh.other.sig", CLUSTER, f'"{NAMESPACE}:other" is not an allowed service account'),
        ("eyJh.one.sig", "prod-2", 'not configured for cluster "prod-2"'),
        ("", CLUSTER, "it is not the token of a service account"),
        ("one two", CLUSTER, "it is not the token of a service account"),
    ],
)
def test_what_makes_no_node(
    server: SpireServer, token: ProjectedToken, tmp_path: Path, shown: str, cluster: str, said: str
) -> None:
    """A token that Kubernetes does not know, of another service account, for a cluster that the server does not know, or
    that is none: joining and a start say so in the server's words.
    """
    token.put(shown)
    agent = AgentProcess(config=config(server, tmp_path, token, cluster))
    done = agent.run("agent", "join", "--config", str(agent.config), "--data-dir", str(agent.data_dir), check=False)
    assert 1 == done.returncode
    told = " ".join(done.stderr.split())
    assert said in told
    assert told.endswith("[refused]")
    if shown.startswith("eyJh"):
        assert "see that the server's k8s_psat has this cluster" in told
    assert not shown or shown not in done.stderr
