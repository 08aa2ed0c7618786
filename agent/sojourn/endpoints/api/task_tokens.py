"""The tokens of tasks, in sojourn.v1.Tasks on the public socket."""

from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.credentials.token_source import TaskTokenSource
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.identity.identities import Identities
from sojourn.oauth.token_binding import TokenBindings
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.people import check_expected
from sojourn.tasks.reattachment import Reattachment
from sojourn.tasks.task import Task
from sojourn.tasktoken.sender_constraint import Binding


class TaskTokensApi:
    """Get tokens, and proofs for those that are bound to a key in the agent."""

    def __init__(
        self,
        engine: TaskEngine,
        giving: TaskTokenSource,
        attaching: Reattachment,
        identities: Identities,
        proving: TokenBindings,
    ) -> None:
        self._engine = engine
        self._giving = giving
        self._attaching = attaching
        self._identities = identities
        self._proving = proving

    def methods(self) -> dict[str, Method]:
        return {
            "GetToken": Method("unary", pb.GetTokenRequest, self.get_token, long=self._waits),
            "CreateProof": Method("unary", pb.CreateProofRequest, self.create_proof),
        }

    def _waits(self, request: pb.GetTokenRequest) -> bool:
        """Whether a provider may have to be asked, which may be slow."""
        task = self._engine.tasks.find(request.task_id)
        return task is not None and self._giving.is_outside(task, request.resource)

    async def get_token(self, call: Call, request: pb.GetTokenRequest) -> pb.GetTokenResponse:
        task = await self._task(call, request)
        self._engine.check_active(task)  # before a proof is used up for nothing
        bound = request.WhichOneof("binding") is not None
        self._giving.check_offered(task, request.resource, bound=bound, params_digest=request.params_digest)
        given = await self._giving.give(
            task,
            request.resource,
            tuple(request.actions),
            binding=self._binding(call, task, request),
            agent_key=request.agent_key,
            params_digest=request.params_digest,
        )
        return pb.GetTokenResponse(
            access_token=given.token,
            token_type=given.token_type,
            expires_at=int(given.expires_at.timestamp()),
            resource=given.resource,
            actions=given.actions,
            issued_token_type=given.issued_type,
            provider=given.provider,
            recall=given.recall,
        )

    def _binding(self, call: Call, task: Task, request: pb.GetTokenRequest) -> Binding | None:
        kind = request.WhichOneof("binding")
        if kind == "dpop_proof":
            return self._proving.by_proof(request.dpop_proof, call.peer.who)
        if kind == "certificate":
            return self._proving.by_certificate(task, request.certificate)
        return None

    async def create_proof(self, call: Call, request: pb.CreateProofRequest) -> pb.CreateProofResponse:
        task = await self._task(call, request)
        proof = self._proving.prove(task, request.method, request.url, request.access_token, request.nonce)
        return pb.CreateProofResponse(proof=proof)

    async def _task(self, call: Call, request: pb.GetTokenRequest | pb.CreateProofRequest) -> Task:
        entries = await self._identities.of(call.peer)
        task = await self._attaching.of_caller(call.peer, entries, request.task_id)
        check_expected(task, request.expect_person)
        return task
