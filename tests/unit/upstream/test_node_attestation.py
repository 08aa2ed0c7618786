"""node_attestation.py: what proves to a server which node this is."""

import json
from datetime import UTC, datetime

import grpc
import pytest
from fakes.spire_server import FakeSpireServer
from sojourn.errors import Refused, SojournError, UpstreamUnavailable
from sojourn.upstream.connection import ServerConnection
from sojourn.upstream.node_attestation import JoinToken, K8sPsat, NodeAttestor, attest


class TestK8sPsat:
    def test_what_the_server_is_told(self) -> None:
        """A server is told the cluster's name and the token, as spire-agent tells it."""
        attestor = K8sPsat("prod-1", "a.b.c")
        assert {"cluster": "prod-1", "token": "a.b.c"} == json.loads(attestor.payload)
        assert "k8s_psat" == attestor.type

    def test_a_challenge(self) -> None:
        """There is nothing in it by which a challenge could be answered."""
        with pytest.raises(Refused, match="asks more of a pod's token than there is"):
            K8sPsat("prod-1", "a.b.c").answer(b"?")

    def test_shows_no_token(self) -> None:
        """What is written of it anywhere has no token."""
        assert "a.b.c" not in repr(K8sPsat("prod-1", "a.b.c"))


class TestWhatKubernetesSays:
    """A SPIRE server tells as a fault of its own that Kubernetes does not take a token."""

    async def told(self, attestor: NodeAttestor, says: str, code: grpc.StatusCode) -> SojournError:
        async with FakeSpireServer() as server:
            server.failing, server.failing_says = code, says
            async with ServerConnection(server.address, server.bundle) as connection:
                with pytest.raises(SojournError) as caught:
                    await attest(connection, attestor, server.bundle, datetime.now(UTC))
                return caught.value

    @pytest.mark.parametrize(
        "said",
        [
            "unable to validate token with TokenReview API: token review API response contains an error: [invalid bearer token]",
            'unable to validate token with TokenReview API: token review API did not validate audience: wanted one of ["a"]',
            'fail to get pod from k8s API server: unable to query pods API: pods "a" not found',
            'fail to get node from k8s API server: unable to query nodes API: nodes "a" not found',
        ],
    )
    async def test_a_token_that_is_not_good(self, said: str) -> None:
        """That is a refusal, in the server's words: asking again at once would change nothing."""
        error = await self.told(K8sPsat("prod-1", "a.b.c"), f"nodeattestor(k8s_psat): {said}", grpc.StatusCode.INTERNAL)
        assert isinstance(error, Refused)
        assert f"the SPIRE server says: nodeattestor(k8s_psat): {said}" == error.public

    @pytest.mark.parametrize(
        ("attestor", "said", "code"),
        [
            (K8sPsat("prod-1", "a.b.c"), "unable to query token review API: timeout", grpc.StatusCode.INTERNAL),
            (K8sPsat("prod-1", "a.b.c"), "unable to query pods API: forbidden", grpc.StatusCode.INTERNAL),
            (K8sPsat("prod-1", "a.b.c"), "token review API response contains an error", grpc.StatusCode.UNAVAILABLE),
            (JoinToken("x"), "token review API response contains an error", grpc.StatusCode.INTERNAL),
        ],
    )
    async def test_a_fault_that_is_one(self, attestor: NodeAttestor, said: str, code: grpc.StatusCode) -> None:
        """A server that cannot ask Kubernetes, or does not answer, has not refused: it is asked again soon."""
        assert isinstance(await self.told(attestor, said, code), UpstreamUnavailable)
