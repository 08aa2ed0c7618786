"""How an agent proves to a SPIRE server which node it is, and what it gets for that: its own X.509-SVID.

`join_token`: a token that the server's operator made, once. `x509pop`: a certificate of an authority that the server
trusts, and its key. `k8s_psat`: a token of the agent's service account, which a kubelet projects into its pod. For
`bound_key` see bound_key.py.
"""

import asyncio
import json
import os
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.authority import key_files
from sojourn.errors import CannotStart, InvalidInput, InvalidSvid, NodeRefused, Refused, told_as
from sojourn.files import trusted
from sojourn.limits import PEM_MAX_BYTES, UPSTREAM_CHALLENGES, UPSTREAM_CLOCK_BEHIND_SECONDS
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import AGENT_PATH, SpiffeId
from sojourn.spiffe.x509svid import X509Svid, verify_path
from sojourn.upstream.connection import BANNED, ServerConnection, ServerFault

ATTEST: Final = "/spire.api.server.agent.v1.Agent/AttestAgent"
RENEW: Final = "/spire.api.server.agent.v1.Agent/RenewAgent"
_SAID_BANNED: Final = "agent is banned"  # how a server says so to who attests, without the detail that nodes get
# What a SPIRE server says as a fault of its own where Kubernetes has answered that a token is not good, or that its pod
# or node is gone.
_NO_OF_KUBERNETES: Final = re.compile(
    r"token review API response contains an error|token review API did not validate audience"
    r"|unable to query (?:pods|nodes) API: .* not found"
)
_NONCE_BYTES: Final = 32
_SUBJECT: Final = x509.Name(
    [x509.NameAttribute(NameOID.COUNTRY_NAME, "US"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE")]
)


class NodeAttestor(Protocol):
    """One way to prove it. `type` is the server's name for it; `payload` what it is told first."""

    @property
    def type(self) -> str: ...
    @property
    def payload(self) -> bytes: ...

    def answer(self, challenge: bytes, /) -> bytes:
        """Answer a challenge. Raise Refused if there should be none, InvalidInput if it cannot be read."""


@runtime_checkable
class Remembering(Protocol):
    """An attestor that is another one once the server has taken this agent for its node by it."""

    def taken_as(self, spiffe_id: SpiffeId, /) -> None:
        """Hear that it has. For a thread: it writes, and says itself what cannot be written."""


@dataclass(frozen=True, repr=False)
class JoinToken:
    """A token of `spire-server token generate`. It is used up by one try, whatever becomes of that."""

    token: str
    type: str = "join_token"  # the name of the attestor

    @property
    def payload(self) -> bytes:
        return self.token.encode()

    def answer(self, _challenge: bytes) -> bytes:
        raise Refused("the SPIRE server asks more of a join token than there is")


@dataclass(frozen=True, repr=False)
class K8sPsat:
    """A projected token of a service account, for the server's audience, and the server's name of its cluster."""

    cluster: str
    token: str
    type: str = "k8s_psat"

    @property
    def payload(self) -> bytes:
        return json.dumps({"cluster": self.cluster, "token": self.token}).encode()

    def answer(self, _challenge: bytes) -> bytes:
        raise Refused("the SPIRE server asks more of a pod's token than there is")


@dataclass(frozen=True, repr=False)
class X509Pop:
    """A certificate, leaf first with its intermediates, and the leaf's key: RSA or EC."""

    chain: tuple[x509.Certificate, ...]
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    type: str = "x509pop"

    @property
    def payload(self) -> bytes:
        return json.dumps({"certificates": [_b64(each.public_bytes(Encoding.DER)) for each in self.chain]}).encode()

    def answer(self, challenge: bytes) -> bytes:
        kind = "rsa_signature" if isinstance(self.key, rsa.RSAPrivateKey) else "ecdsa_signature"
        try:
            theirs = b64decode(json.loads(challenge)[kind]["nonce"], validate=True)
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInput("the SPIRE server's challenge cannot be read") from error
        if len(theirs) != _NONCE_BYTES:  # else we would sign what somebody else has made up
            raise InvalidInput("the SPIRE server's challenge is not as it should be")
        ours = os.urandom(_NONCE_BYTES)
        digest = hashes.Hash(hashes.SHA256())
        digest.update(theirs + ours)
        return json.dumps({kind: {"nonce": _b64(ours), **self._signed(digest.finalize())}}).encode()

    def _signed(self, digest: bytes) -> dict[str, str]:
        hashed = Prehashed(hashes.SHA256())
        if isinstance(self.key, rsa.RSAPrivateKey):
            salted = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
            return {"signature": _b64(self.key.sign(digest, salted, hashed))}
        r, s = decode_dss_signature(self.key.sign(digest, ec.ECDSA(hashed)))
        return {"r": _b64(_magnitude(r)), "s": _b64(_magnitude(s))}


@dataclass(frozen=True)
class X509PopFiles:
    """A certificate with its intermediates, and its key, in PEM files of which each attestation reads what is there."""

    certificate: Path
    key: Path

    def __call__(self) -> X509Pop:
        """Read them. Raise InvalidInput if they are not good, or others could have written or read the key."""
        with told_as(InvalidInput, f"the certificate {str(self.certificate)!r}"):
            try:
                chain = x509.load_pem_x509_certificates(trusted.read(self.certificate, PEM_MAX_BYTES).encode())
            except ValueError as error:
                raise InvalidInput("it holds no certificates in PEM") from error
        with told_as(InvalidInput, f"the key {str(self.key)!r}"):
            key = _pem_key(_private(self.key))
            if chain[0].public_key() != key.public_key():
                raise InvalidInput(f"it is not that of the certificate {str(self.certificate)!r}")
        return X509Pop(tuple(chain), key)


def _private(path: Path) -> bytes:
    try:
        found = key_files.read(path)
    except CannotStart as error:
        raise InvalidInput(error.public) from error
    if found is None:
        raise InvalidInput("there is no such file")
    return found


def _pem_key(pem: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInput("it is no private key in PEM without a passphrase") from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise InvalidInput("it is neither RSA nor EC")
    return key


@dataclass(frozen=True)
class AttestedNode:
    """What a server has given this node. `reattestable`: whether it renews by attesting anew."""

    svid: X509Svid
    reattestable: bool

    @property
    def spiffe_id(self) -> SpiffeId:
        return self.svid.spiffe_id


async def attest(server: ServerConnection, attestor: NodeAttestor, bundle: Bundle, now: datetime) -> AttestedNode:
    """Prove to a server, over a connection that shows nothing, which node this is.

    `bundle` is that of its trust domain, `now` the time at which the SVID must be good, or soon. Raise what a call
    raises; InvalidSvid if what comes back is not the SVID of an agent for our key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    request = pb.AttestAgentRequest(
        params=pb.AttestAgentRequest.Params(
            data=pb.AttestationData(type=attestor.type, payload=attestor.payload), params=_params(key)
        )
    )
    try:
        result = await _attested(server, attestor, request)
    except Refused as error:
        if error.public.endswith(_SAID_BANNED):
            raise NodeRefused(error.public, reason_code=BANNED) from error
        raise
    except ServerFault as error:
        if attestor.type == K8sPsat.type and _NO_OF_KUBERNETES.search(error.said):
            raise Refused(f"the SPIRE server says: {error.said}") from error
        raise
    node = AttestedNode(_svid(result.svid, key, bundle, now), result.reattestable)
    if isinstance(attestor, Remembering):
        await asyncio.to_thread(attestor.taken_as, node.spiffe_id)
    return node


async def _attested(
    server: ServerConnection, attestor: NodeAttestor, request: pb.AttestAgentRequest
) -> pb.AttestAgentResponse.Result:
    async with server.duplex(ATTEST, pb.AttestAgentResponse) as call:
        answer = await call.ask(request)
        for _ in range(UPSTREAM_CHALLENGES):
            if answer.WhichOneof("step") != "challenge":
                break
            answer = await call.ask(pb.AttestAgentRequest(challenge_response=attestor.answer(answer.challenge)))
        if answer.WhichOneof("step") != "result":
            raise Refused("the SPIRE server asks and asks, and does not say whether this is a node")
        await call.done()
    return answer.result


async def renew(server: ServerConnection, node: AttestedNode, bundle: Bundle, now: datetime) -> AttestedNode:
    """A new SVID, for a new key, of a node that cannot attest anew. Raise as `attest` does."""
    key = ec.generate_private_key(ec.SECP256R1())
    answer = await server.unary(RENEW, pb.RenewAgentRequest(params=_params(key)), pb.RenewAgentResponse)
    svid = _svid(answer.svid, key, bundle, now)
    if svid.spiffe_id != node.spiffe_id:
        raise InvalidSvid(f"the SPIRE server renews {str(node.spiffe_id)!r} as {str(svid.spiffe_id)!r}")
    return AttestedNode(svid, reattestable=False)


def _params(key: ec.EllipticCurvePrivateKey) -> pb.X509SvidParams:
    csr = x509.CertificateSigningRequestBuilder().subject_name(_SUBJECT).sign(key, hashes.SHA256())
    return pb.X509SvidParams(csr=csr.public_bytes(Encoding.DER))


def _svid(message: types.X509SVID, key: ec.EllipticCurvePrivateKey, bundle: Bundle, now: datetime) -> X509Svid:
    """The SVID in an answer: of an agent of the trust domain, for our key, by its bundle. Raise InvalidSvid."""
    with told_as(InvalidSvid, "what the SPIRE server gives this node is not its SVID"):
        svid = read_svid(message, key, bundle, _from(message, now))
        if svid.spiffe_id.trust_domain != bundle.trust_domain or not svid.spiffe_id.path.startswith(AGENT_PATH):
            raise InvalidSvid(f"{str(svid.spiffe_id)!r} is no agent of {bundle.trust_domain.name!r}")
    return svid


def _from(message: types.X509SVID, now: datetime) -> datetime:
    """The time to verify a node's own SVID at: it is good once, and a clock that is behind the server's is set right
    later. A day behind is no such clock.
    """
    try:
        begins = x509.load_der_x509_certificate(message.cert_chain[0]).not_valid_before_utc
    except (IndexError, ValueError):
        return now  # which is told by whoever reads it
    behind = begins - now
    return begins if timedelta() < behind < timedelta(seconds=UPSTREAM_CLOCK_BEHIND_SECONDS) else now


def read_svid(message: types.X509SVID, key: ec.EllipticCurvePrivateKey, bundle: Bundle, now: datetime) -> X509Svid:
    """An SVID that a server has signed, verified by its bundle, for our key. Raise InvalidSvid.

    Its chain has what was verified of the one that the server sends, and nothing else.
    """
    try:
        chain = tuple(x509.load_der_x509_certificate(each) for each in message.cert_chain)
    except ValueError as error:
        raise InvalidSvid("it has something that is no certificate", detail=str(error)) from error
    spiffe_id, path = verify_path(chain, bundle.x509_authorities, bundle.trust_domain, now)
    if chain[0].public_key() != key.public_key():
        raise InvalidSvid("it is not for our key")
    return X509Svid(spiffe_id, path, key)


def _b64(content: bytes) -> str:
    return b64encode(content).decode()


def _magnitude(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
