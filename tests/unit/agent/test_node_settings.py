"""node_settings.py: the files of a node are read as they are, and what is wrong with one is said with its name."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.registrations import TRUST_DOMAIN
from sojourn.agent.node_settings import attestor_of, read_bundle, settings_of
from sojourn.config.upstream import UpstreamConfig
from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.upstream.node_attestation import JoinToken, K8sPsat, X509Pop


def said(folder, **more):
    keys = {"attestor": "join_token", "token_file": str(folder / "token"), **more}
    fixed = {"kind": "spire", "servers": ["a:1"], "bundle": str(folder / "bundle")}
    return UpstreamConfig.model_validate({**fixed, **{name: each for name, each in keys.items() if each is not None}})


def certificate_of(key):
    name, now = x509.Name([]), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(hours=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


class TestBundle:
    def test_both_forms(self, tmp_path):
        """A bundle is read as PEM, and as SPIFFE's document with its JWT keys."""
        bundle = authority_in(tmp_path / "keys", FakeClock()).bundle
        (tmp_path / "pem").write_bytes(bundle.x509_pem)
        (tmp_path / "json").write_text(json.dumps(bundle.document()))
        assert bundle.x509_authorities == read_bundle(tmp_path / "pem", TRUST_DOMAIN).x509_authorities
        assert bundle.document() == read_bundle(tmp_path / "json", TRUST_DOMAIN).document()

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "neither certificates in PEM nor"),
            ("{", "it is not JSON"),
            ("{}", "there is no list of keys"),
            ('{"keys": []}', "it has no X.509 authority"),
        ],
    )
    def test_what_is_no_bundle(self, tmp_path, text, why):
        """Whatever else is there is refused, with the file's name."""
        (tmp_path / "bundle").write_text(text)
        with pytest.raises(InvalidInput, match=why) as refused:
            read_bundle(tmp_path / "bundle", TRUST_DOMAIN)
        assert str(tmp_path / "bundle") in refused.value.public

    def test_a_configuration_without(self, tmp_path):
        """A node whose bundle is not there does not start, and says which key names it."""
        with pytest.raises(InvalidConfig, match=r"upstream\.bundle: .*cannot be read"):
            settings_of(said(tmp_path), TRUST_DOMAIN, tmp_path)


class TestAttestors:
    def test_a_token(self, tmp_path):
        """A token is what stands in its file, read each time."""
        (tmp_path / "token").write_text("abc-1\n")
        made = attestor_of(said(tmp_path))
        assert JoinToken("abc-1") == made()
        (tmp_path / "token").write_text("abc-2")
        assert JoinToken("abc-2") == made()

    @pytest.mark.parametrize("text", ["", "\n", "two words", "näh"])
    def test_no_token(self, tmp_path, text):
        """A file with anything else is refused, before a server hears of it."""
        (tmp_path / "token").write_text(text)
        with pytest.raises(InvalidInput, match="has no token, or more"):
            attestor_of(said(tmp_path))()

    def test_a_pod_s_token(self, tmp_path):
        """A pod's token is what stands in its file, which the kubelet renews, read each time."""
        (tmp_path / "token").write_text("eyJh.b-1.c_1\n")
        made = attestor_of(said(tmp_path, attestor="k8s_psat", cluster="prod"))
        assert K8sPsat("prod", "eyJh.b-1.c_1") == made()
        (tmp_path / "token").write_text("eyJh.b-2.c_2")
        assert K8sPsat("prod", "eyJh.b-2.c_2") == made()

    def test_where_a_pod_s_token_is(self, tmp_path):
        """Where no file is named it is the one that manifests of spire-agent mount."""
        made = attestor_of(said(tmp_path, attestor="k8s_psat", cluster="prod", token_file=None))
        with pytest.raises(InvalidInput, match="/var/run/secrets/tokens/spire-agent"):
            made()

    @pytest.mark.parametrize("text", ["", "\n", "join-token", "a.b", "a.b.c.d", "a.b.c d", "a..c", "n.ä.h"])
    def test_no_pod_s_token(self, tmp_path, text):
        """A file with anything else is refused, with its name and not with what it has, before a server hears of it."""
        (tmp_path / "token").write_text(text)
        with pytest.raises(InvalidInput, match="not the token of a service account") as refused:
            attestor_of(said(tmp_path, attestor="k8s_psat", cluster="prod"))()
        assert str(tmp_path / "token") in refused.value.public
        assert not text.strip() or text not in refused.value.public.replace(str(tmp_path), "")

    def test_a_certificate(self, tmp_path):
        """A machine's certificate and its key are read each time that the node attests."""
        key = ec.generate_private_key(ec.SECP256R1())
        (tmp_path / "c").write_bytes(certificate_of(key))
        private(tmp_path / "k", key)
        made = attestor_of(by_certificate(tmp_path))()
        assert isinstance(made, X509Pop)
        assert key.public_key() == made.chain[0].public_key()

    def test_another_key(self, tmp_path):
        """A key that is not the certificate's is refused, with the file's name, before a server hears of it."""
        (tmp_path / "c").write_bytes(certificate_of(ec.generate_private_key(ec.SECP256R1())))
        private(tmp_path / "k", ec.generate_private_key(ec.SECP256R1()))
        with pytest.raises(InvalidInput, match="it is not that of the certificate") as refused:
            attestor_of(by_certificate(tmp_path))()
        assert str(tmp_path / "k") in refused.value.public


def private(file, key):
    file.touch(0o600)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def by_certificate(folder):
    return said(folder, attestor="x509pop", token_file=None, certificate=str(folder / "c"), key=str(folder / "k"))
