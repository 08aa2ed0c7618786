"""To what tokens are bound, and the proofs of it: what callers show is checked here, and what the agent holds used."""

import re
from typing import Protocol
from urllib.parse import urlsplit

from cryptography import x509

from sojourn.errors import InvalidInput, InvalidSvid, InvalidToken
from sojourn.identity.issued_svids import X509
from sojourn.identity.revocations import Revocations
from sojourn.identity.trust import TrustSource
from sojourn.limits import DPOP_JTI_MAX, PROOF_METHOD_MAX, PROOF_URL_MAX
from sojourn.runtime.clock import Clock
from sojourn.spiffe.x509svid import DER, parse_certificates, verify_chain
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.task import Task
from sojourn.tasktoken import dpop
from sojourn.tasktoken.dpop_replays import Replays
from sojourn.tasktoken.sender_constraint import JKT, Binding, Proven

_METHOD = re.compile(rf"[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{PROOF_METHOD_MAX}}}")  # RFC 9110, 9.1
_TEXT = re.compile(r"[!-~]+")  # no space, no control character
_NONCE = re.compile(rf"[!#-\[\]-~]{{0,{DPOP_JTI_MAX}}}")  # RFC 9449, 8.1

SOCKET_URL = "http://localhost/token"  # as HTTP clients call what they reach by a Unix socket


class ChainTrust(TrustSource, Protocol):
    """What verifies chains of which somebody may have kept only the leaf."""

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        """Those that have signed leaves which may still be good."""


class TokenBindings:
    """Bindings of tokens that the engine is to issue, and proofs by the keys that tasks have in the agent."""

    def __init__(
        self,
        engine: TaskEngine,
        authority: ChainTrust,
        revocations: Revocations,
        replays: Replays,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._authority = authority
        self._revocations = revocations
        self._replays = replays
        self._clock = clock

    def by_proof(self, unverified_proof: str, who: int | str, *, at_socket: bool = False) -> Binding:
        """The binding to the key of a DPoP proof for `POST {issuer}/token`, which is used up by this.

        `who` has sent it, and is known: nobody else fills what is remembered of proofs. Clients `at_socket` may have
        called it SOCKET_URL. Raise InvalidProof, NonceNeeded or LimitExceeded.
        """
        url = f"{self._engine.issuer}/token"
        if at_socket and dpop.unverified_url(unverified_proof) == SOCKET_URL:
            url = SOCKET_URL
        proof = dpop.read(unverified_proof, method="POST", url=url, now=self._clock.now())
        self._replays.claim(proof, who)
        return Binding(JKT, proof.jkt)

    def by_certificate(self, task: Task, unverified_der: bytes) -> Binding:
        """The binding to an X.509-SVID of the task's workload: its leaf, maybe with the rest of its chain behind it.

        Raise InvalidSvid for any other certificate.
        """
        bundle, chain = self._authority.bundle, parse_certificates(unverified_der)
        spiffe_id = verify_chain(
            [*chain, *(each for each in self._authority.intermediates if each not in chain)] if chain else [],
            bundle.x509_authorities,
            bundle.trust_domain,
            self._clock.now(),
        )
        if spiffe_id != task.spiffe_id:
            raise InvalidSvid("certificate is of another workload than the task")
        leaf = chain[0]
        if self._revocations.denies(X509, f"{leaf.serial_number:x}", spiffe_id):
            raise InvalidSvid("certificate is revoked")
        return Binding.to_certificate(leaf.public_bytes(DER), leaf.not_valid_after_utc)

    def prove(self, task: Task, method: str, url: str, token: str, nonce: str) -> str:
        """Make the DPoP proof for one request with a token of the task that is bound to the task's key.

        Raise InvalidInput, InvalidToken, or TaskOver if the task is not active or the token older than its last change.
        """
        self._engine.check_active(task)
        if not _METHOD.fullmatch(method):
            raise InvalidInput("method is not that of an HTTP request, such as GET")
        if len(url) > PROOF_URL_MAX or not _TEXT.fullmatch(url) or not _is_http(url):
            raise InvalidInput(f"url is not an http or https URL of at most {PROOF_URL_MAX} characters")
        if not _NONCE.fullmatch(nonce):
            raise InvalidInput("nonce is not one that a service can have asked for")
        if not token:
            raise InvalidInput("access_token must be specified: the one that goes with the request")
        self._check_own(task, token)
        assert task.key is not None
        return dpop.make(task.key, method=method, url=url, now=self._clock.now(), token=token, nonce=nonce or None)

    def _check_own(self, task: Task, token: str) -> None:
        if task.key is None:
            raise InvalidToken("token is not bound to the key of the task: get one with agent_key")
        verified = self._engine.issuing.verify(token, proven=Proven(jkt=task.key.public.thumbprint))
        if verified.task_id != task.id:
            raise InvalidToken("token is of another task")
        self._engine.check_token(verified)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False
