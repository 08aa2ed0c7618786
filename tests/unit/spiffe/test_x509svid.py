"""x509svid.py: the rules of X509-SVID.md 2 to 5 for leaves, signing certificates and chains. One fault a case."""

import contextlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fakes.certificates import (
    CLIENT,
    KEY,
    SERVER,
    WEB,
    Issued,
    authority,
    issue,
    raw_san,
    san,
    usage,
)
from fakes.x509chains import GOOD, HERE, MIDDLE, OTHER_ROOT, ROOT, THERE, UNDER_MIDDLE, UNKNOWN, verify
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidSvid
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import (
    X509Svid,
    check_authority,
    check_key,
    check_leaf,
    parse_certificates,
    spiffe_id_of,
)

BAD_URIS = {
    "https": b"https://example.org/web",
    "upper-case-scheme": b"SPIFFE://example.org/web",
    "upper-case-domain": b"spiffe://EXAMPLE.org/web",
    "user": b"spiffe://me@example.org/web",
    "port": b"spiffe://example.org:80/web",
    "query": b"spiffe://example.org/web?a=b",
    "fragment": b"spiffe://example.org/web#a",
    "percent": b"spiffe://example.org/%77eb",
    "percent-in-domain": b"spiffe://ex%61mple.org/web",
    "empty-segment": b"spiffe://example.org//web",
    "dot-segment": b"spiffe://example.org/./web",
    "dot-dot-segment": b"spiffe://example.org/a/../web",
    "trailing-slash": b"spiffe://example.org/web/",
    "nul-behind": b"spiffe://example.org/web\0",
    "nul-in-domain": b"spiffe://example.org\0.evil.org/web",
    "newline-behind": b"spiffe://example.org/web\n",
    "newline-behind-domain": b"spiffe://example.org\n/web",
    "space": b"spiffe://example.org/ web",
    "no-domain": b"spiffe:///web",
    "empty": b"",
    "kelvin-sign": "spiffe://example.org/\u212a".encode(),
    "latin-1": "spiffe://example.org/\u00e4".encode("latin-1"),
    "2049-bytes": b"spiffe://example.org/".ljust(2049, b"a"),
    "root-path": b"spiffe://example.org",
}
LEAF_FAULTS = {
    "no-uri": {"san": None},
    "dns-only": {"san": (san(dns=["example.org"]), False)},
    "uri-in-subject-only": {"san": None, "subject": WEB},
    "two-uris": {"san": (san(WEB, "spiffe://example.org/db"), False)},
    "same-uri-twice": {"san": (san(WEB, WEB), False)},
    "spiffe-and-https": {"san": (san(WEB, "https://example.org"), False)},
    "san-empty": {"san": (raw_san(), False)},
    "san-not-der": {"san": (x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\xff"), False)},
    **{f"uri-{name}": {"san": (raw_san(uri), False)} for name, uri in BAD_URIS.items()},
    "ca-flag": {"constraints": (x509.BasicConstraints(ca=True, path_length=None), True)},
    "key-cert-sign": {"usage": (usage("digital_signature", "key_cert_sign"), True)},
    "crl-sign": {"usage": (usage("digital_signature", "crl_sign"), True)},
    "no-key-usage": {"usage": None},
    "key-usage-not-critical": {"usage": (usage("digital_signature"), False)},
    "no-digital-signature": {"usage": (usage("key_encipherment", "key_agreement"), True)},
    "key-usage-of-nothing": {"usage": (usage(), True)},
    "key-usage-not-der": {"usage": (x509.UnrecognizedExtension(x509.KeyUsage.oid, b"\x05\x00"), True)},
    "eku-server-only": {"extended": (x509.ExtendedKeyUsage([SERVER]), False)},
    "eku-client-only": {"extended": (x509.ExtendedKeyUsage([CLIENT]), False)},
    "eku-any": {"extended": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False)},
    "eku-others": {"extended": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)},
    "eku-empty-CVE-2026-40097": {
        "extended": (x509.UnrecognizedExtension(x509.ExtendedKeyUsage.oid, b"\x30\x00"), False)
    },
    "constraints-not-der": {"constraints": (x509.UnrecognizedExtension(x509.BasicConstraints.oid, b"\x04\x00"), True)},
}
GOOD_LEAVES = {
    "plain": {},
    "dns-beside-uri": {"san": (san(WEB, dns=["example.org"]), False)},
    "no-subject-and-san-critical": {"san": (san(WEB), True), "subject": ""},
    "no-eku": {"extended": None},
    "eku-critical": {"extended": (x509.ExtendedKeyUsage([SERVER, CLIENT]), True)},
    "eku-and-more": {"extended": (x509.ExtendedKeyUsage([CLIENT, ExtendedKeyUsageOID.CODE_SIGNING, SERVER]), False)},
    "no-constraints": {"constraints": None},
    "constraints-not-critical": {"constraints": (x509.BasicConstraints(ca=False, path_length=None), False)},
    "key-encipherment-and-agreement": {
        "usage": (usage("digital_signature", "key_encipherment", "key_agreement"), True)
    },
    "2048-bytes": {"san": (san("spiffe://example.org/".ljust(2048, "a")), False)},
    "unknown-extension": {"unknown": (x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), False)},
}


