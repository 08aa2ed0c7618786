"""secrets.py: which name stands for which secret, and for whom."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fakes.ca import FakeCa
from fakes.registrations import entry
from sojourn._pb.envoy.config.core.v3 import base_pb2 as core
from sojourn._pb.envoy.extensions.transport_sockets.tls.v3 import secret_pb2 as tls
from sojourn.endpoints.envoy.secrets import SPIFFE_VALIDATOR, SecretMaker, takes_spiffe_validator
from sojourn.errors import InvalidInput, Unavailable
from sojourn.spiffe.bundle import Bundle

OURS = FakeCa.make()
THEIRS = FakeCa.make("a.example")  # sorts before ours
WEB, DB = "spiffe://example.org/web", "spiffe://example.org/db"


class Svids:
    """Issues SVIDs for entries and remembers for which."""

    def __init__(self):
        self.of = {}

    def __call__(self, wanted):
        return self.of.setdefault(wanted.id, OURS.svid(wanted.spiffe_id.path))


@pytest.fixture
def svids():
    return Svids()


def bundle(ca):
    return Bundle(ca.trust_domain, (ca.root,))


def make(svids, *entries, federated=(), spiffe_validator=True):
    bundles = {ca.trust_domain: bundle(ca) for ca in (OURS, *federated)}
    return SecretMaker(entries, svids, bundles, OURS.trust_domain, spiffe_validator=spiffe_validator)


def names(secrets):
    return [secret.name for secret in secrets]


def trusted(secret):
    """The roots of a validation context by trust domain, in their order; '' for a plain CA."""
    context = secret.validation_context
    if context.HasField("trusted_ca"):
        assert not context.HasField("custom_validator_config")
        return [("", context.trusted_ca.inline_bytes)]
    config = tls.SPIFFECertValidatorConfig()
    assert context.custom_validator_config.typed_config.Unpack(config)
    return [(each.name, each.trust_bundle.inline_bytes) for each in config.trust_domains]


class TestCertificates:
    def test_what_one_holds(self, svids):
        """A certificate secret is the SVID's chain, leaf first, and its PKCS#8 key, both PEM and inline."""
        one = entry("/web")
        secret = make(svids, one).one(WEB)
        svid = svids.of[one.id]
        chain = x509.load_pem_x509_certificates(secret.tls_certificate.certificate_chain.inline_bytes)
        key = secret.tls_certificate.private_key.inline_bytes
        assert (WEB, list(svid.chain)) == (secret.name, chain)
        assert key.startswith(b"-----BEGIN PRIVATE KEY-----\n")
        assert svid.leaf.public_key() == load_pem_private_key(key, None).public_key()
        assert "tls_certificate" == secret.WhichOneof("type")

    def test_default(self, svids):
        """`default` is the certificate of the first identity, under that name."""
        first, second = entry("/web"), entry("/db")
        secret = make(svids, first, second).one("default")
        assert ("default", {first.id}) == (secret.name, svids.of.keys())

    def test_two_entries_of_one_id(self, svids):
        """Of two entries with one SPIFFE ID the first is served, once."""
        first, second = entry("/web", id="z"), entry("/web", id="a")
        maker = make(svids, first, second)
        assert [WEB] == names(maker.make([WEB]))
        assert [str(OURS.trust_domain.id), WEB] == names(maker.make([]))
        assert {"z"} == svids.of.keys()

    def test_only_what_is_asked_for_is_signed(self, svids):
        """Asking for one identity or for a bundle costs no signature for another identity."""
        maker = make(svids, entry("/web"), entry("/db"))
        maker.make(["ROOTCA", "ALL", DB])
        assert {entry("/db").id} == svids.of.keys()


class TestBundles:
    @pytest.mark.parametrize("name", ["ROOTCA", "spiffe://example.org"])
    def test_own(self, svids, name):
        """The own bundle has two names, and needs no identity."""
        secret = make(svids, federated=[THEIRS]).one(name)
        assert (name, "validation_context") == (secret.name, secret.WhichOneof("type"))
        assert SPIFFE_VALIDATOR == secret.validation_context.custom_validator_config.name
        assert [("example.org", bundle(OURS).x509_pem)] == trusted(secret)

    def test_all(self, svids):
        """`ALL` is every bundle that the caller may have, each under its trust domain, sorted by name."""
        secret = make(svids, federated=[THEIRS]).one("ALL")
        assert "ALL" == secret.name
        assert [("a.example", bundle(THEIRS).x509_pem), ("example.org", bundle(OURS).x509_pem)] == trusted(secret)

    def test_another_trust_domain(self, svids):
        """The bundle of a trust domain that the caller federates with goes by that trust domain's ID."""
        secret = make(svids, federated=[THEIRS]).one("spiffe://a.example")
        assert [("a.example", bundle(THEIRS).x509_pem)] == trusted(secret)
        assert make(svids).one("spiffe://a.example") is None

    @pytest.mark.parametrize("name", ["ROOTCA", "spiffe://example.org", "spiffe://a.example"])
    def test_without_the_spiffe_validator(self, svids, name):
        """For an Envoy without the SPIFFE validator a bundle is a plain trusted CA."""
        maker = make(svids, federated=[THEIRS], spiffe_validator=False)
        expected = THEIRS if "a.example" in name else OURS
        assert [("", bundle(expected).x509_pem)] == trusted(maker.one(name))

    def test_all_without_the_spiffe_validator(self, svids):
        """`ALL` is refused without the SPIFFE validator: a plain CA list would mix up the trust domains."""
        with pytest.raises(InvalidInput, match="SPIFFE validator"):
            make(svids, spiffe_validator=False).one("ALL")

    @pytest.mark.parametrize("spiffe_validator", [True, False])
    def test_a_bundle_without_roots(self, svids, spiffe_validator):
        """A bundle without X.509 roots is in no secret: an Envoy would reject it, or take it for no check at all."""
        bundles = {OURS.trust_domain: bundle(OURS), THEIRS.trust_domain: Bundle(THEIRS.trust_domain, ())}
        maker = SecretMaker([], svids, bundles, OURS.trust_domain, spiffe_validator=spiffe_validator)
        assert maker.one("spiffe://a.example") is None
        assert ["spiffe://example.org"] == names(maker.make([]))
        if spiffe_validator:
            assert ["example.org"] == [name for name, _ in trusted(maker.one("ALL"))]

    @pytest.mark.parametrize("name", ["ROOTCA", "ALL", "spiffe://example.org"])
    def test_no_root_of_ours(self, svids, name):
        """While there is no root of ours, as an upstream authority has not answered yet, no Envoy is sent a check without."""
        bundles = {OURS.trust_domain: Bundle(OURS.trust_domain, ()), THEIRS.trust_domain: bundle(THEIRS)}
        maker = SecretMaker([], svids, bundles, OURS.trust_domain, spiffe_validator=True)
        with pytest.raises(Unavailable, match="no root yet"):
            maker.one(name)


