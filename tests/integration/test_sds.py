"""Envoy's secret discovery service on the wire: names, secrets, limits, refusals."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from harness.raw import Admin, Wire, refusal
from harness.sds import SDS, SECRET_TYPE, SecretStream, certificates, fetch, names_of, roots, secrets_of
from harness.sdsagent import DOMAIN, MINE, NO_VALIDATOR, agent_fixture, metrics_port_fixture, unauthorized  # noqa: F401 - fixtures
from sojourn._pb.envoy.service.discovery.v3 import discovery_pb2 as pb


class TestFetch:
    def test_certificate(self, wire: Wire) -> None:
        """A certificate secret is the caller's SVID with its key, the same that the Workload API has."""
        [svid] = wire.x509().svids
        secret = secrets_of(fetch(wire, "default"))["default"]
        leaf, issuer = certificates(secret)
        root = x509.load_der_x509_certificate(svid.bundle)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key = load_pem_private_key(secret.tls_certificate.private_key.inline_bytes, None)
        assert [MINE] == names.get_values_for_type(x509.UniformResourceIdentifier)
        assert leaf.public_key() == key.public_key()
        assert svid.x509_svid == b"".join(each.public_bytes(Encoding.DER) for each in (leaf, issuer))
        issuer.verify_directly_issued_by(root)

    def test_bundle(self, wire: Wire) -> None:
        """A bundle secret holds the roots of the trust domain for Envoy's SPIFFE validator."""
        [svid] = wire.x509().svids
        secret = secrets_of(fetch(wire, "ROOTCA"))["ROOTCA"]
        assert {"example.org": [x509.load_der_x509_certificate(svid.bundle)]} == roots(secret)
        assert "envoy.tls.cert_validator.spiffe" == secret.validation_context.custom_validator_config.name

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["default"], ["default"]),
            ([MINE], [MINE]),
            (["ROOTCA"], ["ROOTCA"]),
            (["ALL"], ["ALL"]),
            ([DOMAIN], [DOMAIN]),
            ([], [DOMAIN, MINE]),
            ([""], [DOMAIN, MINE]),
            ([MINE, "default", "ROOTCA", "ALL", DOMAIN, MINE], ["ALL", "ROOTCA", "default", DOMAIN, MINE]),
        ],
        ids=str,
    )
    def test_names(self, wire: Wire, names: list[str], expected: list[str]) -> None:
        """Each name is answered by the secret of that name; no name by all secrets under their SPIFFE IDs."""
        answer = fetch(wire, *names, type_url=SECRET_TYPE)
        assert expected == names_of(answer)
        assert (SECRET_TYPE, "", "") == (answer.type_url, answer.version_info, answer.nonce)

    @pytest.mark.parametrize("names", [["other"], ["default", "z", "a", "ROOTCA"], [f"{DOMAIN}/other"]], ids=str)
    def test_unauthorized(self, wire: Wire, names: list[str]) -> None:
        """A name that is not the caller's fails the call with SPIRE's text, which names just those, sorted."""
        beyond = sorted(set(names) - {"default", "ROOTCA"})
        assert unauthorized(*beyond) == refusal(lambda: fetch(wire, *names))

    @pytest.mark.root
    def test_unregistered(self, stranger: Wire) -> None:
        """A caller without identity gets the trust bundle, which is no secret, and no certificate."""
        assert ["ROOTCA"] == names_of(fetch(stranger, "ROOTCA"))
        assert [DOMAIN] == names_of(fetch(stranger))
        assert unauthorized("default") == refusal(lambda: fetch(stranger, "default"))
        assert unauthorized(MINE) == refusal(lambda: fetch(stranger, "ROOTCA", MINE))

    def test_an_old_envoy(self, wire: Wire) -> None:
        """An Envoy below 1.18 gets a plain CA for the bundle, and no `ALL`."""
        secret = secrets_of(fetch(wire, "ROOTCA", node=NO_VALIDATOR))["ROOTCA"]
        assert [""] == list(roots(secret))
        code, text = refusal(lambda: fetch(wire, "ALL", node=NO_VALIDATOR))
        assert ("INVALID_ARGUMENT", True) == (code, 'unable to use "SPIFFE validator"' in text)

    def test_type(self, wire: Wire) -> None:
        """The answer's type is the request's, and that of a secret if the request names none."""
        assert ["x", SECRET_TYPE] == [fetch(wire, "ROOTCA", type_url=name).type_url for name in ("x", "")]

    @pytest.mark.parametrize("metadata", [(), (("workload.spiffe.io", "false"),), (("x-envoy-internal", "true"),)])
    def test_security_header(self, wire: Wire, metadata: tuple[tuple[str, str], ...]) -> None:
        """SDS does not ask for the Workload API's security header: Envoy cannot send it."""
        request = pb.DiscoveryRequest(resource_names=["default"])
        answer = wire.unary(SDS + "FetchSecrets", request, pb.DiscoveryResponse, metadata=metadata)
        assert ["default"] == names_of(answer)

    @pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x1a\x02\xff\xfe"])
    def test_malformed(self, wire: Wire, data: bytes) -> None:
        """Bytes that are no request are an invalid argument."""
        assert "INVALID_ARGUMENT" == refusal(lambda: wire.unary(SDS + "FetchSecrets", data, metadata=()))[0]

    def test_administration_has_none(self, admin: Admin) -> None:
        """The admin socket hands out no secrets."""
        assert "UNIMPLEMENTED" == refusal(lambda: fetch(admin, "default"))[0]


class TestLimits:
    def test_names_of_a_fetch(self, wire: Wire) -> None:
        """A fetch of more names than a stream may have is refused without a look at them."""
        names = [f"n{number}" for number in range(1_001)]
        expected = ("INVALID_ARGUMENT", "more than 1000 resource names")
        assert expected == refusal(lambda: fetch(wire, *names))

    def test_names_of_a_stream(self, wire: Wire) -> None:
        """A stream that asks for too many names is ended, however they come."""
        expected = ("INVALID_ARGUMENT", "more than 1000 resource names")
        with SecretStream(wire) as stream:
            stream.tell(resource_names=[f"n{number}" for number in range(1_001)])
            assert expected == refusal(stream.hear)
        with SecretStream(wire, "DeltaSecrets") as stream:
            first = stream.ask(resource_names_subscribe=[f"n{number}" for number in range(600)])
            assert 600 == len(first.removed_resources)
            stream.tell(resource_names_subscribe=[f"m{number}" for number in range(401)])
            assert expected == refusal(stream.hear)

    def test_a_long_name(self, wire: Wire) -> None:
        """A name that is longer than a SPIFFE ID can be is refused."""
        expected = ("INVALID_ARGUMENT", "a resource name is longer than 2048 characters")
        assert expected == refusal(lambda: fetch(wire, "x" * 2_049))
        assert unauthorized("x" * 200) == refusal(lambda: fetch(wire, "x" * 2_048))

    def test_a_large_message(self, wire: Wire) -> None:
        """A message over the limit exhausts a resource, and the next call is served."""
        code, _ = refusal(lambda: fetch(wire, *["x" * 1_000_000] * 5))
        assert "RESOURCE_EXHAUSTED" == code
        assert ["default"] == names_of(fetch(wire, "default"))
