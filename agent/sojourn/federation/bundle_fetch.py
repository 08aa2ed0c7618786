"""Fetching bundles from the endpoints of other trust domains (SPIFFE Federation 5).

What an endpoint shows is judged by its profile: a web certificate for the URL's host by the system's authorities, or an
X.509-SVID of exactly the endpoint's SPIFFE ID by the bundle of its trust domain. We show nothing ourselves (5.2), no
redirect is followed, and an answer has a deadline and a size. Proxies of the environment are not used.
"""

import asyncio
import os
import re
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn.errors import BundleNotFetched, CannotStart, InvalidBundle, InvalidInput, SojournError, quoted
from sojourn.files import trusted
from sojourn.httpclient.client import AnswerLimits, HttpClient
from sojourn.httpclient.faults import HttpFault, Why, fault_of
from sojourn.httpclient.lookups import Lookups
from sojourn.httpclient.pool import Pool
from sojourn.httpclient.tcp import TcpTransport
from sojourn.httpclient.wire import WireLimits
from sojourn.identity.federation_relationship import Relationship
from sojourn.jose import strict_json
from sojourn.jose.jws import RSA_EXPONENT_MAX
from sojourn.limits import (
    FEDERATION_BUNDLE_MAX_BYTES,
    FEDERATION_CA_SECONDS,
    FEDERATION_CONNECT_SECONDS,
    FEDERATION_DEADLINE_SECONDS,
    FEDERATION_LOOKUPS_AT_ONCE,
    PEM_MAX_BYTES,
    PROVIDER_READ_BYTES,
    PROVIDER_WIRE_MAX_BYTES,
)
from sojourn.net.allowed_addresses import Address, is_public
from sojourn.net.tls_contexts import web_context
from sojourn.net.urls import Url
from sojourn.runtime.clock import Clock
from sojourn.spiffe import bundle as bundles
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import spiffe_id_of
from sojourn.spiffetls.authorize import authorize_id
from sojourn.spiffetls.context import UnshownContext
from sojourn.workloadapi.messages import X509Context

_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
_HEADERS: Final = {"user-agent": "sojourn"}
_LIMITS: Final = AnswerLimits(FEDERATION_BUNDLE_MAX_BYTES)
_WIRE: Final = WireLimits(PROVIDER_READ_BYTES, PROVIDER_WIRE_MAX_BYTES)


class BundleEndpoints:
    """Fetches bundles, each over a connection of its own."""

    def __init__(self, ca: Path | None, clock: Clock, *, public_only: bool) -> None:
        """`ca`: a PEM file of the authorities for web certificates, in the place of the system's. Raise CannotStart."""
        self._ca = ca
        self._clock = clock
        may_connect = is_public if public_only else _anywhere
        self._transport = TcpTransport(
            Lookups(FEDERATION_LOOKUPS_AT_ONCE), may_connect, _WIRE, each_seconds=FEDERATION_CONNECT_SECONDS
        )
        self._web: tuple[float, ssl.SSLContext] | None = None
        try:
            _authorities(ca)
        except InvalidInput as error:
            raise CannotStart(f"federation.ca: {error.public}") from error

    async def fetch(self, relationship: Relationship, vouching: Bundle | None) -> Bundle:
        """The bundle that the endpoint of a relationship has now. Raise BundleNotFetched.

        `vouching`: the bundle of the endpoint's trust domain, for `https_spiffe`.
        """
        try:
            async with asyncio.timeout(FEDERATION_DEADLINE_SECONDS):
                if relationship.endpoint_id is None:
                    context = await self._web_context()
                else:
                    context = _spiffe_context(relationship, relationship.endpoint_id, vouching)
                body = await self._get(relationship.url, context)
                return await asyncio.to_thread(_read, relationship.trust_domain, body)
        except SojournError:
            raise
        except Exception as error:
            raise _not_fetched(fault_of(error), relationship) from error

    async def _get(self, url: str, context: ssl.SSLContext) -> bytes:
        async with Pool(context, self._transport, connections=1) as pool:
            answer = await HttpClient(pool, _LIMITS).ask("GET", _parsed(url), _HEADERS)
        if answer.status != 200:
            raise _status(answer.status)
        return answer.body

    async def _web_context(self) -> ssl.SSLContext:
        """For web certificates; authorities that are added to the system, or to the file, count after a while."""
        now = self._clock.boot()
        if self._web is None or now >= self._web[0] + FEDERATION_CA_SECONDS:
            try:
                self._web = now, await asyncio.to_thread(_authorities, self._ca)
            except InvalidInput as error:
                raise BundleNotFetched(f"federation.ca: {error.public}", reason_code="no_authorities") from error
        return self._web[1]


def _authorities(ca: Path | None) -> ssl.SSLContext:
    """A client's context that verifies web certificates (RFC 6125). Raise InvalidInput for a file that is not good."""
    try:
        return web_context(None, None if ca is None else trusted.read(ca, PEM_MAX_BYTES))
    except InvalidInput as error:
        raise InvalidInput(f"{ca}: {error.public}") from error
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(f"{ca}: it has no certificates in PEM: {error}") from error


class _Vouching:
    """What an endpoint's certificate is verified by at one moment: the bundle of its trust domain, nothing else."""

    version = 1

    def __init__(self, bundle: Bundle) -> None:
        self.context = X509Context((), {bundle.trust_domain: bundle.x509_authorities})

    @property
    def present(self) -> "_Vouching":
        return self