class TestCheckLeaf:
    @pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in GOOD_LEAVES.items()])
    def test_good(self, changes):
        """A leaf that keeps the rules is good alone and in a chain, and gives its SPIFFE ID."""
        leaf = issue(ROOT, **changes)
        assert check_leaf(leaf.certificate) == verify(leaf)
        assert str(check_leaf(leaf.certificate)).startswith("spiffe://example.org/")

    @pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in LEAF_FAULTS.items()])
    def test_bad(self, changes):
        """A leaf with one fault is refused alone, and in a chain."""
        leaf = issue(ROOT, **changes)
        with pytest.raises(InvalidSvid):
            check_leaf(leaf.certificate)
        with pytest.raises(InvalidSvid):
            verify(leaf)

    @pytest.mark.parametrize(
        ("name", "rule"),
        [
            ("no-uri", "no subject alternative name"),
            ("two-uris", "2 URI names, not one"),
            ("dns-only", "0 URI names, not one"),
            ("uri-root-path", "no path"),
            ("uri-upper-case-domain", "lowercase"),
            ("ca-flag", "cA flag"),
            ("no-key-usage", "no key usage"),
            ("key-usage-not-critical", "not critical"),
            ("no-digital-signature", "digitalSignature"),
            ("crl-sign", "cRLSign"),
            ("eku-any", "serverAuth or clientAuth"),
        ],
    )
    def test_says_the_rule(self, name, rule):
        """The error names the rule that is broken."""
        with pytest.raises(InvalidSvid, match=rule):
            check_leaf(issue(ROOT, **LEAF_FAULTS[name]).certificate)

    @pytest.mark.parametrize(("bits", "good"), [(2047, False), (2048, True), (8192, True), (8193, False)], ids=str)
    def test_rsa_sizes(self, bits, good):
        """An RSA key has from 2048 to 8192 bits, both included."""
        key = rsa.RSAPublicNumbers(65537, 2 ** (bits - 1) + 1).public_key()
        if good:
            assert key is check_key(key)
            return
        with pytest.raises(InvalidSvid, match="kind or size"):
            check_key(key)

    def test_unknown_key(self):
        """A certificate with a key of a kind that nobody knows is refused, and the log says which."""
        kind = bytes.fromhex("06072a8648ce3d0201")  # id-ecPublicKey
        (odd,) = parse_certificates(GOOD.der.replace(kind, kind[:-1] + b"\x7f"))
        with pytest.raises(InvalidSvid, match="key cannot be parsed") as caught:
            check_leaf(odd)
        assert "1.2.840.10045.2.127" in caught.value.detail

    def test_signing_certificate(self):
        """A signing certificate is no leaf (X509-SVID.md 3.2)."""
        with pytest.raises(InvalidSvid):
            check_leaf(ROOT.certificate)


class TestSpiffeIdOf:
    def test_of_a_leaf(self):
        """A leaf's ID is its one URI name."""
        assert SpiffeId.parse(WEB) == spiffe_id_of(GOOD.certificate)

    def test_of_a_signing_certificate(self):
        """A signing certificate's ID is that of its trust domain."""
        assert HERE.id == spiffe_id_of(ROOT.certificate)

    @examples(150)
    @given(st.lists(st.binary(max_size=30).map(b"spiffe://".__add__) | st.binary(max_size=40), max_size=3))
    def test_any_names(self, uris):
        """Any bytes as URI names are an ID, or InvalidSvid."""
        certificate = issue(ROOT, san=(raw_san(*uris), False)).certificate
        with contextlib.suppress(InvalidSvid):
            assert uris == [str(spiffe_id_of(certificate)).encode()]


