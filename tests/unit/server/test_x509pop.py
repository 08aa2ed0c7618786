"""x509pop.py: who has the key of a certificate that the operator's authority has signed is that node, and nobody else."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fakes.clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidConfig, InvalidInput, Refused, SojournError
from sojourn.server.node_attestor import Attested
from sojourn.server.x509pop import X509Pop
from sojourn.spiffe.ids import TrustDomain
from sojourn.upstream.node_attestation import X509Pop as Shown

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DOMAIN = TrustDomain("example.org")
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
CA = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP384R1())


def certificate(
    subject: str,
    key: Any,
    issuer: str = "machines",
    signer: Any = CA,
    *,
    ca: bool = False,
    signs: bool = True,
    uris: tuple[str, ...] = (),
    begins: datetime = NOW - timedelta(days=1),
    ends: datetime = NOW + timedelta(days=1),
    serial: int = 0x0ABC,
) -> x509.Certificate:
    usage = x509.KeyUsage(signs and not ca, False, not signs, False, False, ca, ca, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(usage, critical=True)
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(each) for each in uris])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())


ROOT = certificate("machines", CA, ca=True)


@pytest.fixture
def pop() -> X509Pop:
    return X509Pop([ROOT], DOMAIN, FakeClock(NOW))


async def attest(pop: X509Pop, shown: Shown, change: Callable[[Any], Any] = lambda answer: answer) -> Attested:
    """As an agent does it; `change` makes its answer another one."""

    async def challenge(content: bytes) -> bytes:
        return json.dumps(change(json.loads(shown.answer(content)))).encode()

    return await pop.attest(shown.payload, challenge)


async def unasked(_: bytes) -> bytes:
    raise AssertionError("nothing is asked of who has shown nothing good")


class TestWhoIsOne:
    @pytest.mark.parametrize("key", [RSA, EC], ids=["rsa", "ec"])
    async def test_by_its_key(self, pop: X509Pop, key: Key) -> None:
        """A node is known by the fingerprint of its certificate, and has selectors of what that says, as at SPIRE."""
        uris = ("x509pop://example.org/env/prod/eu", "x509pop://other.example/env/test", "https://example.org/")
        leaf = certificate("machine-7", key, uris=uris)
        attested = await attest(pop, Shown((leaf,), key))
        print_ = hashlib.sha1(leaf.public_bytes(Encoding.DER)).hexdigest()
        root = hashlib.sha1(ROOT.public_bytes(Encoding.DER)).hexdigest()
        assert f"spiffe://example.org/spire/agent/x509pop/{print_}" == str(attested.spiffe_id)
        assert attested.reattestable
        assert {
            "x509pop:subject:cn:machine-7",
            "x509pop:serialnumber:0abc",
            f"x509pop:ca:fingerprint:{root}",
            "x509pop:san:env:prod/eu",
        } == {str(each) for each in attested.selectors}

    async def test_below_an_intermediate(self, pop: X509Pop) -> None:
        """Intermediates that it shows lead from its certificate to an authority, and each is a selector."""
        middle_key = ec.generate_private_key(ec.SECP256R1())
        middle = certificate("middle", middle_key, ca=True)
        leaf = certificate("machine-7", EC, "middle", middle_key)
        attested = await attest(pop, Shown((leaf, middle), EC))
        assert 2 == sum("ca:fingerprint" in str(each) for each in attested.selectors)
        with pytest.raises(Refused, match="certificate verification failed"):
            await pop.attest(Shown((leaf,), EC).payload, unasked)


class TestWhoIsNone:
    @pytest.mark.parametrize(
        ("leaf", "said"),
        [
            (certificate("a", EC, "machines", EC), "certificate verification failed"),
            (certificate("a", EC, ends=NOW - timedelta(seconds=1)), "certificate verification failed"),
            (certificate("a", EC, begins=NOW + timedelta(hours=1)), "certificate verification failed"),
            (certificate("a", EC, signs=False), "not intended for digital signature"),
            (certificate("a", ed25519.Ed25519PrivateKey.generate()), "unsupported public key type"),
        ],
        ids=["of another authority", "expired", "not yet", "for no signatures", "of another kind of key"],
    )
    async def test_by_its_certificate(self, pop: X509Pop, leaf: x509.Certificate, said: str) -> None:
        """A certificate that is not good is nobody's, before anything is asked."""
        with pytest.raises((Refused, InvalidInput), match=said):
            await pop.attest(Shown((leaf,), EC).payload, unasked)

    async def test_below_a_machine(self, pop: X509Pop) -> None:
        """A machine is no authority: what it signs is no node's certificate."""
        machine = certificate("machine-7", EC)
        leaf = certificate("machine-8", RSA, "machine-7", EC)
        with pytest.raises(Refused, match="certificate verification failed"):
            await pop.attest(Shown((leaf, machine), RSA).payload, unasked)

    @pytest.mark.parametrize("key", [RSA, EC], ids=["rsa", "ec"])
    async def test_without_the_key(self, pop: X509Pop, key: Key) -> None:
        """Who has a copy of a certificate, and another key, is not that node."""
        other = rsa.generate_private_key(65537, 2048) if key is RSA else ec.generate_private_key(ec.SECP384R1())
        with pytest.raises(Refused, match="challenge response verification failed"):
            await attest(pop, Shown((certificate("machine-7", key),), other))

    async def test_an_answer_of_before(self, pop: X509Pop) -> None:
        """What proved it once proves nothing again: each challenge is another one."""
        shown = Shown((certificate("machine-7", EC),), EC)
        heard: list[bytes] = []

        async def listening(content: bytes) -> bytes:
            heard.append(shown.answer(content))
            return heard[0]

        await pop.attest(shown.payload, listening)
        with pytest.raises(Refused, match="challenge response verification failed"):
            await pop.attest(shown.payload, listening)

    @pytest.mark.parametrize(
        "change",
        [
            lambda answer: {"ecdsa_signature": {**answer["ecdsa_signature"], "nonce": b64encode(b"short").decode()}},
            lambda answer: {"ecdsa_signature": {**answer["ecdsa_signature"], "r": ""}},
            lambda answer: {"ecdsa_signature": {**answer["ecdsa_signature"], "s": "!"}},
            lambda answer: {"rsa_signature": answer["ecdsa_signature"]},
            lambda answer: {"ecdsa_signature": None},
            lambda answer: [answer],
        ],
    )
    async def test_by_its_answer(self, pop: X509Pop, change: Callable[[Any], Any]) -> None:
        """An answer that is not a whole one is refused."""
        with pytest.raises((Refused, InvalidInput), match="challenge response"):
            await attest(pop, Shown((certificate("machine-7", EC),), EC), change)

    @pytest.mark.parametrize(
        ("payload", "said"),
        [
            (b"", "failed to unmarshal data"),
            (b"[]", "failed to unmarshal data"),
            (b'{"certificates":[]}', "no certificate to attest"),
            (b'{"certificates":["AA=="]}', "unable to parse leaf certificate"),
            (b'{"certificates":[1]}', "unable to parse leaf certificate"),
            (b'{"certificates":["a","a","a","a","a","a"]}', "too many intermediate certificates"),
            (b"[" * 100_000, "failed to unmarshal data"),
            (b" " * 300_000, "too large"),
        ],
    )
    async def test_by_what_it_shows(self, pop: X509Pop, payload: bytes, said: str) -> None:
        """What cannot be read is told in SPIRE's words."""
        with pytest.raises(InvalidInput, match=said):
            await pop.attest(payload, unasked)

    @given(payload=st.binary(max_size=300), answer=st.binary(max_size=300))
    async def test_whatever_comes(self, payload: bytes, answer: bytes) -> None:
        """Whatever is shown and answered, nobody joins by it, and no error but ours comes of it."""
        pop = X509Pop([ROOT], DOMAIN, FakeClock(NOW))

        async def challenge(_: bytes) -> bytes:
            return answer

        for shown in (payload, Shown((certificate("machine-7", EC),), EC).payload):
            with pytest.raises(SojournError):
                await pop.attest(shown, challenge)


class TestFiles:
    def test_a_file(self, tmp_path: Path) -> None:
        """The authorities are those of a PEM file."""
        path = tmp_path / "ca.pem"
        path.write_bytes(ROOT.public_bytes(Encoding.PEM))
        path.chmod(0o600)
        assert isinstance(X509Pop.of_file(path, DOMAIN, FakeClock()), X509Pop)

    @pytest.mark.parametrize("content", [None, b"", b"no PEM"])
    def test_no_good_file(self, tmp_path: Path, content: bytes | None) -> None:
        """A file without certificates, or none, is told with its key in the configuration."""
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o600)
        with pytest.raises(InvalidConfig, match=r"node_attestors\.x509pop\.ca"):
            X509Pop.of_file(path, DOMAIN, FakeClock())

    def test_one_that_others_can_write(self, tmp_path: Path) -> None:
        """Who may write the authorities' file decides who is a node: so others may not."""
        path = tmp_path / "ca.pem"
        path.write_bytes(ROOT.public_bytes(Encoding.PEM))
        path.chmod(0o666)
        with pytest.raises(InvalidConfig, match="written by others"):
            X509Pop.of_file(path, DOMAIN, FakeClock())
