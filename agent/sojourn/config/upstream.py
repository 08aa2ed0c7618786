"""The table [upstream] of the configuration: the server whose node this agent is."""

from datetime import timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sojourn.limits import UPSTREAM_PREFETCH, UPSTREAM_PREFETCH_MAX, UPSTREAM_SERVERS
from sojourn.settings.host_port import HostPort
from sojourn.settings.tables import Duration, FilePath, Table, between

_CLUSTER_MAX: Final = 253  # characters: it is a part of the node's SPIFFE ID


def _cluster(value: str) -> str:
    if not value or len(value) > _CLUSTER_MAX or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"is no name of a cluster: it has up to {_CLUSTER_MAX} characters, and no space")
    return value


# The keys that each attestor needs, and those that it may have.
_KEYS_OF: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "join_token": (("token_file",), ()),
    "x509pop": (("certificate", "key"), ()),
    "k8s_psat": (("cluster",), ("token_file",)),
    "bound_key": ((), ("token_file",)),
}


# Keys that a node may not have, by table and name, and what to do instead; no name: none of the table.
NOT_OF_A_NODE: Final = (
    ("", "node_aliases", "the server says whose entries it gives, by node aliases: `spire-server entry create -node`"),
    (
        "authority",
        "upstream",
        (
            'the server signs its SVIDs itself. For an authority of its own below the server, kind = "spire" goes into'
            " [authority.upstream], and the table [upstream] is left out"
        ),
    ),
    ("authority", "", "it has no authority of its own: the keys are the server's"),
    ("keys", "module", "it has no root, whose key could be in a token: manager is file or sealed"),
    ("identity", "x509_svid_ttl", "the server says how long SVIDs live: default_x509_svid_ttl, or an entry's"),
    ("identity", "jwt_svid_ttl", "the server says how long SVIDs live: default_jwt_svid_ttl, or an entry's"),
    ("identity", "jwt_svid_issuer", "the server says who issues JWT-SVIDs: jwt_issuer"),
    ("identity", "wit_svids", "the server signs none"),
    ("registration", "follow", "its entries are the server's: register them there"),
    ("federation", "", "the server gives the bundles of other trust domains: follow them there"),
    ("listen", "https", "clients on other machines have entries of which it knows nothing; validators use listen.tcp"),
)


class UpstreamConfig(Table):
    """Off unless there is a `kind`. With one this agent is a node of that server, and has no authority of its own."""

    kind: Literal["spire"] | None = None
    servers: Annotated[tuple[HostPort, ...], Field(max_length=UPSTREAM_SERVERS)] = ()
    bundle: FilePath | None = None  # PEM, or a SPIFFE bundle document: what the first connection is verified by
    attestor: Literal["join_token", "x509pop", "k8s_psat", "bound_key"] | None = None
    token_file: FilePath | None = None  # of join_token, k8s_psat, bound_key: a file with the token, and nothing else
    cluster: Annotated[str, AfterValidator(_cluster)] | None = None  # of k8s_psat: as the server calls it
    certificate: FilePath | None = None  # of x509pop: a PEM file, leaf first
    key: FilePath | None = None  # the private key of it, a PEM file
    poll: Annotated[Duration, between(timedelta(seconds=1), timedelta(hours=1))] = timedelta(seconds=5)
    renew_at: Annotated[float, Field(ge=0.2, le=0.8)] = 0.5  # share of an SVID's life after which it is renewed
    keep: Literal["svids", "entries"] = "svids"  # over restarts, sealed in data_dir
    prefetch: Annotated[int, Field(ge=0, le=UPSTREAM_PREFETCH_MAX, strict=True)] = UPSTREAM_PREFETCH

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind is None:
            if self.model_fields_set:
                raise ValueError('has no kind: a node of a SPIRE server has kind = "spire"')
            return self
        for key, missing in (
            ("servers", not self.servers),
            ("bundle", self.bundle is None),
            ("attestor", self.attestor is None),
        ):
            if missing:
                raise ValueError(f"has no {key}: a node needs kind, servers, bundle and attestor")
        needed, allowed = _KEYS_OF[str(self.attestor)]
        for key in ("token_file", "certificate", "key", "cluster"):
            there = getattr(self, key) is not None
            if there and key not in needed + allowed:
                raise ValueError(f"the attestor {self.attestor} has no use for {key}")
            if not there and key in needed:
                raise ValueError(f"the attestor {self.attestor} needs {key}")
        return self
