"""The tables of the configuration that are a server's: [server] and [node_attestors]."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from sojourn.errors import InvalidSpiffeId
from sojourn.limits import (
    AUDIENCE_MAX_BYTES,
    K8S_ALLOWED,
    K8S_CLUSTERS,
    K8S_NAME_MAX,
    SVID_TTL_MAX_SECONDS,
    SVID_TTL_MIN_SECONDS,
)
from sojourn.settings.tables import Called, Duration, FilePath, Table, between
from sojourn.spiffe.ids import check_path

NODES_ADDRESS: Final = "0.0.0.0:8081"  # where nodes look for a SPIRE server, too
_AT_NODES: Final = "a server attests no workloads, and has no tasks: it is for the agents below it"

# Keys that a server may not have, by table and name, and what to do instead; no name: none of the table.
NOT_OF_A_SERVER: Final = (
    ("", "node_name", "a server is `spiffe://TRUST_DOMAIN/spire/server`"),
    ("", "node_aliases", "entries name their parents"),
    ("", "socket", _AT_NODES),
    ("upstream", "", "a server is a node of nobody; [authority.upstream] says who signs its intermediate"),
    ("", "attestors", _AT_NODES),
    ("registration", "follow", "apply entry files with `sojourn entry apply`"),
    ("tasks", "", _AT_NODES),
    ("", "signals", _AT_NODES),
    ("", "services", _AT_NODES),
    ("", "providers", _AT_NODES),
    ("", "people", _AT_NODES),
    ("approval_notifier", "", _AT_NODES),
    ("limits", "", _AT_NODES),
    ("identity", "jwt_svid_for_providers", _AT_NODES),
    ("identity", "jwt_svid_anew", "nodes keep JWT-SVIDs, and servers keep none"),
    ("identity", "wit_svids", "nodes cannot ask for any yet"),
    ("listen", "tcp", _AT_NODES),
    ("listen", "https", _AT_NODES),
    ("listen", "people", _AT_NODES),
)


def is_unfit(dotted: str) -> bool:
    """Whether a server may not have a key of the configuration."""
    table, _, key = dotted.rpartition(".")
    return any((table, key) == unfit[:2] or (table, "") == unfit[:2] for unfit in NOT_OF_A_SERVER)


class ServerConfig(Table):
    """What a server gives its nodes. That there is such a table makes it a server's configuration."""

    node_svid_ttl: Annotated[
        Duration, between(timedelta(seconds=SVID_TTL_MIN_SECONDS), timedelta(seconds=SVID_TTL_MAX_SECONDS))
    ] = timedelta(days=1)


class X509PopServerConfig(Table):
    """Nodes that prove who they are by a certificate and its key."""

    ca: FilePath  # a PEM file: the authorities that sign such certificates, and nothing else


def _cluster(value: str) -> str:
    try:
        check_path(f"/{value}")
    except InvalidSpiffeId as error:
        raise ValueError(f"names a cluster by what cannot stand in a SPIFFE ID: {error.public}") from error
    if "/" in value or len(value) > K8S_NAME_MAX:
        raise ValueError(f"names a cluster by more than {K8S_NAME_MAX} characters, or with a slash")
    return value


def _account(value: str) -> str:
    namespace, colon, name = value.partition(":")
    if not (namespace and colon and name) or ":" in name:
        raise ValueError("is no service account: it is NAMESPACE:NAME")
    return value


Cluster = Annotated[str, AfterValidator(_cluster)]
Account = Annotated[str, Field(max_length=2 * K8S_NAME_MAX), AfterValidator(_account), Called("NAMESPACE:NAME")]
Audience = Annotated[str, Field(min_length=1, max_length=AUDIENCE_MAX_BYTES)]
LabelKey = Annotated[str, Field(min_length=1, max_length=2 * K8S_NAME_MAX)]


class K8sCluster(Table):
    """Which pods of a cluster are agents, and how its API is reached. The keys are called as SPIRE's are."""

    service_account_allow_list: Annotated[tuple[Account, ...], Field(min_length=1, max_length=K8S_ALLOWED)]
    audience: Annotated[tuple[Audience, ...], Field(max_length=K8S_ALLOWED)] = ("spire-server",)  # (): the API's own
    kube_config_file: FilePath | None = None  # default: as the pod is told in which this server runs
    allowed_node_label_keys: Annotated[tuple[LabelKey, ...], Field(max_length=K8S_ALLOWED)] = ()
    allowed_pod_label_keys: Annotated[tuple[LabelKey, ...], Field(max_length=K8S_ALLOWED)] = ()


class K8sPsatServerConfig(Table):
    """Nodes that prove who they are by the token of a pod."""

    clusters: Annotated[Mapping[Cluster, K8sCluster], Field(min_length=1, max_length=K8S_CLUSTERS)]


class NodeAttestorsConfig(Table):
    """How nodes prove who they are, beside join tokens."""

    x509pop: X509PopServerConfig | None = None
    k8s_psat: K8sPsatServerConfig | None = None
