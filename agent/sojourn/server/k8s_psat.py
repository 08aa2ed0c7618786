"""The attestor `k8s_psat`: a node is the machine of a Kubernetes cluster on which the pod runs whose token it shows.

Kubernetes itself says what a token is good for (TokenReview), and on which node the pod is. Messages, IDs and selectors
are SPIRE's. Nothing of the token is believed before that, and nothing is kept of it.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Protocol

import structlog

from sojourn.attestation.selectors import Selector
from sojourn.errors import InvalidInput, NotFound, Refused, Unavailable, quoted
from sojourn.jose import strict_json
from sojourn.limits import K8S_PSAT_PAYLOAD_MAX_BYTES, K8S_PSAT_SECONDS
from sojourn.server.node_attestor import Attested, Challenge, node_id
from sojourn.server.token_reviews import KubeNode, Pod, Reviewed, read_node, read_pod, read_review
from sojourn.spiffe.ids import TrustDomain

log = structlog.get_logger()
_TYPE: Final = "k8s_psat"


class Rules(Protocol):
    """Whose tokens of a cluster are taken: `NAMESPACE:NAME` of service accounts, for one of these audiences (the API's
    own if there are none), and by which labels nodes are told apart.
    """

    @property
    def service_account_allow_list(self) -> Collection[str]: ...
    @property
    def audience(self) -> tuple[str, ...]: ...
    @property
    def allowed_node_label_keys(self) -> Collection[str]: ...
    @property
    def allowed_pod_label_keys(self) -> Collection[str]: ...


class Api(Protocol):
    """Kubernetes' API of a cluster. What it answers may be anything. Each raises Unavailable, the gets NotFound too."""

    async def review(self, token: str, audiences: tuple[str, ...], /) -> dict[str, Any]: ...
    async def pod(self, namespace: str, name: str, /) -> dict[str, Any]: ...
    async def node(self, name: str, /) -> dict[str, Any]: ...
    async def close(self) -> None: ...


class K8sPsat:
    """Nodes of these clusters, by the names that agents call them by."""

    type = _TYPE

    def __init__(self, clusters: Mapping[str, tuple[Rules, Api]], trust_domain: TrustDomain) -> None:
        self._clusters = dict(clusters)
        self._trust_domain = trust_domain
        self._silent: set[str] = set()  # clusters whose API has given no answer, as the log says already

    async def attest(self, payload: bytes, challenge: Challenge) -> Attested:
        """Raise InvalidInput for what cannot be read, Refused for what proves nothing, Unavailable if Kubernetes gives
        no answer within K8S_PSAT_SECONDS.
        """
        del challenge  # who has the token has proved all that there is to prove
        name, token = _read(payload)
        found = self._clusters.get(name)
        if found is None:
            raise InvalidInput(f"not configured for cluster {quoted(name)}")
        rules, api = found
        try:
            async with asyncio.timeout(K8S_PSAT_SECONDS):
                reviewed, pod, node = await _ask(rules, api, token)
        except TimeoutError as error:
            raise self._unanswered(name, Unavailable("Kubernetes' API gives no answer in time")) from error
        except Unavailable as error:
            raise self._unanswered(name, error) from error
        except Refused:
            self._answered(name)
            raise
        self._answered(name)
        try:
            spiffe_id = node_id(self._trust_domain, self.type, name, node.uid)
            selectors = frozenset(
                Selector.from_parts(self.type, each) for each in _selectors(name, rules, reviewed, pod, node)
            )
        except InvalidInput as error:  # of what Kubernetes says
            raise Refused(f"Kubernetes' API tells what makes no node: {error.public}") from error
        return Attested(spiffe_id, selectors, reattestable=True)

    async def close(self) -> None:
        """Let go of the connections to the APIs."""
        for _, api in self._clusters.values():
            await api.close()

    def _unanswered(self, cluster: str, error: Unavailable) -> Unavailable:
        """What the node is told: nothing of where the API is. The log says it once, until the API answers again."""
        if cluster not in self._silent:
            self._silent.add(cluster)
            log.warning("cluster_not_asked", cluster=cluster, reason=error.public, detail=error.detail)
        return Unavailable(f"unable to validate token with TokenReview API: {error.public}", detail=error.detail)

    def _answered(self, cluster: str) -> None:
        if cluster in self._silent:
            self._silent.discard(cluster)
            log.info("cluster_asked_again", cluster=cluster)


async def _ask(rules: Rules, api: Api, token: str) -> tuple[Reviewed, Pod, KubeNode]:
    """Whose token it is, and where that pod runs. Raise Refused, Unavailable."""
    try:
        reviewed = read_review(await api.review(token, rules.audience), rules.audience)
    except NotFound as error:
        raise Unavailable("there is no TokenReview API at this address") from error
    account = f"{reviewed.namespace}:{reviewed.account}"
    if account not in rules.service_account_allow_list:
        raise Refused(f"{quoted(account)} is not an allowed service account")
    try:
        pod = read_pod(await api.pod(reviewed.namespace, reviewed.pod_name), reviewed)
        node = read_node(await api.node(pod.node_name), pod.node_name, reviewed)
    except NotFound as error:
        raise Refused("fail to get pod from k8s API server: the pod of this token, or its node, is gone") from error
    return reviewed, pod, node


def _selectors(name: str, rules: Rules, reviewed: Reviewed, pod: Pod, node: KubeNode) -> Iterator[str]:
    yield f"cluster:{name}"
    yield f"agent_ns:{reviewed.namespace}"
    yield f"agent_sa:{reviewed.account}"
    yield f"agent_pod_name:{reviewed.pod_name}"
    yield f"agent_pod_uid:{reviewed.pod_uid}"
    yield f"agent_node_ip:{pod.host_ip}"
    yield f"agent_node_name:{pod.node_name}"
    yield f"agent_node_uid:{node.uid}"
    for kind, labels, allowed in (
        ("agent_node_label", node.labels, rules.allowed_node_label_keys),
        ("agent_pod_label", pod.labels, rules.allowed_pod_label_keys),
    ):
        for key in sorted(labels.keys() & set(allowed)):
            yield f"{kind}:{key}:{labels[key]}"


def _read(payload: bytes) -> tuple[str, str]:
    """The cluster's name and the token that a node shows. Raise InvalidInput."""
    what = "failed to unmarshal data payload"
    if len(payload) > K8S_PSAT_PAYLOAD_MAX_BYTES:
        raise InvalidInput(f"{what}: it is too large")
    try:
        found = strict_json.loads(payload.decode())
    except ValueError as error:
        raise InvalidInput(f"{what}: it is not JSON") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{what}: it is no JSON object")
    values = []
    for key in ("cluster", "token"):
        value = found.get(key)
        if not value:
            raise InvalidInput(f"missing {key} in attestation data")
        if not isinstance(value, str):
            raise InvalidInput(f"{what}: {key} is no text")
        values.append(value)
    return values[0], values[1]
