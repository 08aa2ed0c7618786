"""settings/upstream.py: what the table says of an upstream authority, and what it cannot."""

from datetime import timedelta

import pytest
from pydantic import ValidationError
from sojourn.settings.upstream import UpstreamAuthorityConfig

DISK = {"kind": "disk", "certificate": "/c", "key": "/k", "roots": "/r"}
BAO = {"kind": "openbao", "address": "https://bao.example.org:8200", "auth_role": "sojourn"}

SPIRE = {"kind": "spire", "servers": ["spire.example.org:8081"], "socket": "/run/spire/agent.sock"}
NODE = {
    "kind": "spire",
    "servers": ["[::1]:8081"],
    "attestor": "x509pop",
    "bundle": "/b",
    "certificate": "/c",
    "key": "/k",
}


def faults(table):
    with pytest.raises(ValidationError) as caught:
        UpstreamAuthorityConfig.model_validate(table)
    return str(caught.value)


@pytest.mark.parametrize("table", [DISK, BAO, SPIRE, NODE, {**BAO, "mount": "team/pki", "namespace": "a/b"}])
def test_good(table):
    """Each kind with what it needs, and the lead and the look that are so where none are set."""
    made = UpstreamAuthorityConfig.model_validate(table)
    assert (timedelta(minutes=10), timedelta(seconds=30)) == (made.lead, made.look_every)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"kind": "floppy"}, "'disk', 'openbao' or 'spire'"),
        ({**DISK, "key": ""}, "is empty"),
        ({key: DISK[key] for key in ("kind", "certificate", "key")}, "needs roots"),
        ({**DISK, "address": "https://a"}, "address is not of an upstream authority of kind disk"),
        ({**DISK, "timeout": "5s"}, "timeout is not of an upstream authority of kind disk"),
        ({"kind": "openbao", "auth_role": "a"}, "needs address"),
        ({**BAO, "key": "/k"}, "key is not of an upstream authority of kind openbao"),
        ({**BAO, "token_file": "/t"}, "needs auth_role, or token_file, and not both"),
        ({"kind": "openbao", "address": "https://a"}, "needs auth_role, or token_file, and not both"),
        ({**BAO, "address": "https://bao.example.org/v1"}, "has a path or a query"),
        ({**BAO, "address": "ftp://bao.example.org"}, "address"),
        ({**BAO, "mount": "pki/"}, "has a slash at an end"),
        ({**BAO, "mount": "../sys"}, "mount"),
        ({**BAO, "issuer": "a/b"}, "issuer"),
        ({**BAO, "auth_role": "a b"}, "auth_role"),
        ({**BAO, "lead": "-1s"}, "lead"),
        ({**BAO, "look_every": "10ms"}, "the least is 1s"),
        ({**BAO, "more": 1}, "more"),
        ({**SPIRE, "servers": []}, "needs servers"),
        ({**SPIRE, "servers": ["spire.example.org"]}, "is not HOST:PORT"),
        ({**SPIRE, "address": "https://a"}, "address is not of an upstream authority of kind spire"),
        ({**SPIRE, "attestor": "x509pop"}, "needs socket, of a spire-agent, or attestor"),
        ({"kind": "spire", "servers": ["a:1"]}, "needs socket, of a spire-agent, or attestor"),
        ({**SPIRE, "bundle": "/b"}, "bundle is of a node, and by socket a spire-agent is that"),
        ({**SPIRE, "spiffe_id": "https://a"}, "spiffe_id"),
        ({**SPIRE, "socket": ""}, "is empty"),
        ({key: NODE[key] for key in NODE if key != "bundle"}, "the attestor x509pop needs bundle"),
        ({key: NODE[key] for key in NODE if key != "key"}, "the attestor x509pop needs key"),
        ({**NODE, "token_file": "/t"}, "the attestor x509pop has no use for token_file"),
        ({**NODE, "attestor": "join_token"}, "the attestor join_token needs token_file"),
        ({**NODE, "attestor": "k8s_psat"}, "'join_token' or 'x509pop'"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_refused(table, told):
    """What is missing, of the other kind, or makes no sense is refused with the key."""
    assert told in faults(table)
