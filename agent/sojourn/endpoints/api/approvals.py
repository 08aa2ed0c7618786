"""Approvals and reviews: sojourn.v1.Approvals for workloads, and the same of sojourn.v1.Admin for operators."""

from datetime import datetime
from typing import Final

from prometheus_client import Counter

from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn._pb.sojourn.v1 import approvals_pb2 as pb
from sojourn.attestation.peer import Peer
from sojourn.endpoints.api.task_messages import TaskMessages, grant_messages
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.pages import Pages, cut
from sojourn.errors import InvalidInput
from sojourn.identity.identities import Identities
from sojourn.limits import AUDITED_TEXT, REVIEW_FINDING_MAX
from sojourn.policy.approval_request import ApprovalRequest, Approver, Person
from sojourn.policy.params import text_of
from sojourn.tasks.approval import Approvals
from sojourn.tasks.break_glass_reviews import Review
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.requester import person_at
from sojourn.tasks.task import Task

SERVICE = "sojourn.v1.Approvals"
BREAK_GLASS = Counter("sojourn_break_glass_total", "Break-glass tasks that became active, by type.", ["type"])
_NO_LOGIN = -1
_Verdict = pb.DecideApprovalRequest


class ApprovalsApi:
    """See and decide. Nothing is granted here that policy denies, and nobody decides their own."""

    def __init__(self, engine: TaskEngine, approving: Approvals, identities: Identities, message: TaskMessages) -> None:
        self._engine = engine
        self._message = message
        self._approving = approving
        self._identities = identities
        approving.on_break_glass(lambda task: BREAK_GLASS.labels(task.type.name).inc())

    def methods(self) -> dict[str, Method]:
        """For workloads."""
        return {
            "ListApprovals": Method("unary", pb.ListApprovalsRequest, self.list_as_workload),
            "DecideApproval": Method("unary", pb.DecideApprovalRequest, self.decide_as_workload),
        }

    def admin_methods(self) -> dict[str, Method]:
        """For operators."""
        return {
            "ListApprovals": Method("unary", pb.ListApprovalsRequest, self.list),
            "DecideApproval": Method("unary", pb.DecideApprovalRequest, self.decide),
            "ListReviews": Method("unary", admin_pb2.ListReviewsRequest, self.list_reviews),
            "CompleteReview": Method("unary", admin_pb2.CompleteReviewRequest, self.complete_review),
        }

    async def list(self, _call: Call, request: pb.ListApprovalsRequest) -> pb.ListApprovalsResponse:
        return _listed(self._engine.waiting.all(), request)

    async def list_as_workload(self, call: Call, request: pb.ListApprovalsRequest) -> pb.ListApprovalsResponse:
        return _listed(self._approving.visible_to(await self._workload(call.peer)), request)

    async def decide(self, call: Call, request: pb.DecideApprovalRequest) -> pb.DecideApprovalResponse:
        return await self._decide(person_at(call.peer), request, operator=True)

    async def decide_as_workload(self, call: Call, request: pb.DecideApprovalRequest) -> pb.DecideApprovalResponse:
        return await self._decide(await self._workload(call.peer), request, operator=False)

    async def _decide(
        self, person: Person, request: pb.DecideApprovalRequest, *, operator: bool
    ) -> pb.DecideApprovalResponse:
        if not request.approval_id or not request.digest:
            raise InvalidInput("approval_id and the digest of the request that was looked at must be specified")
        if request.verdict == _Verdict.VERDICT_APPROVE:
            decide = self._approving.approve
        elif request.verdict == _Verdict.VERDICT_DENY:
            decide = self._approving.deny
        else:
            raise InvalidInput("verdict must be approve or deny")
        reason = request.reason[:AUDITED_TEXT]
        task = await decide(request.approval_id, request.digest, person, operator=operator, reason=reason)
        return pb.DecideApprovalResponse(task=self._message(task))

    async def _workload(self, peer: Peer) -> Person:
        entries = await self._identities.of(peer)
        return person_at(peer, frozenset(str(entry.spiffe_id) for entry in entries))

    async def list_reviews(self, _call: Call, _request: admin_pb2.ListReviewsRequest) -> admin_pb2.ListReviewsResponse:
        return admin_pb2.ListReviewsResponse(reviews=reviews(self._engine, self._approving))

    async def complete_review(
        self, call: Call, request: admin_pb2.CompleteReviewRequest
    ) -> admin_pb2.CompleteReviewResponse:
        if not request.task_id or not request.finding.strip():
            raise InvalidInput("task_id and a finding must be specified")
        if len(request.finding) > REVIEW_FINDING_MAX:
            raise InvalidInput(f"finding is longer than {REVIEW_FINDING_MAX} characters")
        await self._approving.complete_review(request.task_id, request.finding, person_at(call.peer))
        return admin_pb2.CompleteReviewResponse()


def reviews(engine: TaskEngine, approving: Approvals) -> list[admin_pb2.Review]:
    """Those that are owed."""
    return [_review(engine, each) for each in approving.reviews.all()]


def _review(engine: TaskEngine, review: Review) -> admin_pb2.Review:
    task = engine.tasks.find(review.task_id)
    return admin_pb2.Review(
        task_id=review.task_id,
        type=review.type,
        spiffe_id=review.spiffe_id,
        since=review.since,
        uid=review.uid,
        login_uid=_NO_LOGIN if review.login_uid is None else review.login_uid,
        live=task is not None and task.live,
    )


def _listed(tasks: "list[Task]", asked: pb.ListApprovalsRequest) -> pb.ListApprovalsResponse:
    """One request whole, or a page of all: no requester keeps an approver from seeing the others."""
    if asked.approval_id:
        found = (task for task in tasks if _request(task).id == asked.approval_id)
        return pb.ListApprovalsResponse(approvals=map(_approval, found))
    page, token = _PAGES.page(tasks, asked)
    return pb.ListApprovalsResponse(approvals=page, next_page_token=token)


def _request(task: Task) -> ApprovalRequest:
    assert task.approval is not None
    return task.approval.request


def _short(task: Task) -> pb.Approval:
    """With what the requester may have made long cut."""
    made = _approval(task)
    for name, text in sorted(made.params.items()):
        if len(text) > len(short := cut(text)):
            made.params[name] = short
            made.cut.append(name)
    return made


def _approval(task: Task) -> pb.Approval:
    assert task.approval is not None
    request = task.approval.request
    return pb.Approval(
        id=request.id,
        digest=request.digest,
        task_id=task.id,
        type=task.type.name,
        description=task.type.description,
        spiffe_id=str(task.spiffe_id),
        params={name: text_of(value) for name, value in task.params.items()},
        grants=grant_messages(request.grants),
        approvers=request.approvers,
        needed=request.count,
        given=[_approver(each) for each in task.approval.given],
        requester=_approver(Approver(request.requester, "")),
        program=request.program,
        holder_pid=task.holder.pid,
        holder_program=request.holder_program,
        asked_at=int(request.asked_at.timestamp()),
        expires_at=int(request.expires_at.timestamp()),
        life_seconds=int(request.life_seconds),
        break_glass=task.type.break_glass,
        consequence=task.type.consequence,
        when=request.when,
        person=task.person.name if task.person is not None else "",
    )


def _approver(approver: Approver) -> pb.Approver:
    person = approver.person
    login_uid = _NO_LOGIN if person.login_uid is None else person.login_uid
    return pb.Approver(uid=person.uid, login_uid=login_uid, pid=person.pid, role=approver.role)


_PAGES: Final[Pages[Task, pb.Approval]] = Pages(
    (datetime, str), lambda task: (_request(task).asked_at, _request(task).id), _short
)
