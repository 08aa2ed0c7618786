"""Tokens of tasks and their proofs: `GetToken` and `CreateProof` of `sojourn.v1.Tasks`."""

from collections.abc import Sequence
from typing import Unpack

from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.errors import InvalidInput
from sojourn.limits import PROVIDER_DEADLINE_SECONDS
from sojourn.sdk.client.connection import AgentConnection
from sojourn.sdk.task import acting
from sojourn.sdk.task.values import AccessToken, TokenOptions

_TASKS = "/sojourn.v1.Tasks/"
AGENT = "agent"


async def get(
    connection: AgentConnection,
    task_id: str,
    resource: str,
    actions: str | Sequence[str],
    **options: Unpack[TokenOptions],
) -> AccessToken:
    """See Client.get_token."""
    request = tasks_pb2.GetTokenRequest(
        task_id=task_id,
        resource=resource,
        actions=[actions] if isinstance(actions, str) else list(actions),
        params_digest=options.get("params_digest", ""),
        expect_person=acting.expected(options.get("expect_person", "")),
    )
    bound, proof, certificate = options.get("bound"), options.get("dpop_proof", ""), options.get("certificate", b"")
    if sum(map(bool, (bound, proof, certificate))) > 1:
        raise InvalidInput("a token is bound to one thing: give bound, dpop_proof or certificate, not several")
    if bound not in {None, AGENT}:
        raise InvalidInput(f"bound is {AGENT!r} or None, not {bound!r}")
    if bound:
        request.agent_key = True
    elif proof:
        request.dpop_proof = proof
    elif certificate:
        request.certificate = certificate
    seconds = connection.deadline_seconds + PROVIDER_DEADLINE_SECONDS  # it may be a provider outside that gives it
    return AccessToken.of(await connection.unary(_TASKS + "GetToken", request, tasks_pb2.GetTokenResponse, seconds))


async def prove(
    connection: AgentConnection, task_id: str, method: str, url: str, token: AccessToken | str, nonce: str | None
) -> str:
    """See Client.create_proof."""
    text = token.token if isinstance(token, AccessToken) else token
    request = tasks_pb2.CreateProofRequest(
        task_id=task_id,
        method=method,
        url=url,
        access_token=text,
        nonce=nonce or "",
        expect_person=acting.expected(),
    )
    return (await connection.unary(_TASKS + "CreateProof", request, tasks_pb2.CreateProofResponse)).proof
