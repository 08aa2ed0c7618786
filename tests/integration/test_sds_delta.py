"""Incremental streams of Envoy's secret discovery service on the wire: what is subscribed to, pushed and removed."""

import os

import pytest
from harness.agent import AgentProcess
from harness.raw import Admin, Wire
from harness.sds import SECRET_TYPE, SecretStream, certificates, names_of, roots, secrets_of
from harness.sdsagent import DOMAIN, MINE, NO_VALIDATOR, agent_fixture, metrics_port_fixture, rejected, rejections  # noqa: F401 - fixtures
from sojourn._pb.google.rpc import status_pb2

pytestmark = pytest.mark.full


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
