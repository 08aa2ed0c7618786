"""Envoy's secret discovery service on the wire: names, versions, nonces, pushes, refusals."""

import http.client
import os
import socket
from collections.abc import Iterator

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from fakes.ca import FakeCa
from harness.agent import AgentProcess
from harness.borrowed import wire_of
from harness.looking import until
from harness.raw import Admin, Wire, module_agent, refusal
from harness.sds import SDS, SECRET_TYPE, SecretStream, certificates, fetch, names_of, roots, secrets_of
from sojourn._pb.envoy.config.core.v3 import base_pb2 as core
from sojourn._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from sojourn._pb.google.rpc import status_pb2
from sojourn._pb.spire.api.types import types_pb2 as types

DOMAIN = "spiffe://example.org"
MINE = f"{DOMAIN}/mine"
NO_VALIDATOR = core.Node(id="old")
NO_VALIDATOR.user_agent_build_version.version.major_number = 1
NO_VALIDATOR.user_agent_build_version.version.minor_number = 17


@pytest.fixture(scope="module")
def metrics_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def agent(metrics_port: int) -> Iterator[AgentProcess]:
    """One agent for the module. Whoever runs these tests has the identity /mine there."""
    config = f'[metrics]\nlisten = "127.0.0.1:{metrics_port}"\n'
    with module_agent(config) as running:
        with Admin(running.admin_socket) as admin:
            admin.register("/mine", f"unix:uid:{os.getuid()}")
            yield running
            until(lambda: not admin.status().streams)
        assert "never retrieved" not in running.log.read_text()


@pytest.fixture(scope="module")
def wire(agent: AgentProcess) -> Iterator[Wire]:
    with Wire(agent.socket) as wire:
        yield wire


@pytest.fixture
def stranger(agent: AgentProcess, uid: int) -> Iterator[Wire]:
    """Calls of a user whom nobody has registered yet."""
    with wire_of(agent.socket, uid) as wire:
        yield wire


def set_bundle(admin: Admin, ca: FakeCa) -> None:
    """Make the agent know a foreign trust domain by its root."""
    bundle = types.Bundle(trust_domain=ca.trust_domain.name, x509_authorities=[types.X509Certificate(asn1=ca.root_der)])
    admin.know(bundle)


def unauthorized(*names: str) -> tuple[str, str]:
    listed = " ".join(f'"{name}"' for name in names)
    return "INVALID_ARGUMENT", f"workload is not authorized for the requested identities [{listed}]"


def rejections(port: int) -> float:
    """How many updates were rejected, by the agent's metrics."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return next(float(line.split()[1]) for line in lines if line.startswith("sojourn_sds_rejected_total "))


def rejected(agent: AgentProcess, reason: str) -> list[tuple[int, int]]:
    """Who rejected an update for this reason, by the agent's log."""
    lines = [line for line in agent.log_lines() if line["event"] == "sds_update_rejected" and line["reason"] == reason]
    return [(line["pid"], line["uid"]) for line in lines]


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


