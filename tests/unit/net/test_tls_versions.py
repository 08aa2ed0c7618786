"""tls_versions.py: which TLS is spoken, however this Python was built."""

import ssl

import pytest
from harness.tlsplace import TlsPlace
from sojourn.net.tls_contexts import web_context
from sojourn.net.tls_versions import client_context, demand_modern_tls
from sojourn.sdk.egress.ca import EgressAuthority


@pytest.mark.parametrize("protocol", [ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER])
def test_a_context_that_takes_everything(protocol):
    """Of all that OpenSSL has, TLS 1.2 with ephemeral keys and authenticated encryption is left, and TLS 1.3."""
    context = ssl.SSLContext(protocol)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    demand_modern_tls(context)
    assert ssl.TLSVersion.TLSv1_2 == context.minimum_version
    modern(context)


@pytest.mark.parametrize(
    "make", [lambda: web_context(None), lambda: EgressAuthority(["a.example"]).context("a.example")]
)
def test_those_who_make_one(make):
    """Providers are spoken to so, and so is a command by its egress proxy."""
    modern(make())


def test_whom_a_client_believes(tmp_path):
    """Certificates are verified, by name too; each of the named ones is an authority, in the forms that others take."""
    context = client_context(cafile=TlsPlace(tmp_path).ca)
    assert (ssl.CERT_REQUIRED, True, 1) == (context.verify_mode, context.check_hostname, len(context.get_ca_certs()))
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT


def modern(context):
    old = [each for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    assert old
    for each in old:
        assert ("kx-ecdhe", True) == (each["kea"], each["aead"]), each["name"]
