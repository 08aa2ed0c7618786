"""[node_attestors.k8s_psat.clusters.NAME]: which pods are agents."""

from pathlib import Path

import pytest
from sojourn.config.load import load
from sojourn.config.server import K8sCluster
from sojourn.errors import InvalidConfig

TABLE = "node_attestors.k8s_psat.clusters"


def read(folder: Path, text: str, *, server: bool = True) -> dict[str, K8sCluster]:
    file = folder / "server.toml"
    file.write_text(f"{'[server]' if server else ''}\n{text}")
    attestor = load(file, {}, {}).config.node_attestors.k8s_psat
    assert attestor is not None
    return dict(attestor.clusters)


def test_a_cluster(tmp_path: Path) -> None:
    """A cluster needs its service accounts alone; a file that it names is found from the configuration's folder."""
    found = read(
        tmp_path,
        f'[{TABLE}.prod-1]\nservice_account_allow_list = ["a:b"]\n'
        f'[{TABLE}."eu.west"]\nservice_account_allow_list = ["a:b", "c:d"]\nkube_config_file = "eu.kubeconfig"\naudience = []\n',
    )
    assert {"prod-1", "eu.west"} == set(found)
    assert (("spire-server",), None) == (found["prod-1"].audience, found["prod-1"].kube_config_file)
    assert ((), tmp_path / "eu.kubeconfig") == (found["eu.west"].audience, found["eu.west"].kube_config_file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"[{TABLE}.prod-1]\n", "service_account_allow_list"),
        (f"[{TABLE}.prod-1]\nservice_account_allow_list = []\n", "service_account_allow_list"),
        (f'[{TABLE}.prod-1]\nservice_account_allow_list = ["agent"]\n', "NAMESPACE:NAME"),
        (f'[{TABLE}.prod-1]\nservice_account_allow_list = ["a:b:c"]\n', "NAMESPACE:NAME"),
        (f'[{TABLE}.prod-1]\nservice_account_allow_list = [":b"]\n', "NAMESPACE:NAME"),
        (f'[{TABLE}.prod-1]\nservice_account_allow_list = ["a:b"]\nkube_config = "x"\n', "kube_config"),
        (f'[{TABLE}.prod-1]\nservice_account_allow_list = ["a:b"]\naudience = [""]\n', "audience"),
        (f'[{TABLE}.prod-1]\nservice_account_allow_list = ["a:b"]\nkube_config_file = ""\n', "kube_config_file"),
        (f'[{TABLE}."a/b"]\nservice_account_allow_list = ["a:b"]\n', "names a cluster"),
        (f'[{TABLE}."a b"]\nservice_account_allow_list = ["a:b"]\n', "cannot stand in a SPIFFE ID"),
        (f'[{TABLE}.".."]\nservice_account_allow_list = ["a:b"]\n', "cannot stand in a SPIFFE ID"),
        (f"[{TABLE}]\n", "clusters"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """A cluster without service accounts, an account that is none, and a name that no ID could have are refused."""
    with pytest.raises(InvalidConfig, match=said):
        read(tmp_path, text)


def test_it_is_a_servers(tmp_path: Path) -> None:
    """An agent attests no nodes."""
    with pytest.raises(InvalidConfig, match="node_attestors is for a server"):
        read(tmp_path, f'[{TABLE}.prod-1]\nservice_account_allow_list = ["a:b"]\n', server=False)
