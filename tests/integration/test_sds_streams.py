"""Streams of Envoy's secret discovery service on the wire: versions, nonces, pushes, refusals."""

import os

import grpc
import pytest
from fakes.ca import FakeCa
from harness.agent import AgentProcess
from harness.looking import until
from harness.raw import Admin, Wire, refusal
from harness.sds import SECRET_TYPE, SecretStream, certificates, names_of, roots, secrets_of
from harness.sdsagent import (  # noqa: F401 - fixtures
    DOMAIN,
    NO_VALIDATOR,
    agent_fixture,
    metrics_port_fixture,
    rejected,
    rejections,
    unauthorized,
)
from sojourn._pb.envoy.config.core.v3 import base_pb2 as core
from sojourn._pb.google.rpc import status_pb2
from sojourn._pb.spire.api.types import types_pb2 as types

pytestmark = pytest.mark.full


def set_bundle(admin: Admin, ca: FakeCa) -> None:
    """Make the agent know a foreign trust domain by its root."""
    bundle = types.Bundle(trust_domain=ca.trust_domain.name, x509_authorities=[types.X509Certificate(asn1=ca.root_der)])
    admin.know(bundle)


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
