"""What the table [upstream] of the configuration names: the files of a node, read."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sojourn.authority.key_seal import KeySeal
from sojourn.config.upstream import UpstreamConfig
from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.files.data_folder import NODE, NODE_KEY
from sojourn.spiffe.ids import TrustDomain
from sojourn.spireapi.bound_key import TYPE
from sojourn.upstream import node_files
from sojourn.upstream.bound_key import BoundKeyFiles
from sojourn.upstream.node import NodeSettings
from sojourn.upstream.node_attestation import NodeAttestor
from sojourn.upstream.node_files import read_bundle

PSAT_TOKEN: Final = Path("/var/run/secrets/tokens/spire-agent")  # where manifests of spire-agent have it


def settings_of(
    said: UpstreamConfig, trust_domain: TrustDomain, data_dir: Path, seal: KeySeal | None = None
) -> NodeSettings:
    """`seal`: what keys are sealed with on disk, if they are. Raise InvalidConfig if the bundle cannot be read."""
    assert said.bundle is not None  # the configuration has it
    try:
        bundle = read_bundle(said.bundle, trust_domain)
    except InvalidInput as error:
        raise InvalidConfig([f"upstream.bundle: {error.public}"]) from error
    bound = BoundKeyFiles(data_dir / NODE_KEY, trust_domain, said.token_file, seal)
    return NodeSettings(
        servers=said.servers,
        bootstrap=bundle,
        attestor=bound if said.attestor == TYPE else attestor_of(said),
        folder=data_dir / NODE,
        poll=said.poll,
        renew_at=said.renew_at,
        keep=said.keep,
        seal=seal,
    )


def attestor_of(said: UpstreamConfig) -> Callable[[], NodeAttestor]:
    """Makes what proves which node this is of the files as they are then."""
    if said.attestor == "k8s_psat":
        return node_files.psat_of(str(said.cluster), said.token_file or PSAT_TOKEN)
    return node_files.attestor_of(said)
