"""Asking for bound tokens and proofs, against an agent that a test sets."""

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from fakes.ca import FakeCa
from fakes.fake_agent import Fail, ScriptedAgent
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.errors import InvalidInput, NoIdentity, SojournError
from sojourn.errors.oauth import BindingNeeded, DigestNeeded, InvalidProof, NonceNeeded
from sojourn.errors.people import PersonNotNamed, WrongPerson
from sojourn.sdk.client.client import Client
from sojourn.sdk.client.x509_source import Present
from sojourn.sdk.task.acting import acting_for
from sojourn.sdk.task.mtls_tokens import CertificateTokens
from sojourn.sdk.task.values import AccessToken, TaskPerson
from sojourn.spiffe.x509svid import DER
from sojourn.tasktoken.sender_constraint import thumbprint_of
from sojourn.workloadapi.messages import X509Context, X509SvidWithHint

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RESOURCE = "https://tickets.example.org"


class TestAsking:
    @pytest.mark.parametrize(
        ("options", "binding", "value"),
        [
            ({}, None, None),
            ({"bound": None}, None, None),
            ({"bound": "agent"}, "agent_key", True),
            ({"dpop_proof": "p"}, "dpop_proof", "p"),
            ({"certificate": b"c"}, "certificate", b"c"),
            ({"bound": "agent", "params_digest": "d"}, "agent_key", True),
        ],
    )
    async def test_what_is_asked(
        self, agent: ScriptedAgent, client: Client, options: dict[str, Any], binding: str | None, value: object
    ) -> None:
        """Each option asks for what it says, and nothing else."""
        agent.answers["GetToken"] = pb.GetTokenResponse(access_token="t", token_type="DPoP", resource=RESOURCE)
        token = await client.get_token("t1", RESOURCE, "ticket:read", **options)
        ((_, request),) = agent.requests
        assert (binding, ["ticket:read"]) == (request.WhichOneof("binding"), list(request.actions))
        assert binding is None or getattr(request, binding) == value
        assert options.get("params_digest", "") == request.params_digest
        assert ("DPoP", "DPoP t") == (token.token_type, token.header)

    @pytest.mark.parametrize(
        "options",
        [
            {"bound": "agent", "dpop_proof": "p"},
            {"dpop_proof": "p", "certificate": b"c"},
            {"bound": "agent", "certificate": b"c"},
            {"bound": "client"},
            {"bound": True},
        ],
    )
    async def test_what_cannot_be(self, agent: ScriptedAgent, client: Client, options: dict[str, Any]) -> None:
        """Two bindings, or one that there is not, are refused here."""
        with pytest.raises(InvalidInput):
            await client.get_token("t1", RESOURCE, **options)
        assert [] == agent.requests

    async def test_an_agent_that_names_no_type(self, agent: ScriptedAgent, client: Client) -> None:
        """A token of an agent that says nothing of its type is a bearer token."""
        agent.answers["GetToken"] = pb.GetTokenResponse(access_token="t")
        assert "Bearer t" == (await client.get_token("t1")).header

    async def test_proof(self, agent: ScriptedAgent, client: Client) -> None:
        """A proof is asked for with the request and the token that it goes with, as text or as had."""
        agent.answers["CreateProof"] = pb.CreateProofResponse(proof="p")
        for token in ("t", AccessToken("t", RESOURCE, (), NOW)):
            assert "p" == await client.create_proof("t1", "PUT", "https://a/b", token, nonce="n")
            said = agent.requests[-1][1]
            assert ("t1", "PUT", "https://a/b", "t", "n") == (
                *(getattr(said, name) for name in ("task_id", "method", "url", "access_token", "nonce")),
            )
        await client.create_proof("t1", "GET", "https://a", "t")
        assert "" == agent.requests[-1][1].nonce


class TestRefusals:
    @pytest.mark.parametrize("kind", [BindingNeeded, DigestNeeded, InvalidProof])
    async def test_kinds(self, agent: ScriptedAgent, client: Client, kind: type[SojournError]) -> None:
        """What the agent refuses is the same error here."""
        agent.answers["GetToken"] = Fail(grpc.StatusCode.INVALID_ARGUMENT, "because", kind.code)
        with pytest.raises(kind, match="because") as caught:
            await client.get_token("t1")
        assert kind is type(caught.value)

    async def test_a_nonce_that_is_not_there(self, agent: ScriptedAgent, client: Client) -> None:
        """An agent that wants a nonce and names none still is understood."""
        agent.answers["GetToken"] = Fail(grpc.StatusCode.INVALID_ARGUMENT, "nonce", NonceNeeded.code)
        with pytest.raises(NonceNeeded) as caught:
            await client.get_token("t1", dpop_proof="p")
        assert "" == caught.value.nonce


