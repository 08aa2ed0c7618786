"""The files by which a node joins a SPIRE server, read: the bundle that the server is verified by, and what proves
which node this is.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509

from sojourn.errors import InvalidInput, told_as
from sojourn.files import trusted
from sojourn.files.token_file import token_in
from sojourn.limits import UPSTREAM_FILE_MAX_BYTES
from sojourn.spiffe import bundle as documents
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain
from sojourn.upstream.node_attestation import JoinToken, K8sPsat, NodeAttestor, X509PopFiles

_JWT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class AttestorTable(Protocol):
    """What a table of the configuration says of that: it is whole."""

    @property
    def attestor(self) -> str | None: ...
    @property
    def token_file(self) -> Path | None: ...
    @property
    def certificate(self) -> Path | None: ...
    @property
    def key(self) -> Path | None: ...


def read_bundle(file: Path, trust_domain: TrustDomain) -> Bundle:
    """A bundle in a file: certificates in PEM, or a SPIFFE bundle document. Raise InvalidInput."""
    text = _read(file)
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"{file}: it is not JSON: {error}") from error
        with told_as(InvalidInput, str(file)):
            bundle = documents.parse(trust_domain, document)
    else:
        try:
            bundle = Bundle(trust_domain, tuple(x509.load_pem_x509_certificates(text.encode())))
        except ValueError as error:
            raise InvalidInput(f"{file}: it has neither certificates in PEM nor a SPIFFE bundle document") from error
    if not bundle.x509_authorities:
        raise InvalidInput(f"{file}: it has no X.509 authority")
    return bundle


def attestor_of(said: AttestorTable) -> Callable[[], NodeAttestor]:
    """Makes what proves which node this is of the files as they are then."""
    if said.attestor == "join_token":
        assert said.token_file is not None  # the configuration has it
        token = said.token_file
        return lambda: _join_token(token)
    assert said.certificate is not None and said.key is not None  # noqa: PT018  # the configuration has them
    return X509PopFiles(said.certificate, said.key)


def psat_of(cluster: str, file: Path) -> Callable[[], NodeAttestor]:
    """Makes what proves that this is a pod of that cluster, of the token that the kubelet keeps in a file."""
    return lambda: K8sPsat(cluster, _projected_token(file))


def _projected_token(file: Path) -> str:
    """A token that the kubelet renews in its file, a JWT. Raise InvalidInput."""
    token = _read(file).strip()
    if _JWT.fullmatch(token) is None:
        raise InvalidInput(f"{file}: it is not the token of a service account, which a projected volume has")
    return token


def _join_token(file: Path) -> JoinToken:
    with told_as(InvalidInput, str(file)):
        return JoinToken(token_in(file))


def _read(file: Path) -> str:
    with told_as(InvalidInput, str(file)):
        return trusted.read(file, UPSTREAM_FILE_MAX_BYTES)
