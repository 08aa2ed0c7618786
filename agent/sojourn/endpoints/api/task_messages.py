"""Tasks and what belongs to them, as messages; and what messages ask of tasks, as our values."""

from collections.abc import Iterable

from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.credentials.provider_routes import ProviderRoutes
from sojourn.endpoints.grpc.pages import cut
from sojourn.tasks.kept_fields import told_of
from sojourn.tasks.task import Task
from sojourn.tasktoken.grants import Authority, Grant


class TaskMessages:
    """Tells of tasks, and of the outlets that their credentials come from."""

    def __init__(self, outlets: ProviderRoutes) -> None:
        self._outlets = outlets

    def __call__(self, task: Task) -> pb.Task:
        made = pb.Task(
            id=task.id,
            type=task.type.name,
            state=task.state,
            reason=task.reason,
            explanation=task.explanation,
            version=task.version,
            holder_pid=task.holder.pid,
            uses=[pb.Use(**row) for row in task.usage()],
            depth=task.depth,
            actors=map(str, task.actors),
            approval=_approval(task),
            outside=[
                pb.Outside(resource=resource, provider=outlet.name, kind=outlet.provider.kind, details=details)
                for resource, outlet, details in self._outlets.described(task)
            ],
            **told_of(task),
        )
        if task.person is not None:
            made.person.several = task.type.person is None or task.type.person.several
        return made


def shorten(made: "pb.Task") -> None:
    """Cut what a workload may have made long, for a list: its parameters. Which, the message says."""
    for name, text in sorted(made.params.items()):
        if len(text) > len(short := cut(text)):
            made.params[name] = short
            made.cut.append(name)


def brief(task: Task) -> pb.Task:
    """What became of a task, and nothing of what it may do."""
    return pb.Task(
        id=task.id,
        type=task.type.name,
        spiffe_id=str(task.spiffe_id),
        state=task.state,
        reason=task.reason,
        explanation=task.explanation,
        version=task.version,
        created_at=int(task.created_at.timestamp()),
        expires_at=int(task.expires_at.timestamp()),
    )


def _approval(task: Task) -> pb.TaskApproval | None:
    if task.approval is None:
        return None
    request = task.approval.request
    return pb.TaskApproval(
        approval_id=request.id,
        expires_at=int(request.expires_at.timestamp()),
        digest=request.digest,
        approvers=request.approvers,
        needed=request.count,
        given=len(task.approval.given),
        denial=task.approval.denial,
    )


def grant_messages(authority: Authority) -> list[pb.Grant]:
    return [pb.Grant(resource=grant.resource, actions=grant.actions) for grant in authority.grants]


def authority_of(grants: Iterable[pb.Grant]) -> Authority:
    """Raise InvalidInput if a grant is none."""
    return Authority.of(Grant.parse(grant.resource, grant.actions) for grant in grants)