AUTHORITY_FAULTS = {
    "no-constraints": {"constraints": None},
    "no-ca-flag": {"constraints": (x509.BasicConstraints(ca=False, path_length=None), True)},
    "no-key-usage": {"usage": None},
    "no-key-cert-sign": {"usage": (usage("crl_sign", "digital_signature"), True)},
    "key-usage-not-critical": {"usage": (usage("key_cert_sign"), False)},
    "id-of-other-domain": {"san": (san("spiffe://other.org"), False)},
    "id-with-path": {"san": (san("spiffe://example.org/ca"), False)},
    "id-with-slash": {"san": (san("spiffe://example.org/"), False)},
    "id-upper-case": {"san": (san("spiffe://EXAMPLE.org"), False)},
    "id-https": {"san": (san("https://example.org"), False)},
    "two-ids": {"san": (san("spiffe://example.org", "spiffe://other.org"), False)},
    "san-not-der": {"san": (x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\xff"), False)},
    "constraints-not-der": {"constraints": (x509.UnrecognizedExtension(x509.BasicConstraints.oid, b"\x04\x00"), True)},
    "key-usage-not-der": {"usage": (x509.UnrecognizedExtension(x509.KeyUsage.oid, b"\x05\x00"), True)},
}
GOOD_AUTHORITIES = {
    "plain": {},
    "no-san": {"san": None},
    "without-crl-sign": {"usage": (usage("key_cert_sign"), True)},
    "digital-signature-too": {"usage": (usage("key_cert_sign", "digital_signature"), True)},
    "path-length": {"constraints": (x509.BasicConstraints(ca=True, path_length=3), True)},
    "dns-name-only": {"san": (san(dns=["ca.example.org"]), False)},
}


class TestCheckAuthority:
    @pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in GOOD_AUTHORITIES.items()])
    def test_good(self, changes):
        """A signing certificate that keeps the rules is good alone, as root and as intermediate."""
        root = authority(**changes)
        check_authority(root.certificate, HERE)
        assert SpiffeId.parse(WEB) == verify(issue(root), roots=[root])
        middle = authority(ROOT, subject="middle", **changes)
        assert SpiffeId.parse(WEB) == verify(issue(middle), middle)

    @pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in AUTHORITY_FAULTS.items()])
    def test_bad(self, changes):
        """A signing certificate with one fault is refused alone, as root and as intermediate."""
        root = authority(**changes)
        with pytest.raises(InvalidSvid):
            check_authority(root.certificate, HERE)
        with pytest.raises(InvalidSvid):
            verify(issue(root), roots=[root])
        middle = authority(ROOT, subject="middle", **changes)
        with pytest.raises(InvalidSvid):
            verify(issue(middle), middle)

    def test_leaf(self):
        """A leaf is no signing certificate."""
        with pytest.raises(InvalidSvid):
            check_authority(GOOD.certificate, HERE)

    def test_of_another_trust_domain(self):
        """A signing certificate is good for its own trust domain only."""
        with pytest.raises(InvalidSvid):
            check_authority(ROOT.certificate, THERE)


def check_authority_here(certificate):
    check_authority(certificate, HERE)


TWO = UNDER_MIDDLE.der + MIDDLE.der