def _spiffe_context(relationship: Relationship, endpoint: SpiffeId, vouching: Bundle | None) -> ssl.SSLContext:
    domain = endpoint.trust_domain
    if vouching is None or not vouching.x509_authorities:
        known = "no bundle" if vouching is None else "no X.509 authority"
        first = "with the relationship, or " if domain == relationship.trust_domain else ""
        raise BundleNotFetched(
            f"{known} of {quoted(domain.name)} is known to verify its endpoint by: give its first bundle {first}with"
            " `bundle set`",
            reason_code="no_bundle",
        )
    return UnshownContext(_Vouching(vouching), authorize_id(endpoint), server_side=False)


def _read(trust_domain: TrustDomain, body: bytes) -> Bundle:
    """The bundle in an answer. Raise BundleNotFetched."""
    try:
        bundle = bundles.parse(trust_domain, strict_json.loads(body.decode()))
        for certificate in bundle.x509_authorities:
            _check_member(certificate, trust_domain)
        bundle.document()  # it is compared with the one before: what it takes to make is spent here, beside the loop
    except InvalidBundle as error:
        raise BundleNotFetched(
            f"the endpoint's answer is no bundle: {error.public}", reason_code="invalid_bundle", detail=error.detail
        ) from error
    except ValueError as error:
        raise BundleNotFetched("the endpoint's answer is not JSON", reason_code="invalid_bundle") from error
    return bundle


def _check_member(certificate: x509.Certificate, trust_domain: TrustDomain) -> None:
    """Raise InvalidBundle for an authority that cannot be read whole, or says that it is of another trust domain.

    It may say nothing at all. Libraries of workloads refuse all that they are sent together with one that they cannot
    read, their own new SVID too.
    """
    try:
        readable = _is_readable(certificate)
    except Exception as error:
        raise InvalidBundle("a certificate in x5c cannot be read", detail=str(error)) from error
    if not readable:
        raise InvalidBundle("a certificate in x5c has a number or a name that is none")
    try:
        named = spiffe_id_of(certificate)
    except SojournError:
        return  # what it is good for is judged when it vouches for somebody
    if named.trust_domain != trust_domain:
        raise InvalidBundle(f"it is that of {quoted(named.trust_domain.name)}, as its certificate says")


def _is_readable(certificate: x509.Certificate) -> bool:
    """Whether all is there that a certificate says, and is what it should be. Raises whatever the library does."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.public_numbers().e > RSA_EXPONENT_MAX:
        return False
    names: list[x509.GeneralName] = []
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += extension.value
        elif isinstance(extension.value, x509.NameConstraints):
            names += [*(extension.value.permitted_subtrees or ()), *(extension.value.excluded_subtrees or ())]
    texts = [name.value for name in names if isinstance(name, x509.DNSName | x509.RFC822Name)]
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    plain = all(text.isascii() and text.isprintable() for text in texts) and all(map(_URI.fullmatch, uris))
    ends_later = certificate.not_valid_before_utc <= certificate.not_valid_after_utc
    _ = certificate.subject, certificate.issuer  # reading them is what raises
    return plain and ends_later and certificate.serial_number > 0 and _is_signed_as_it_says(certificate)


def _is_signed_as_it_says(certificate: x509.Certificate) -> bool:
    """Whether the algorithm beside the signature is the one that is signed (RFC 5280, 4.1.1.2)."""
    der, signed = certificate.public_bytes(Encoding.DER), certificate.tbs_certificate_bytes
    at = der.index(signed) + len(signed)  # of a SEQUENCE of less than 128 bytes
    return der[at : at + 2 + der[at + 1]] in signed


def _anywhere(_address: Address) -> bool:
    return True


def _parsed(url: str) -> Url:
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return Url("https", parts.hostname or "", parts.port or 443, target)


def _status(status: int) -> BundleNotFetched:
    return BundleNotFetched(f"the endpoint answers with status {status}", reason_code="status")


def _not_fetched(fault: HttpFault, relationship: Relationship) -> BundleNotFetched:
    """The sentence for a fault, with its code."""
    if fault.why is Why.REDIRECT:
        return BundleNotFetched(
            f"the endpoint answers with a redirect ({fault.status}), which is not followed: give the URL that it leads"
            " to",
            reason_code="redirect",
        )
    if fault.status not in {0, 200}:
        return _status(fault.status)
    said, code = _sentence(fault, relationship)
    return BundleNotFetched(f"the endpoint{said}", reason_code=code, detail=fault.detail)


def _sentence(fault: HttpFault, relationship: Relationship) -> tuple[str, str]:
    """What is said behind `the endpoint`, and the code."""
    match fault.why:
        case Why.NO_ADDRESS:
            return f"'s name {quoted(urlsplit(relationship.url).hostname or '')} has no address", "unknown_name"
        case Why.ADDRESS:
            return "'s address is not a public one, and federation.public_only is set", "address"
        case Why.CONNECT_LATE | Why.TLS_LATE | Why.LATE:
            return " did not answer in time", "timeout"
        case Why.TOO_LARGE:
            return f"'s answer is larger than {FEDERATION_BUNDLE_MAX_BYTES} bytes", "too_large"
        case Why.ENCODED:
            return "'s answer is compressed", "invalid_bundle"
        case Why.CERTIFICATE:
            web = relationship.endpoint_id is None
            hint = ": an endpoint that shows an X.509-SVID has the profile https_spiffe" if web else ""
            return f"'s certificate is refused: {fault.reason}{hint}", "certificate"
        case Why.TLS | Why.BROKEN_TLS:
            return f" speaks no TLS that is accepted: {fault.reason or 'the handshake failed'}", "tls"
    if fault.errno or fault.why is Why.UNREACHABLE:
        why = os.strerror(fault.errno).lower() if fault.errno else "no connection"
        return f" cannot be reached: {why}", "unreachable"
    return " broke off, or does not speak HTTP", "broken"
