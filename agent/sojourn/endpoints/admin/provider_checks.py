"""Of sojourn.v1.Admin: trying a provider, step by step."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.credentials.dry_run import CheckRequest, DryRun
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import InvalidInput
from sojourn.limits import ACTIONS_PER_GRANT
from sojourn.spiffe.ids import SpiffeId


class ProviderChecksApi:
    """For operators."""

    def __init__(self, checking: DryRun) -> None:
        self._checking = checking

    def admin_methods(self) -> dict[str, Method]:
        return {"CheckProvider": Method("stream", pb.CheckProviderRequest, self.check)}

    async def check(self, call: Call, request: pb.CheckProviderRequest) -> AsyncIterator[pb.CheckStep]:
        if not request.name:
            raise InvalidInput("name must be specified")
        if len(request.actions) > ACTIONS_PER_GRANT:
            raise InvalidInput(f"more than {ACTIONS_PER_GRANT} actions")
        asked = CheckRequest(
            request.name,
            SpiffeId.parse(request.spiffe_id) if request.spiffe_id else None,
            request.task_type,
            request.resource,
            tuple(request.actions),
        )
        async with aclosing(self._checking.check(asked, **call.by)) as steps:
            async for timed in steps:
                step = timed.step
                yield pb.CheckStep(
                    name=step.name,
                    outcome=step.outcome,
                    told=step.told,
                    hint=step.hint,
                    milliseconds=timed.milliseconds,
                )