class TestParseCertificates:
    @pytest.mark.parametrize("count", [0, 1, 2, 5])
    def test_round_trip(self, count):
        """Certificates that are written one after the other are read in the same order."""
        written = [UNDER_MIDDLE, MIDDLE, ROOT, OTHER_ROOT, GOOD][:count]
        assert tuple(each.certificate for each in written) == parse_certificates(b"".join(each.der for each in written))

    def test_cut_short(self):
        """Data that is cut at any byte but between certificates is refused."""
        whole = {0, len(UNDER_MIDDLE.der), len(TWO)}
        for size in range(len(TWO) + 1):
            if size in whole:
                parse_certificates(TWO[:size])
                continue
            with pytest.raises(InvalidSvid):
                parse_certificates(TWO[:size])

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(lambda der: der + b"\0", id="nul-behind"),
            pytest.param(lambda der: der + b"\n", id="newline-behind"),
            pytest.param(lambda der: der + b"\x30", id="sequence-begun"),
            pytest.param(lambda der: der + b"\x30\x00", id="empty-sequence-behind"),
            pytest.param(lambda der: b"\0" + der, id="nul-before"),
            pytest.param(lambda der: b"\x31" + der[1:], id="set-for-sequence"),
            pytest.param(lambda der: b"\x30\x80" + der[4:] + b"\0\0", id="indefinite-length"),
            pytest.param(lambda der: b"\x30\x83\0" + der[2:], id="length-not-minimal"),
            pytest.param(lambda der: b"\x30\x85\0\0\0" + der[2:], id="length-of-five-bytes"),
            pytest.param(lambda der: b"\x30\xff" + b"\xff" * 200, id="length-of-127-bytes"),
            pytest.param(lambda der: b"\x30\x84\xff\xff\xff\xff" + der[4:], id="length-of-4-gib"),
            pytest.param(lambda der: der[:2] + bytes([der[2], der[3] + 1]) + der[4:] + b"\0", id="byte-inside"),
            pytest.param(lambda der: der[4:], id="no-head"),
            pytest.param(lambda _: b"\x30\x00", id="empty-sequence"),
            pytest.param(lambda _: b"\x30\x80", id="head-only"),
            pytest.param(lambda _: b"\x30", id="one-byte"),
            pytest.param(lambda _: b"\x30\x82\x01", id="head-cut"),
            pytest.param(lambda _: GOOD.certificate.public_bytes(Encoding.PEM), id="pem"),
            pytest.param(lambda _: x509_request(), id="request"),
            pytest.param(lambda _: b"\x30\x84" + b"\0" * 4 + b"\x30\x80" * 1000, id="nested"),
        ],
    )
    def test_bad(self, fault):
        """Data that is not just certificates is refused."""
        with pytest.raises(InvalidSvid):
            parse_certificates(fault(GOOD.der))

    def test_says_why_in_the_log(self):
        """What the parser found is in the error's detail."""
        with pytest.raises(InvalidSvid, match="cannot be parsed") as caught:
            parse_certificates(b"\x30\x00")
        assert caught.value.detail == str(caught.value.__cause__)

    @pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
    @pytest.mark.parametrize(
        ("issued", "leaf"),
        [pytest.param(GOOD, (), id="leaf"), pytest.param(MIDDLE, (UNDER_MIDDLE,), id="intermediate")],
    )
    @pytest.mark.filterwarnings("ignore")  # of odd serial numbers and the like
    def test_one_byte_changed(self, issued, leaf, mask):
        """A certificate with any one byte changed does not verify, or what is signed and its signature are as before."""
        # the library does not look at the count of unused bits of the signature, which nothing depends on
        before = issued.certificate.tbs_certificate_bytes, issued.certificate.signature
        for position in range(len(issued.der)):
            der = bytearray(issued.der)
            der[position] ^= mask
            try:
                (changed,) = parse_certificates(bytes(der))
                verify(*leaf, Issued(changed, issued.key))
            except InvalidSvid:
                continue
            assert before == (changed.tbs_certificate_bytes, changed.signature)

    @pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
    @pytest.mark.parametrize("issued", [pytest.param(GOOD, id="leaf"), pytest.param(ROOT, id="root")])
    @pytest.mark.parametrize("check", [spiffe_id_of, check_leaf, check_authority_here])
    @pytest.mark.filterwarnings("ignore")
    def test_checks_of_one_byte_changed(self, check, issued, mask):
        """Whatever one byte of a certificate is, each check takes it, or raises InvalidSvid."""
        for position in range(len(issued.der)):
            der = bytearray(issued.der)
            der[position] ^= mask
            with contextlib.suppress(InvalidSvid):
                check(*parse_certificates(bytes(der)))

    @examples(300)
    @given(st.binary() | st.binary().map(b"\x30".__add__) | st.binary().map(GOOD.der.__add__))
    def test_any_bytes(self, data):
        """Any bytes are certificates that are written the same, or InvalidSvid."""
        try:
            found = parse_certificates(data)
        except InvalidSvid:
            return
        assert data == b"".join(each.public_bytes(Encoding.DER) for each in found)


def x509_request():
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web")])
    return (
        x509.CertificateSigningRequestBuilder().subject_name(name).sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)
    )


class TestX509Svid:
    SVID = X509Svid(SpiffeId.parse(WEB), (UNDER_MIDDLE.certificate, MIDDLE.certificate), KEY)

    def test_leaf_comes_first(self):
        """The leaf is the first of the chain, and serial and end are the leaf's."""
        assert UNDER_MIDDLE.certificate == self.SVID.leaf
        assert UNDER_MIDDLE.certificate.not_valid_after_utc == self.SVID.not_after
        assert UNDER_MIDDLE.certificate.serial_number == int(self.SVID.serial, 16)

    def test_serial_is_lower_case_hex(self):
        """The serial number is lower-case hex without sign or prefix."""
        svid = X509Svid(SpiffeId.parse(WEB), (issue(ROOT, serial=0xABCDEF).certificate,), KEY)
        serial = "abcdef"
        assert serial == svid.serial

    def test_chain_der(self):
        """The DER chain reads back as the chain."""
        expected = TWO
        assert expected == self.SVID.chain_der
        assert self.SVID.chain == parse_certificates(self.SVID.chain_der)

    def test_chain_pem(self):
        """The PEM chain reads back as the chain."""
        assert list(self.SVID.chain) == x509.load_pem_x509_certificates(self.SVID.chain_pem)

    def test_key(self):
        """The key in DER and in PEM is the private key, PKCS#8 without password."""
        expected = KEY.private_numbers()
        assert expected == load_der_private_key(self.SVID.key_der, None).private_numbers()
        assert expected == load_pem_private_key(self.SVID.key_pem, None).private_numbers()
        assert self.SVID.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")

    def test_repr_hides_the_key(self):
        """The repr has the ID, and no key."""
        text = repr(self.SVID)
        assert WEB in text
        assert "Key" not in text
        assert str(KEY.private_numbers().private_value) not in text