class TestStream:
    def test_first_answer(self, wire: Wire) -> None:
        """The first answer has version 1, a nonce of eight hex digits, and the request's type."""
        with SecretStream(wire) as stream:
            answer = stream.ask(resource_names=["default"], type_url=SECRET_TYPE)
        assert (["default"], "1", SECRET_TYPE) == (names_of(answer), answer.version_info, answer.type_url)
        assert (8, answer.nonce) == (len(answer.nonce), f"{int(answer.nonce, 16):08x}")

    def test_an_acknowledgement_is_not_answered(self, wire: Wire) -> None:
        """An ACK is not answered; changed names are, under the same version and another nonce."""
        with SecretStream(wire) as stream:
            first = stream.ask(resource_names=["default"])
            stream.about(first, "default")
            stream.about(first, "default", "ROOTCA")
            second = stream.hear()
            stream.about(second, "ROOTCA", "default", "ROOTCA")
            assert [] == stream.end()
        assert (["ROOTCA", "default"], "1") == (names_of(second), second.version_info)
        assert first.nonce != second.nonce

    def test_a_rejection(self, agent: AgentProcess, wire: Wire, metrics_port: int) -> None:
        """A NACK is counted, logged with who sent it, and not answered: Envoy keeps what it has."""
        before = rejections(metrics_port)
        with SecretStream(wire) as stream:
            first = stream.ask(resource_names=["default"])
            stream.about(first, "default", error_detail=status_pb2.Status(code=3, message="bad chain\n"))
            assert [] == stream.end()
        assert [(os.getpid(), os.getuid())] == rejected(agent, "bad chain\n")
        assert before + 1 == rejections(metrics_port)

    @pytest.mark.root
    def test_updates_go_on_after_a_rejection(self, admin: Admin, stranger: Wire, uid: int) -> None:
        """After a NACK the next change is pushed as ever."""
        with SecretStream(stranger) as stream:
            first = stream.ask()
            stream.about(first, error_detail=status_pb2.Status(code=3, message="no"))
            made = admin.register("/later", f"unix:uid:{uid}")
            second = stream.hear()
        admin.delete(made.id)
        assert ([DOMAIN, f"{DOMAIN}/later"], "2") == (names_of(second), second.version_info)

    def test_a_stale_nonce(self, agent: AgentProcess, wire: Wire) -> None:
        """A request about another answer than the last is ignored: its names and its error, too."""
        with SecretStream(wire) as stream:
            first = stream.ask(resource_names=["default"])
            stream.about(first, "ROOTCA")
            second = stream.hear()
            stream.about(first, "default", error_detail=status_pb2.Status(code=3, message="stale"))
            stream.about(first, "default", "ALL", response_nonce="")
            stream.about(second, "ROOTCA", DOMAIN)
            third = stream.hear()
            assert [] == stream.end()
        assert [["default"], ["ROOTCA"], ["ROOTCA", DOMAIN]] == [names_of(each) for each in (first, second, third)]
        assert [] == rejected(agent, "stale")

    def test_unauthorized(self, wire: Wire) -> None:
        """A name that is not the caller's ends the stream, at first and later."""
        with SecretStream(wire) as stream:
            stream.tell(resource_names=["other"])
            assert unauthorized("other") == refusal(stream.hear)
        with SecretStream(wire) as stream:
            stream.about(stream.ask(resource_names=["ROOTCA"]), "ROOTCA", "other")
            assert unauthorized("other") == refusal(stream.hear)

    def test_malformed(self, wire: Wire) -> None:
        """Bytes that are no request end the stream as an invalid argument."""
        with SecretStream(wire) as stream:
            stream.ask(resource_names=["default"])
            stream.tell_bytes(b"\xff\xff")
            assert "INVALID_ARGUMENT" == refusal(stream.hear)[0]

    def test_the_node_is_inherited(self, wire: Wire) -> None:
        """What the node of the first request can do holds for later requests without a node, and a new node replaces it."""
        with SecretStream(wire) as stream:
            first = stream.ask(resource_names=["ROOTCA"], node=NO_VALIDATOR)
            stream.about(first, DOMAIN)
            second = stream.hear()
            stream.about(second, "ROOTCA", node=core.Node(id="new"))
            third = stream.hear()
        kinds = [list(roots(secret)) for answer in (first, second, third) for secret in secrets_of(answer).values()]
        assert [[""], [""], ["example.org"]] == kinds

    @pytest.mark.root
    def test_rotation(self, admin: Admin, stranger: Wire, uid: int) -> None:
        """A renewed certificate is pushed while the old one is good, with the next version and a new nonce."""
        admin.register("/short", f"unix:uid:{uid}", x509_svid_ttl=10)
        with SecretStream(stranger) as stream, SecretStream(stranger) as bundle:
            first = stream.ask(resource_names=["default"])
            bundle.ask(resource_names=["ROOTCA"])
            stream.about(first, "default")
            second = stream.hear()
            stream.about(second, "default")
            assert [[], []] == [stream.end(), bundle.end()]
        old, new = (certificates(secrets_of(answer)["default"])[0] for answer in (first, second))
        assert ["1", "2"] == [first.version_info, second.version_info]
        assert first.nonce != second.nonce
        assert old.public_key() != new.public_key()
        assert old.not_valid_before_utc < new.not_valid_before_utc < old.not_valid_after_utc

    @pytest.mark.root
    def test_registration(self, admin: Admin, stranger: Wire, uid: int) -> None:
        """A stream without names follows registrations and deletions, one version each."""
        with SecretStream(stranger) as stream:
            answers = [stream.ask()]
            one = admin.register("/one", f"unix:uid:{uid}")
            answers.append(stream.hear())
            two = admin.register("/two", f"unix:uid:{uid}")
            answers.append(stream.hear())
            admin.delete(one.id)
            answers.append(stream.hear())
            admin.delete(two.id)
            answers.append(stream.hear())
        expected = [set(), {"/one"}, {"/one", "/two"}, {"/two"}, set()]
        assert [{DOMAIN, *(DOMAIN + path for path in paths)} for paths in expected] == [
            set(names_of(answer)) for answer in answers
        ]
        assert ["1", "2", "3", "4", "5"] == [answer.version_info for answer in answers]

    @pytest.mark.root
    def test_a_registration_that_comes_late(self, admin: Admin, stranger: Wire, uid: int) -> None:
        """Who had only the bundle can ask for a certificate on the same stream once it is registered."""
        with SecretStream(stranger) as stream:
            first = stream.ask(resource_names=["ROOTCA"])
            admin.register("/late", f"unix:uid:{uid}")
            stream.about(first, "ROOTCA", "default")
            assert ["ROOTCA", "default"] == names_of(stream.hear())

    @pytest.mark.root
    def test_deletion(self, admin: Admin, stranger: Wire, uid: int) -> None:
        """When a name stops being the caller's, its stream ends with the refusal."""
        made = admin.register("/gone", f"unix:uid:{uid}")
        with SecretStream(stranger) as stream, SecretStream(stranger) as bundle:
            stream.ask(resource_names=["default"])
            bundle.ask(resource_names=["ROOTCA"])
            admin.delete(made.id)
            assert unauthorized("default") == refusal(stream.hear)
            assert [] == bundle.end()

    @pytest.mark.root
    def test_federation(self, admin: Admin, stranger: Wire, uid: int) -> None:
        """A foreign bundle is pushed to those whose entries federate with it, apart from ours; so is its end."""
        friend = FakeCa.make("friend.example")
        with SecretStream(stranger) as named, SecretStream(stranger) as everything:
            set_bundle(admin, friend)
            first = named.ask(resource_names=["ALL"])
            everything.ask()
            made = admin.register("/friendly", f"unix:uid:{uid}", federates_with=["friend.example"])
            second = named.hear()
            all_of_them = names_of(everything.hear())
            admin.delete(made.id)
            third = named.hear()
        trusted = [roots(secrets_of(answer)["ALL"]) for answer in (first, second, third)]
        ours = trusted[0]["example.org"]
        assert [{"example.org": ours}, {"friend.example": [friend.root], "example.org": ours}] == trusted[:2]
        assert trusted[0] == trusted[2]
        assert [DOMAIN, "spiffe://friend.example", f"{DOMAIN}/friendly"] == all_of_them

    @pytest.mark.root
    def test_a_foreign_bundle_changes(self, admin: Admin, stranger: Wire, uid: int) -> None:
        """A foreign bundle that has changed is pushed."""
        before, after = (FakeCa.make("changing.example") for _ in range(2))
        set_bundle(admin, before)
        admin.register("/changing", f"unix:uid:{uid}", federates_with=["changing.example"])
        with SecretStream(stranger) as stream:
            answers = [stream.ask(resource_names=["spiffe://changing.example"])]
            set_bundle(admin, after)
            answers.append(stream.hear())
        found = [roots(secret) for answer in answers for secret in secrets_of(answer).values()]
        assert [{"changing.example": [ca.root]} for ca in (before, after)] == found

    @pytest.mark.root
    def test_other_changes_are_not_pushed(self, admin: Admin, stranger: Wire, uid: int) -> None:
        """A change that leaves a stream's secrets as they are is not pushed to it."""
        admin.register("/kept", f"unix:uid:{uid}")
        with SecretStream(stranger) as stream:
            answer = stream.ask(resource_names=[f"{DOMAIN}/kept"])
            made = admin.register("/more", f"unix:uid:{uid}")
            admin.delete(made.id)
            stream.about(answer, f"{DOMAIN}/kept")
            assert [] == stream.end()

    def test_silence(self, admin: Admin, wire: Wire) -> None:
        """A stream that asks for nothing is held and gets nothing; when the client ends it, it has ended well."""
        with SecretStream(wire) as stream:
            until(lambda: "StreamSecrets" in admin.streams_of(os.getpid()))
            assert [] == stream.end()
            assert grpc.StatusCode.OK == stream.call.code()

    def test_a_client_that_goes_away(self, admin: Admin, wire: Wire) -> None:
        """A stream whose client cancels it is not kept."""
        with SecretStream(wire) as stream, SecretStream(wire, "DeltaSecrets") as delta:
            stream.ask(resource_names=["default"])
            delta.ask(resource_names_subscribe=["default"])
            assert {"StreamSecrets", "DeltaSecrets"} <= set(admin.streams_of(os.getpid()))
        until(lambda: not set(admin.streams_of(os.getpid())))

    def test_the_agent_stops(self) -> None:
        """When the agent stops, streams end as unavailable, so that Envoy comes back."""
        with AgentProcess() as own, Wire(own.socket) as wire:
            with SecretStream(wire) as stream, SecretStream(wire, "DeltaSecrets") as delta:
                stream.ask(resource_names=["ROOTCA"])
                delta.ask(resource_names_subscribe=["ROOTCA"])
                assert 0 == own.stop()
                expected = ("UNAVAILABLE", "the agent is shutting down")
                assert [expected, expected] == [refusal(stream.hear), refusal(delta.hear)]
            assert "never retrieved" not in own.log.read_text()


