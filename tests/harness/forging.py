"""Certificates under an agent's own root, of any make, and connections to its TCP listener with them."""

import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fakes import certificates
from fakes.certificates import Issued
from sojourn.sdk.client.connection import AgentConnection
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import X509Svid
from sojourn.spiffetls.bridge import Bridge
from sojourn.spiffetls.context import load_svid

from harness.agent import AgentProcess


def root_of(agent: AgentProcess) -> Issued:
    """The agent's first root with its key: with it anything can be signed."""
    pem = (agent.data_dir / "keys" / "root.pem").read_bytes()
    certificate, key = (
        re.search(rb"-----BEGIN %s-----.*?-----END %s-----" % (kind, kind), pem, re.DOTALL)
        for kind in (b"CERTIFICATE", b"PRIVATE KEY")
    )
    assert certificate is not None
    assert key is not None
    return Issued(x509.load_pem_x509_certificate(certificate[0]), load_pem_private_key(key[0], None))


def leaf(issuer: Issued | None, *, seconds: float = 3600, **changes: Any) -> Issued:
    """A leaf that is good for `seconds` from now, but for `changes`: see fakes/certificates.py."""
    now = datetime.now(UTC)
    times = {"begins": now - timedelta(minutes=5), "ends": now + timedelta(seconds=seconds)}
    return certificates.issue(issuer, **{**times, **changes})


def context(shown: Issued | X509Svid | None) -> ssl.SSLContext:
    """For TLS with this certificate, or with none; whoever answers is taken as it is."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_alpn_protocols(["h2"])
    if isinstance(shown, Issued):
        shown = X509Svid(SpiffeId.parse("spiffe://example.org/any"), (shown.certificate,), shown.key)
    if shown is not None:
        load_svid(made, shown)
    return made


@contextlib.asynccontextmanager
async def connection(
    address: str, shown: Issued | X509Svid | None, *, version: ssl.TLSVersion | None = None
) -> AsyncIterator[AgentConnection]:
    """gRPC over such TLS."""
    tls = context(shown)
    if version is not None:
        tls.minimum_version = tls.maximum_version = version
    bridge = Bridge(address, tls)
    await bridge.open()
    opened = AgentConnection(bridge.path, 10)
    try:
        yield opened
    finally:
        await opened.close()
        await bridge.close()
