"""k8s_psat.py: who shows the token of an agent's pod is the machine that the pod is on, as Kubernetes says."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass

import pytest
import structlog
from fakes.kubernetes import AUDIENCES, NODE, POD, REVIEW, FakeKubeApi, changed
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidInput, Refused, SojournError, Unavailable
from sojourn.limits import K8S_PSAT_PAYLOAD_MAX_BYTES
from sojourn.server import k8s_psat
from sojourn.server.k8s_psat import K8sPsat
from sojourn.server.node_attestor import Attested
from sojourn.spiffe.ids import TrustDomain
from sojourn.upstream.node_attestation import K8sPsat as Shown

DOMAIN = TrustDomain("example.org")
TOKEN = "eyJh.secret.sig"


@dataclass
class Rules:
    service_account_allow_list: tuple[str, ...] = ("agents:sojourn",)
    audience: tuple[str, ...] = AUDIENCES
    allowed_node_label_keys: tuple[str, ...] = ()
    allowed_pod_label_keys: tuple[str, ...] = ()


async def never(_challenge: bytes) -> bytes:
    raise AssertionError("nothing is asked of a node that shows a token")


def attested(payload: bytes, api: FakeKubeApi, rules: Rules | None = None) -> Attested:
    attestor = K8sPsat({"prod-1": (rules or Rules(), api)}, DOMAIN)
    return asyncio.run(attestor.attest(payload, never))


def shown(cluster: str = "prod-1", token: str = TOKEN) -> bytes:
    """What a node of ours sends."""
    return Shown(cluster, token).payload


@pytest.fixture
def api() -> FakeKubeApi:
    return FakeKubeApi()


def test_who_it_is(api: FakeKubeApi) -> None:
    """A node is the machine of its pod, with SPIRE's ID and selectors, and attests anew by itself."""
    found = attested(shown(), api)
    assert "spiffe://example.org/spire/agent/k8s_psat/prod-1/node-1" == str(found.spiffe_id)
    assert {
        *("k8s_psat:cluster:prod-1", "k8s_psat:agent_ns:agents", "k8s_psat:agent_sa:sojourn"),
        *("k8s_psat:agent_pod_name:sojourn-x2k9p", "k8s_psat:agent_pod_uid:pod-1", "k8s_psat:agent_node_ip:10.0.0.7"),
        *("k8s_psat:agent_node_name:node1", "k8s_psat:agent_node_uid:node-1"),
    } == {str(each) for each in found.selectors}
    assert found.reattestable
    assert [("review", TOKEN, "spire-server"), ("pod", "agents", "sojourn-x2k9p"), ("node", "node1")] == api.asked


def test_labels(api: FakeKubeApi) -> None:
    """Labels are selectors if the operator names their keys, and no others are."""
    rules = Rules(allowed_node_label_keys=("zone", "none"), allowed_pod_label_keys=("app",))
    labels = {"app": "sojourn", "other": "x"}
    api.documents["pod"] = changed(POD, "metadata.labels", labels)
    values = {each.value for each in attested(shown(), api, rules).selectors if "label" in each.value}
    assert {"agent_node_label:zone:a", "agent_pod_label:app:sojourn"} == values


def test_an_account_that_is_not_allowed(api: FakeKubeApi) -> None:
    """The token of a pod of another service account is refused, and nothing more is asked about it."""
    with pytest.raises(Refused, match='"agents:sojourn" is not an allowed service account'):
        attested(shown(), api, Rules(service_account_allow_list=("agents:sojourn-2", "other:sojourn")))
    assert ["review"] == [what for what, *_ in api.asked]