class TestMake:
    def test_no_names(self, svids):
        """Without names, or with empty ones, all bundles and all identities come, each under its SPIFFE ID."""
        maker = make(svids, entry("/web"), entry("/db"), federated=[THEIRS])
        expected = ["spiffe://a.example", "spiffe://example.org", WEB, DB]
        assert expected == names(maker.make([])) == names(maker.make(["", ""]))

    def test_no_names_and_no_identity(self, svids):
        """A caller without identity that names nothing gets the own bundle."""
        assert ["spiffe://example.org"] == names(make(svids).make([]))

    def test_order(self, svids):
        """Secrets come sorted by name, each once."""
        maker = make(svids, entry("/web"), entry("/db"))
        expected = ["ALL", "ROOTCA", "default", "spiffe://example.org", DB, WEB]
        assert expected == names(maker.make([*reversed(expected), "ROOTCA", "default", ""]))

    @pytest.mark.parametrize(
        "name",
        [
            "default",
            WEB,
            "spiffe://other.example",
            "rootca",
            "Default",
            "spiffe://example.org/",
            "SPIFFE://example.org",
            "*",
            " ",
            "example.org",
        ],
    )
    def test_what_a_stranger_may_not_have(self, svids, name):
        """A caller without identity is refused all but the own bundle, by exact names only."""
        text = f'workload is not authorized for the requested identities ["{name}"]'
        with pytest.raises(InvalidInput) as refused:
            make(svids).make(["ROOTCA", name])
        assert text == refused.value.public
        assert make(svids).one(name) is None

    def test_the_refusal_names_all_sorted(self, svids):
        """The refusal names every name that is not the caller's, sorted, and none that is."""
        with pytest.raises(InvalidInput) as refused:
            make(svids, entry("/web")).make(["z", WEB, "a", "default", "m"])
        expected = 'workload is not authorized for the requested identities ["a" "m" "z"]'
        assert expected == refused.value.public

    def test_the_refusal_is_short(self, svids):
        """However many and long the names are, the refusal's text is short."""
        with pytest.raises(InvalidInput) as refused:
            make(svids).make(f"{number}{'x' * 2_000}" for number in range(1_000))
        assert len(refused.value.public) < 5_000


def node(*version, **metadata):
    made = core.Node(id="n")
    if version:
        made.user_agent_build_version.version.major_number, made.user_agent_build_version.version.minor_number = version
    made.metadata.update(metadata)
    return made


class TestTakesSpiffeValidator:
    @pytest.mark.parametrize(
        ("version", "takes"),
        [((), True), ((0, 99), False), ((1, 17), False), ((1, 18), True), ((1, 40), True), ((2, 0), True)],
    )
    def test_version(self, version, takes):
        """Envoy takes it from 1.18; one that tells no version is taken to be new."""
        assert takes is takes_spiffe_validator(node(*version))

    def test_a_version_that_is_text(self):
        """A version without structure counts as none."""
        assert takes_spiffe_validator(core.Node(user_agent_version="1.2"))

    @pytest.mark.parametrize("value", [True, "1", "t", "T", "true", "TRUE", "True"])
    def test_switched_off(self, value):
        """The metadata key switches it off, as a truth value or as what Go reads as true."""
        assert not takes_spiffe_validator(node(1, 40, disable_spiffe_cert_validation=value))
        assert not takes_spiffe_validator(node(disable_spiffe_cert_validation=value))

    @pytest.mark.parametrize(
        "value", [False, "0", "f", "F", "false", "FALSE", "False", "", "yes", "tRUE", 1, None, ["true"]]
    )
    def test_not_switched_off(self, value):
        """Any other value leaves it to the version: it does not make an old Envoy able."""
        assert takes_spiffe_validator(node(1, 40, disable_spiffe_cert_validation=value))
        assert not takes_spiffe_validator(node(1, 17, disable_spiffe_cert_validation=value))
