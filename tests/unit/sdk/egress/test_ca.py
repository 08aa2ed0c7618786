"""ca.py: what an egress proxy's authority can vouch for, whoever has its key. The handshakes are real."""

import ipaddress
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from sojourn.sdk.egress.ca import EgressAuthority


def general(host):
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def forged(authority, host):
    """The TLS of a server that shows a certificate for any host, made by somebody who has got hold of the key."""
    leaf = (
        authority._builder(x509.Name([]), authority._leaf_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([general(host)]), critical=True)
        .sign(authority._key, SHA256())
    )
    return leaf.public_bytes(Encoding.PEM) + authority._leaf_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def accepted(authority, context, host):
    """Whether a client that trusts the authority alone takes this server for the host."""
    client = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    ours, theirs = socket.socketpair()

    def serve():
        try:
            context.wrap_socket(theirs, server_side=True).close()
        except (OSError, ssl.SSLError):
            theirs.close()

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        with client.wrap_socket(ours, server_hostname=host):
            return True
    except ssl.SSLCertVerificationError:
        return False
    finally:
        ours.close()
        serving.join()


@pytest.mark.parametrize(
    ("hosts", "host"),
    [
        (["10.0.0.5"], "bank.example"),
        ([], "bank.example"),
        ([], "169.254.169.254"),
        ([], "::1"),
        (["tickets.example.org"], "bank.example"),
        (["tickets.example.org"], "evil.tickets.example.org"),
        (["tickets.example.org"], "example.org"),
        (["tickets.example.org"], "169.254.169.254"),
        (["tickets.example.org"], "::1"),
        (["10.0.0.5"], "10.0.0.6"),
        (["10.0.0.5"], "::1"),
        (["tickets.example.org", "10.0.0.5"], "bank.example"),
    ],
)
def test_S5_for_others(tmp_path, hosts, host):
    """Nobody takes a certificate of the authority for a name, a name below one, or an address that is no host of the
    task's, whatever these are.
    """
    authority = EgressAuthority(hosts)
    (tmp_path / "pem").write_bytes(forged(authority, host))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    assert not accepted(authority, context, host)


@pytest.mark.parametrize(
    "hosts",
    [
        ["tickets.example.org"],
        ["tickets.example.org", "deep.tickets.example.org"],
        ["10.0.0.5", "::1", "localhost"],
        ["10.0.0.5"],
    ],
)
def test_for_its_hosts(hosts):
    """For the task's hosts it vouches, also where one lies below another."""
    authority = EgressAuthority(hosts)
    assert [True] * len(hosts) == [accepted(authority, authority.context(host), host) for host in hosts]