class TestDelta:
    def test_subscribing(self, wire: Wire) -> None:
        """Each name that is subscribed to is answered by the secret, with a version of its own."""
        with SecretStream(wire, "DeltaSecrets") as stream:
            answer = stream.ask(resource_names_subscribe=["default", "ROOTCA"], type_url=SECRET_TYPE)
        assert (["ROOTCA", "default"], [], SECRET_TYPE) == (
            names_of(answer),
            list(answer.removed_resources),
            answer.type_url,
        )
        versions = {resource.version for resource in answer.resources}
        assert (2, "1", 8) == (len(versions), answer.system_version_info, len(answer.nonce))

    def test_acknowledgement_and_further_names(self, wire: Wire) -> None:
        """An ACK is not answered; a further name is, alone."""
        with SecretStream(wire, "DeltaSecrets") as stream:
            first = stream.ask(resource_names_subscribe=["default"])
            stream.tell(response_nonce=first.nonce)
            second = stream.ask(resource_names_subscribe=["ALL", MINE])
            stream.tell(response_nonce=second.nonce)
            assert [] == stream.end()
        assert [["default"], ["ALL", MINE]] == [names_of(answer) for answer in (first, second)]
        assert ["1", "2"] == [first.system_version_info, second.system_version_info]

    def test_a_rejection(self, agent: AgentProcess, wire: Wire, metrics_port: int) -> None:
        """A NACK is counted and logged and not answered."""
        before = rejections(metrics_port)
        with SecretStream(wire, "DeltaSecrets") as stream:
            first = stream.ask(resource_names_subscribe=["default"])
            stream.tell(response_nonce=first.nonce, error_detail=status_pb2.Status(code=3, message="bad delta"))
            assert [] == stream.end()
        assert [(os.getpid(), os.getuid())] == rejected(agent, "bad delta")
        assert before + 1 == rejections(metrics_port)

    def test_what_is_not_the_caller_s(self, wire: Wire) -> None:
        """A name that is not the caller's is said to be removed, once, and does not end the stream."""
        with SecretStream(wire, "DeltaSecrets") as stream:
            first = stream.ask(resource_names_subscribe=["other", "default"])
            second = stream.ask(resource_names_subscribe=["ROOTCA"])
        assert (["default"], ["other"]) == (names_of(first), list(first.removed_resources))
        assert (["ROOTCA"], []) == (names_of(second), list(second.removed_resources))

    def test_subscribing_again(self, wire: Wire) -> None:
        """A name that is subscribed to again is sent again, or said to be removed again."""
        with SecretStream(wire, "DeltaSecrets") as stream:
            first = stream.ask(resource_names_subscribe=["other", "default"])
            second = stream.ask(resource_names_subscribe=["other", "default"])
        for answer in (first, second):
            assert (["default"], ["other"]) == (names_of(answer), list(answer.removed_resources))
        assert first.resources == second.resources

    def test_initial_versions(self, wire: Wire) -> None:
        """A client that comes back is sent what differs from the versions that it has, and told what is gone."""
        with SecretStream(wire, "DeltaSecrets") as stream:
            answer = stream.ask(resource_names_subscribe=["default", "ROOTCA"])
            held = {resource.name: resource.version for resource in answer.resources}
        names = ["default", "ROOTCA", "other"]
        with SecretStream(wire, "DeltaSecrets") as stream:
            held = {**held, "default": "0" * 16, "other": "0" * 16}
            answer = stream.ask(resource_names_subscribe=names, initial_resource_versions=held)
            assert (["default"], ["other"]) == (names_of(answer), list(answer.removed_resources))
        with SecretStream(wire, "DeltaSecrets") as stream:
            held = {resource.name: resource.version for resource in answer.resources} | {"ROOTCA": held["ROOTCA"]}
            stream.tell(resource_names_subscribe=["default", "ROOTCA"], initial_resource_versions=held)
            assert [] == stream.end()

    def test_unsubscribing(self, wire: Wire) -> None:
        """Unsubscribing is not answered."""
        with SecretStream(wire, "DeltaSecrets") as stream:
            stream.ask(resource_names_subscribe=["default", "ROOTCA"])
            stream.tell(resource_names_unsubscribe=["default", "never"])
            assert [] == stream.end()

    @pytest.mark.root
    def test_registration_and_deletion(self, admin: Admin, stranger: Wire, uid: int) -> None:
        """A name that becomes the caller's is added, one that stops being so is removed, those unsubscribed are not told."""
        name, other = f"{DOMAIN}/delta", f"{DOMAIN}/unsubscribed"
        with SecretStream(stranger, "DeltaSecrets") as stream:
            answers = [stream.ask(resource_names_subscribe=[name, other, "ROOTCA"])]
            answers.append(stream.ask(resource_names_unsubscribe=[other], resource_names_subscribe=["ALL"]))
            for _ in range(2):
                [one, two] = [admin.register(path, f"unix:uid:{uid}") for path in ("/unsubscribed", "/delta")]
                answers.append(stream.hear())
                admin.delete(one.id, two.id)
                answers.append(stream.hear())
            assert [] == stream.end()
        told = [(names_of(answer), list(answer.removed_resources)) for answer in answers]
        assert [(["ROOTCA"], [name, other]), (["ALL"], []), *[([name], []), ([], [name])] * 2] == told
        assert ["1", "2", "3", "4", "5", "6"] == [answer.system_version_info for answer in answers]

    @pytest.mark.root
    def test_rotation(self, admin: Admin, stranger: Wire, uid: int) -> None:
        """At a rotation only the certificate is pushed, under another version."""
        admin.register("/short-delta", f"unix:uid:{uid}", x509_svid_ttl=10)
        with SecretStream(stranger, "DeltaSecrets") as stream:
            first = stream.ask(resource_names_subscribe=["default", "ROOTCA"])
            stream.tell(response_nonce=first.nonce)
            second = stream.hear()
        [old, new] = [{each.name: each.version for each in answer.resources} for answer in (first, second)]
        assert ["default"] == list(new)
        assert old["default"] != new["default"]
        old_leaf, new_leaf = (certificates(secrets_of(answer)["default"])[0] for answer in (first, second))
        assert old_leaf.public_key() != new_leaf.public_key()

    def test_the_node_is_inherited(self, wire: Wire) -> None:
        """What the node of the first request can do holds for later requests without a node."""
        with SecretStream(wire, "DeltaSecrets") as stream:
            first = stream.ask(resource_names_subscribe=["ROOTCA"], node=NO_VALIDATOR)
            second = stream.ask(resource_names_subscribe=[DOMAIN])
        kinds = [list(roots(secret)) for answer in (first, second) for secret in secrets_of(answer).values()]
        assert [[""], [""]] == kinds

    def test_nothing(self, wire: Wire) -> None:
        """A request that subscribes to nothing is not answered."""
        with SecretStream(wire, "DeltaSecrets") as stream:
            stream.tell(type_url=SECRET_TYPE)
            assert [] == stream.end()