class FakeTask:
    """Gives tokens that end in a minute, or with what they were asked for."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.person: TaskPerson | None = None

    async def token(self, resource: str = "", actions: Any = (), **options: Any) -> AccessToken:
        self.asked.append(options["certificate"])
        return AccessToken(f"t{len(self.asked)}", resource, tuple(actions), NOW + timedelta(seconds=60))


class FakeSource:
    """A source whose SVID a test sets."""

    def __init__(self, ca: FakeCa) -> None:
        self._ca = ca
        self.present = Present(0, None)

    def rotate(self) -> bytes:
        svid = self._ca.svid()
        hinted = X509SvidWithHint(svid.spiffe_id, svid.chain, svid.key)
        self.present = Present(
            self.present.version + 1, X509Context((hinted,), {self._ca.trust_domain: (self._ca.root,)})
        )
        return svid.leaf.public_bytes(DER)

    def again(self) -> None:
        """Something else than the SVID has changed, as a bundle."""
        self.present = Present(self.present.version + 1, self.present.context)


class TestCertificateTokens:
    @pytest.fixture
    def source(self, ca: FakeCa) -> FakeSource:
        return FakeSource(ca)

    async def test_one_for_each_svid(self, source: FakeSource) -> None:
        """A token is kept while its SVID is the present one, and had again for the next."""
        first, task = source.rotate(), FakeTask()
        tokens = CertificateTokens(task, source, now=lambda: NOW)  # type: ignore[arg-type]
        assert ["t1", "t1"] == [(await tokens.get(RESOURCE)).token.token for _ in range(2)]
        source.again()
        again = await tokens.get(RESOURCE)
        assert ("t1", source.present) == (again.token.token, again.present)
        second = source.rotate()
        bound = await tokens.get(RESOURCE)
        assert ("t2", [first, second]) == (bound.token.token, task.asked)
        assert bound.present.context is not None
        assert thumbprint_of(second) == thumbprint_of(bound.present.context.default.leaf.public_bytes(DER))

    async def test_before_it_ends(self, source: FakeSource) -> None:
        """A token that is about to end is had again, and so is one that is not wanted any more."""
        source.rotate()
        now, task = [NOW], FakeTask()
        tokens = CertificateTokens(task, source, now=lambda: now[0])  # type: ignore[arg-type]
        await tokens.get(RESOURCE)
        now[0] += timedelta(seconds=57)
        assert "t1" == (await tokens.get(RESOURCE)).token.token
        now[0] += timedelta(seconds=1)
        assert "t2" == (await tokens.get(RESOURCE)).token.token
        assert "t3" == (await tokens.get(RESOURCE, anew=True)).token.token

    async def test_each_resource_has_its_own(self, source: FakeSource) -> None:
        """Tokens for different resources and actions are different, and no more are kept than is said."""
        source.rotate()
        task = FakeTask()
        tokens = CertificateTokens(task, source, now=lambda: NOW)  # type: ignore[arg-type]
        found = {(await tokens.get(RESOURCE, [f"a{number}"])).token.token for number in range(150)}
        assert (150, 100) == (len(found), len(tokens._kept))

    async def test_for_nobody_but_its_person(self, source: FakeSource) -> None:
        """A token that is kept for the task of one person is not used for a request of another, nor for nobody's where
        the process may have tasks for several.
        """
        source.rotate()
        task = FakeTask()
        task.person = TaskPerson("corp", "alice", None, "", NOW, "https://kc.example.org", several=True)
        tokens = CertificateTokens(task, source, now=lambda: NOW)  # type: ignore[arg-type]
        for _ in range(2):
            with acting_for("corp|alice"):
                assert "t1" == (await tokens.get(RESOURCE)).token.token
        with pytest.raises(WrongPerson), acting_for("corp|bob"):
            await tokens.get(RESOURCE)
        with pytest.raises(PersonNotNamed):
            await tokens.get(RESOURCE)
        assert 1 == len(task.asked)

    async def test_without_an_svid(self, source: FakeSource) -> None:
        """Without an SVID there is no token."""
        task = FakeTask()
        with pytest.raises(NoIdentity):
            await CertificateTokens(task, source).get(RESOURCE)  # type: ignore[arg-type]
        assert [] == task.asked


def test_a_token_is_not_shown() -> None:
    """The repr of a token hides it."""
    assert "secret" not in repr(AccessToken("secret", RESOURCE, (), NOW, "DPoP"))
