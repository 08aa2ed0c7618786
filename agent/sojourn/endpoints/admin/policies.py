"""Of sojourn.v1.Admin: the task types that are in force, why they answer as they do, and a candidate beside them."""

import asyncio
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.endpoints.api.task_messages import grant_messages
from sojourn.endpoints.api.workload import seconds
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import InvalidInput
from sojourn.limits import OUTCOMES_TOLD
from sojourn.policy.asked_task import read_texts
from sojourn.policy.asked_user import read_user
from sojourn.policy.cedar_schema import some_task
from sojourn.policy.conditions import conditions
from sojourn.policy.explanation import explain
from sojourn.policy.questions import Question
from sojourn.policy.task_types import TaskType
from sojourn.tasks.approval import Approvals
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.people_names import PeopleNames
from sojourn.tasks.policy_reload import END, KEEP, NARROW, Consequence
from sojourn.tasks.recertification import Recertification
from sojourn.tasks.type_folder import TypeFolder
from sojourn.tasks.type_sets import Policies
from sojourn.tasktoken.grants import Authority, Grant

_WORST_FIRST: Final = (END, NARROW, KEEP)


class PolicyApi:
    """For operators."""

    def __init__(
        self,
        engine: TaskEngine,
        approving: Approvals,
        policies: Policies,
        names: PeopleNames,
        recertifying: Recertification,
    ) -> None:
        self._recertifying = recertifying
        self._names = names
        self._engine = engine
        self._approving = approving
        self._policies = policies

    def admin_methods(self) -> dict[str, Method]:
        return {
            "ReloadPolicy": Method("unary", pb.ReloadPolicyRequest, self.reload),
            "ExplainPolicy": Method("unary", pb.ExplainPolicyRequest, self.explain),
            "SetShadowPolicy": Method("unary", pb.SetShadowPolicyRequest, self.set_shadow),
            "GetShadowReport": Method("unary", pb.GetShadowReportRequest, self.report),
        }

    async def reload(self, call: Call, request: pb.ReloadPolicyRequest) -> pb.ReloadPolicyResponse:
        before = self._engine.types
        if request.folder and not (request.dry_run and os.path.isabs(request.folder)):
            raise InvalidInput("folder is for dry_run, and must be an absolute path")
        if request.dry_run:
            types = await self._policies.folder.read(Path(request.folder) if request.folder else None)
            found = self._policies.reloading.consequences(types)
        else:
            found = await self._policies.folder.reload(**call.by, by_login_uid=call.peer.process.login_uid())
            await self._engine.audit.recorded()
            types = self._policies.folder.types
        found = sorted(found, key=lambda each: _WORST_FIRST.index(each.outcome))
        return pb.ReloadPolicyResponse(
            digest=types.digest,
            digest_before=before.digest,
            consequences=map(_consequence, found[:OUTCOMES_TOLD]),
            left_out=max(0, len(found) - OUTCOMES_TOLD),
            review_blocked=self._recertifying.newly_blocked(types, before),
        )

    async def explain(self, _call: Call, request: pb.ExplainPolicyRequest) -> pb.ExplainPolicyResponse:
        kind = self._engine.type_named(request.type)
        whose = self._names.find(request.user.name) if request.HasField("user") else ""
        known = self._engine.known(kind, request.workload, {}, *filter(None, [whose]))
        given = kind.read_facts(request.facts)
        said = read_texts(request.task)
        _check_limited(kind, said["uses"])
        user = None
        if request.HasField("user"):
            of = request.user
            user = read_user(kind, of.name, of.groups, of.acr, of.amr, of.auth_age, of.claims)
        question = Question(
            some_task(kind.name, request.workload, user=user, **said),
            request.action,
            request.resource,
            dict(request.params),
            facts={**{name: fact.value for name, fact in known.facts.items()}, **given},
            absent=known.absent,
        )
        in_force = {name: fact for name, fact in known.facts.items() if name not in given}
        found = await asyncio.to_thread(explain, kind, question, in_force)
        rule = self._approving.rule(kind)
        due_ms = self._recertifying.due_ms(kind)
        overdue = self._recertifying.is_overdue(kind)
        return pb.ExplainPolicyResponse(
            type=found.type,
            digest=found.digest,
            allowed=found.allowed,
            rule=found.rule,
            reason=found.reason,
            policies=found.policies,
            attributes=found.attributes,
            standings=[
                pb.PolicyStanding(
                    id=each.id, effect=each.effect, line=each.line, applies=each.applies, misses=each.misses
                )
                for each in found.standings
            ],
            changes=[pb.PolicyChange(what=each.what, allowed=each.allowed) for each in found.changes],
            needs_approval=found.needs_approval or (found.allowed and rule is not None and rule.when is None),
            conditions=pb.TypeConditions(**asdict(conditions(kind, rule, (due_ms or 0) // 1_000, overdue=overdue))),
        )

    async def set_shadow(self, call: Call, request: pb.SetShadowPolicyRequest) -> pb.SetShadowPolicyResponse:
        if request.off:
            if request.folder:
                raise InvalidInput("folder and off exclude each other")
            await self._policies.drop_candidate(**call.by)
            await self._engine.audit.recorded()
            return pb.SetShadowPolicyResponse()
        if not os.path.isabs(request.folder):
            raise InvalidInput("folder must be an absolute path")
        candidate = await self._policies.try_candidate(Path(request.folder), **call.by)
        await self._engine.audit.recorded()
        return pb.SetShadowPolicyResponse(shadow=policy_set(candidate))

    async def report(self, _call: Call, _request: pb.GetShadowReportRequest) -> pb.GetShadowReportResponse:
        shadow, folder = self._engine.shadow, self._policies.candidate
        if shadow is None or folder is None:
            return pb.GetShadowReportResponse()
        return pb.GetShadowReportResponse(
            shadow=policy_set(folder),
            compared=shadow.compared,
            errors=shadow.errors,
            beyond=shadow.beyond,
            differences=[
                pb.ShadowDifference(
                    type=each.type,
                    spiffe_id=each.spiffe_id,
                    action=each.action,
                    resource=each.resource,
                    allowed=each.allowed,
                    policies=each.policies,
                    candidate_allows=each.candidate_allows,
                    candidate_rule=each.candidate_rule,
                    candidate_policies=each.candidate_policies,
                    count=seen.count,
                    first_at=seconds(seen.first_at),
                    last_at=seconds(seen.last_at),
                )
                for each, seen in shadow.differences.items()
            ],
        )


def _check_limited(kind: TaskType, uses: Iterable[tuple[str, int]]) -> None:
    """Raise InvalidInput for uses of an action that the type does not limit."""
    for action, _ in uses:
        if action not in kind.limits:
            raise InvalidInput(f"task type {kind.name!r} does not limit action {action[:64]!r}")


def policy_set(folder: TypeFolder) -> pb.PolicySet:
    return pb.PolicySet(
        folder=str(folder.folder),
        digest=folder.types.digest if folder.loaded_at is not None else "",
        task_types=len(folder.types),
        loaded_at=seconds(folder.loaded_at),
        fault=folder.fault,
        origin=folder.origin,
        accepted_at=seconds(folder.accepted_at),
        without=folder.without,
    )


def _consequence(each: Consequence) -> pb.PolicyConsequence:
    lost = Authority.of(Grant(resource, (action,)) for resource, action in each.lost)
    return pb.PolicyConsequence(
        task_id=each.task.id,
        type=each.task.type.name,
        spiffe_id=str(each.task.spiffe_id),
        outcome=each.outcome,
        lost=grant_messages(lost),
        why=each.why,
    )
