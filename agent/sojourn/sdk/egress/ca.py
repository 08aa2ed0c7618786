"""The certificates that an egress proxy shows to its command, of an authority that lives as long as the proxy."""

import ipaddress
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sojourn.limits import NOT_BEFORE_SLACK_SECONDS, PROXY_HOSTS, TASK_MAX_SECONDS
from sojourn.net.tls_versions import demand_modern_tls
from sojourn.quota.lru import Lru
from sojourn.spiffetls.context import load_pem

_NOTHING = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}
_NO_NAME = "none.invalid"  # nobody has a name of this kind (RFC 2606)
_EVERY = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


class EgressAuthority:
    """Vouches for `hosts` alone, whoever gets hold of its key. The key is in memory only, and for this one run.

    Without hosts it vouches for nobody: some clients take it for an error if no authority is there.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Sojourn egress proxy, for one run")
        now = datetime.now(UTC)
        self._not_before = now - timedelta(seconds=NOT_BEFORE_SLACK_SECONDS)
        self._not_after = now + timedelta(seconds=TASK_MAX_SECONDS)
        self._contexts: Lru[str, ssl.SSLContext] = Lru(PROXY_HOSTS)
        self._certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(**{**_NOTHING, "key_cert_sign": True}), critical=True)
            .add_extension(_constraints(hosts), critical=True)
            .sign(self._key, SHA256())
        )

    @property
    def certificate_pem(self) -> bytes:
        """What the command is to trust."""
        return self._certificate.public_bytes(Encoding.PEM)

    def context(self, host: str) -> ssl.SSLContext:
        """The TLS context of a server that is `host`."""
        context = self._contexts.get(host)
        if context is None:
            context = self._make(host)
            self._contexts.put(host, context)
        return context

    def _make(self, host: str) -> ssl.SSLContext:
        leaf = (
            self._builder(_name("Sojourn egress proxy"), self._leaf_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**{**_NOTHING, "digital_signature": True}), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general(host)]), critical=True)
            .sign(self._key, SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        demand_modern_tls(context)
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        key = self._leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        load_pem(context, leaf.public_bytes(Encoding.PEM) + self.certificate_pem + key)
        return context

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._not_before)
            .not_valid_after(self._not_after)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _general(host: str) -> x509.GeneralName:
    address = _address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)


def _constraints(hosts: Iterable[str]) -> x509.NameConstraints:
    """These hosts and no other name or address: a kind that is not spoken of is allowed (RFC 5280, 4.2.1.10)."""
    names, addresses = set[str](), set[ipaddress.IPv4Address | ipaddress.IPv6Address]()
    for host in hosts:
        address = _address(host)
        if address is None:
            names.add(host)
        else:
            addresses.add(address)
    permitted: list[x509.GeneralName] = [x509.DNSName(name) for name in sorted(names) or [_NO_NAME]]
    permitted += [x509.IPAddress(ipaddress.ip_network(address)) for address in sorted(addresses, key=str)]
    # A name stands for those below it too; with a dot before it, for these alone, where that is understood.
    excluded: list[x509.GeneralName] = [x509.DNSName(f".{name}") for name in sorted(names) if not _below(name, names)]
    held = {address.version for address in addresses}
    excluded += [x509.IPAddress(every) for every in _EVERY if every.version not in held]
    return x509.NameConstraints(permitted, excluded or None)


def _below(name: str, names: Iterable[str]) -> bool:
    """Whether one of the names lies below another: what lies below that one cannot be excluded."""
    return any(each.endswith(f".{name}") for each in names)
