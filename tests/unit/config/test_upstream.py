"""upstream.py: a node's configuration is whole, and has nothing that is its server's to say."""

from pathlib import Path

import pytest
from sojourn.config.load import load
from sojourn.config.upstream import NOT_OF_A_NODE, UpstreamConfig
from sojourn.errors import InvalidConfig

NODE = """[upstream]
kind = "spire"
servers = ["spire.example.org:8081", "[::1]:8081"]
bundle = "bundle.pem"
"""
BY_TOKEN = 'attestor = "join_token"\ntoken_file = "token"\n'


def loaded(folder: Path, text: str) -> UpstreamConfig:
    file = folder / "agent.toml"
    file.write_text(text)
    return load(file, {}, {}).config.upstream


def fault(folder: Path, text: str) -> str:
    with pytest.raises(InvalidConfig) as refused:
        loaded(folder, text)
    return "; ".join(refused.value.faults)


def test_none_is_off(tmp_path: Path) -> None:
    """Without the table an agent is its own authority."""
    assert loaded(tmp_path, "").kind is None


def test_a_node_by_a_token(tmp_path: Path) -> None:
    """A node needs its server, a bundle and how to join; its files are found beside the configuration."""
    made = loaded(tmp_path, NODE + BY_TOKEN)
    assert (tmp_path / "token", tmp_path / "bundle.pem") == (made.token_file, made.bundle)
    assert (500, 0.5, "svids") == (made.prefetch, made.renew_at, made.keep)


def test_a_node_by_its_pod(tmp_path: Path) -> None:
    """A node in a pod needs its cluster's name; where its token is has a default, or is found as other files are."""
    made = loaded(tmp_path, NODE + 'attestor = "k8s_psat"\ncluster = "prod-1"\n')
    assert ("prod-1", None) == (made.cluster, made.token_file)
    made = loaded(tmp_path, NODE + 'attestor = "k8s_psat"\ncluster = "prod-1"\ntoken_file = "token"\n')
    assert tmp_path / "token" == made.token_file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[upstream]\nservers = ["a:1"]\n', 'has no kind: a node of a SPIRE server has kind = "spire"'),
        ('[upstream]\nkind = "spire"\n', "has no servers"),
        ('[upstream]\nkind = "spire"\nservers = ["a:1"]\n', "has no bundle"),
        (NODE, "has no attestor"),
        (NODE + 'attestor = "join_token"\n', "the attestor join_token needs token_file"),
        (NODE + BY_TOKEN + 'key = "k"\n', "the attestor join_token has no use for key"),
        (NODE + 'attestor = "x509pop"\ncertificate = "c"\n', "the attestor x509pop needs key"),
        (NODE + 'attestor = "k8s_psat"\n', "the attestor k8s_psat needs cluster"),
        (NODE + 'attestor = "k8s_psat"\ncluster = ""\n', "is no name of a cluster"),
        (NODE + 'attestor = "k8s_psat"\ncluster = "a b"\n', "is no name of a cluster"),
        (NODE + f'attestor = "k8s_psat"\ncluster = "{"a" * 254}"\n', "up to 253 characters"),
        (NODE + 'attestor = "k8s_psat"\ncluster = "a"\nkey = "k"\n', "the attestor k8s_psat has no use for key"),
        (NODE + BY_TOKEN + 'cluster = "a"\n', "the attestor join_token has no use for cluster"),
        (NODE.replace(":8081", "") + BY_TOKEN, "is not HOST:PORT"),
        (NODE.replace("8081", "99999") + BY_TOKEN, "is not HOST:PORT"),
        (NODE + BY_TOKEN + "renew_at = 0.9\n", "upstream.renew_at"),
        (NODE + BY_TOKEN + "prefetch = -1\n", "upstream.prefetch"),
        (NODE + BY_TOKEN + 'poll = "1ms"\n', "the least is 1s"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    """Whatever is missing or odd in the table is named."""
    assert said in fault(tmp_path, text)


SAID = {
    "node_aliases": 'node_aliases = ["spiffe://example.org/a"]\n',
    "authority.upstream": '[authority.upstream]\nkind = "disk"\ncertificate = "c"\nkey = "k"\nroots = "r"\n',
    "authority.": '[authority]\nroot_ttl = "10d"\n',
    "keys.module": '[keys]\nmanager = "pkcs11"\nmodule = "/m"\ntoken = "t"\npin_file = "p"\n',
    "identity.x509_svid_ttl": '[identity]\nx509_svid_ttl = "1h"\n',
    "identity.jwt_svid_ttl": '[identity]\njwt_svid_ttl = "5m"\n',
    "identity.jwt_svid_issuer": "[identity]\njwt_svid_issuer = true\n",
    "identity.wit_svids": "[identity]\nwit_svids = true\n",
    "registration.follow": '[registration]\nfollow = "entries"\n',
    "federation.": "[federation]\npublic_only = true\n",
    "listen.https": '[listen]\nhttps = "127.0.0.1:0"\n',
}


@pytest.mark.parametrize("key", SAID)
def test_what_is_the_servers_is_refused(tmp_path: Path, key: str) -> None:
    """A key that makes no sense on a node is named, with what to do instead."""
    told = fault(tmp_path, SAID[key] + NODE + BY_TOKEN)
    assert f"{key.removesuffix('.')} is not for a node of a SPIRE server: " in told


def test_each_of_them_is_tried() -> None:
    """No key is refused of which this does not know."""
    assert {f"{table}.{key}" if table else key for table, key, _ in NOT_OF_A_NODE} == set(SAID)


POLLED = '[[signals]]\nissuer = "https://idp.example.org"\npoll = "https://idp.example.org/poll"\n'


def test_what_takes_the_agents_own_name_is_refused(tmp_path: Path) -> None:
    """What would be asked for by a JWT-SVID of the agent's own, which no server signs, is refused."""
    assert "signals.0 takes a JWT-SVID of the agent's own ID" in fault(tmp_path, POLLED + NODE + BY_TOKEN)
