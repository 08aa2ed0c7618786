"""Of sojourn.v1.Admin: trying a person's token, step by step."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import InvalidInput
from sojourn.people.dry_run import PersonCheck, PersonDryRun
from sojourn.runtime.clock import Clock
from sojourn.spiffe.ids import SpiffeId


class PersonChecksApi:
    """For operators."""

    def __init__(self, checking: PersonDryRun, audit: Audit, clock: Clock) -> None:
        self._checking = checking
        self._audit = audit
        self._clock = clock

    def admin_methods(self) -> dict[str, Method]:
        return {"CheckPerson": Method("stream", pb.CheckPersonRequest, self.check)}

    async def check(self, call: Call, request: pb.CheckPersonRequest) -> AsyncIterator[pb.CheckStep]:
        if not request.issuer or not request.token:
            raise InvalidInput("issuer and token must be specified")
        asked = PersonCheck(request.issuer, request.token, request.token_type, SpiffeId.parse(request.spiffe_id))
        outcome, last, began = "interrupted", "", self._clock.boot()
        try:
            async with aclosing(self._checking.steps(asked)) as steps:
                async for step in steps:
                    now = self._clock.boot()
                    outcome, last = ("failed" if step.outcome == "failed" else "interrupted"), step.name
                    yield pb.CheckStep(
                        name=step.name,
                        outcome=step.outcome,
                        told=step.told,
                        hint=step.hint,
                        milliseconds=max(0, round((now - began) * 1000)),
                    )
                    began = self._clock.boot()
            outcome = outcome if outcome == "failed" else "ok"
        finally:
            self._audit.note(
                "person_checked",
                issuer=asked.issuer[:64],
                spiffe_id=str(asked.presenter),
                outcome=outcome,
                step=last if outcome == "failed" else None,
                **call.by,
            )