@pytest.mark.parametrize(
    ("what", "document", "said"),
    [
        ("review", changed(REVIEW, "status.error", "[invalid bearer token]"), "token not authenticated"),
        ("pod", None, "is gone"),
        ("node", None, "is gone"),
        ("pod", changed(POD, "metadata.uid", "pod-2"), "another pod"),
        ("node", changed(NODE, "metadata.uid", "node-2"), "another node"),
        ("pod", changed(POD, "status.hostIP", "x" * 5_000), "what makes no node"),
        ("pod", changed(POD, "status.hostIP", "\0"), "what makes no node"),
    ],
)
def test_what_proves_nothing(api: FakeKubeApi, what: str, document: dict[str, object] | None, said: str) -> None:
    """A token that Kubernetes does not know, or whose pod or node is gone or another one, makes no node."""
    api.documents[what] = document
    with pytest.raises(Refused, match=said) as caught:
        attested(shown(), api)
    assert TOKEN not in caught.value.public + caught.value.detail


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[]", "no JSON object"),
        (b'{"cluster": "prod-1"}', "missing token"),
        (b'{"token": "x"}', "missing cluster"),
        (b'{"cluster": "", "token": "x"}', "missing cluster"),
        (b'{"cluster": {"a": 1}, "token": "x"}', "cluster is no text"),
        (b'{"cluster": "prod-1", "token": ["x"]}', "token is no text"),
        (b'{"cluster": "prod-1", "token": "x", "token": "y"}', "it is not JSON"),
        (shown("prod-2"), 'not configured for cluster "prod-2"'),
        (shown(token="x" * K8S_PSAT_PAYLOAD_MAX_BYTES), "too large"),
    ],
)
def test_what_cannot_be_read(api: FakeKubeApi, payload: bytes, said: str) -> None:
    """What is no such message, or of a cluster that this server does not know, is refused before anybody is asked."""
    with pytest.raises(InvalidInput, match=said):
        attested(payload, api)
    assert [] == api.asked


def test_an_api_that_gives_no_answer(api: FakeKubeApi) -> None:
    """Nobody joins while Kubernetes gives no answer. The log says so once, with where it was asked, and once that it is
    over; the node hears nothing of where.
    """
    attestor = K8sPsat({"prod-1": (Rules(), api)}, DOMAIN)

    async def tried() -> None:
        api.away = "Kubernetes' API gives no answer"
        for _ in range(2):
            with pytest.raises(Unavailable, match="unable to validate token with TokenReview API") as caught:
                await attestor.attest(shown(), never)
            assert "10.0.0.1" not in caught.value.public
        api.away = ""
        await attestor.attest(shown(), never)

    with structlog.testing.capture_logs() as lines:
        asyncio.run(tried())
    assert [("cluster_not_asked", "10.0.0.1:6443"), ("cluster_asked_again", None)] == [
        (each["event"], each.get("detail")) for each in lines
    ]


@pytest.mark.parametrize("what", ["review", "pod", "node"])
def test_an_api_that_hangs(api: FakeKubeApi, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """All that is asked about one token has one deadline, and what is late makes no node."""
    monkeypatch.setattr(k8s_psat, "K8S_PSAT_SECONDS", 0.05)
    answer = api._answer

    async def hanging(asked: str, *words: str) -> dict[str, object]:
        api.hangs = asked == what
        return await answer(asked, *words)

    monkeypatch.setattr(api, "_answer", hanging)
    with pytest.raises(Unavailable, match="in time"):
        attested(shown(), api)
    assert what == api.asked[-1][0]


def test_no_review_api(api: FakeKubeApi) -> None:
    """An address at which there is no TokenReview API is a fault of the server's, and not of the node's token."""
    api.documents["review"] = None
    with pytest.raises(Unavailable, match="no TokenReview API"):
        attested(shown(), api)


def test_it_is_closed(api: FakeKubeApi) -> None:
    """The connections to the APIs end with the server."""
    asyncio.run(K8sPsat({"prod-1": (Rules(), api)}, DOMAIN).close())
    assert api.closed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(
    payload=st.binary(max_size=60) | JSON.map(lambda each: json.dumps({"cluster": "prod-1", "token": each}).encode())
)
def test_whatever_is_shown(payload: bytes) -> None:
    """Whatever is shown, it is read or refused by an error of ours."""
    with suppress(SojournError):
        assert attested(payload, FakeKubeApi())
