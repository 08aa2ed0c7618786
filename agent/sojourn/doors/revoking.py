"""Of sojourn.v1.Admin: replacing SVIDs before their time, and revoking them."""

from typing import Final

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.doors.calls import Call, Method
from sojourn.doors.pages import Pages
from sojourn.errors import InvalidInput, NotFound, told_as
from sojourn.identity.identities import Identities
from sojourn.identity.issued import JWT, X509, Issued, IssuedSvid
from sojourn.identity.issuing import Issuing
from sojourn.identity.registry import Registry
from sojourn.identity.revocations import Revocations, RevokedSvid
from sojourn.limits import AUDITED_TEXT
from sojourn.oversight.audit import Audit
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.evidence import due_to
from sojourn.tasks.reasons import IDENTITY_REVOKED
from sojourn.tasks.task import REVOKED


class RevokingApi:
    """For operators: what was issued is replaced, or is no longer good, when the call returns."""

    def __init__(
        self,
        registry: Registry,
        identities: Identities,
        issuing: Issuing,
        issued: Issued,
        revocations: Revocations,
        engine: TaskEngine,
        audit: Audit,
    ) -> None:
        self._registry = registry
        self._identities = identities
        self._issuing = issuing
        self._issued = issued
        self._revocations = revocations
        self._engine = engine
        self._audit = audit

    def admin_methods(self) -> dict[str, Method]:
        return {
            "RotateSvids": Method("unary", pb.RotateSvidsRequest, self.rotate),
            "RevokeSvids": Method("unary", pb.RevokeSvidsRequest, self.revoke),
            "ListRevocations": Method("unary", pb.ListRevocationsRequest, self.list),
        }

    async def rotate(self, call: Call, request: pb.RotateSvidsRequest) -> pb.RotateSvidsResponse:
        which = request.WhichOneof("which")
        entry_ids: set[str] | None = None
        if which == "entry_id":
            self._check_entry(request.entry_id)
            entry_ids = {request.entry_id}
            count = await self._issuing.rotate(lambda key: key.entry_id == request.entry_id)
        elif which == "pid":
            keys = {entry.key for entry in await self._identities.of_process(request.pid)}
            if not keys:
                raise NotFound(f"process {request.pid} has no identity: see `sojourn explain --pid {request.pid}`")
            entry_ids = {key.entry_id for key in keys}
            count = await self._issuing.rotate(lambda key: key in keys)
        elif request.all:
            count = await self._issuing.rotate(lambda _: True)
        else:
            raise InvalidInput("which SVIDs must be specified: an entry, a process, or all")
        listed = sorted(entry_ids) if entry_ids is not None else None
        self._audit.note("svids_rotated", entry_ids=listed, x509_svids=count, **call.by)
        return pb.RotateSvidsResponse(rotated=count)

    async def revoke(self, call: Call, request: pb.RevokeSvidsRequest) -> pb.RevokeSvidsResponse:
        which = request.WhichOneof("which")
        value = getattr(request, which) if which else ""
        if not value:
            raise InvalidInput("which SVIDs must be specified: a serial number or jti, an entry, or a SPIFFE ID")
        if which == "svid_id":
            value = value.lower() if _is_serial(value) else value
            svids = await self._issued.find(svid_id=value)
        elif which == "entry_id":
            svids = await self._issued.find(entry_id=value)
        else:
            with told_as(InvalidInput, "invalid SPIFFE ID"):
                value = str(SpiffeId.parse(value))
            svids = await self._issued.find(spiffe_id=value)
        if not svids and which == "svid_id":
            raise NotFound("this agent issued no such SVID, or it has ended")
        if not svids and which == "entry_id":
            self._check_entry(value)
        due = due_to(self._engine, svids)
        fresh = await self._identities.revoke(svids)
        ended = sum(not task.live for task in due) + self._end_tasks(which, value)
        self._audit.note(
            "svids_revoked",
            **{which: value},
            x509_svids=[each.svid.id for each in fresh if each.svid.kind == X509],
            jwt_svids=sum(each.svid.kind == JWT for each in fresh),
            tasks=ended,
            reason=request.reason[:AUDITED_TEXT] or None,
            **call.by,
        )
        return pb.RevokeSvidsResponse(revoked=[_message(each) for each in fresh], ended_tasks=ended)

    async def list(self, _call: Call, request: pb.ListRevocationsRequest) -> pb.ListRevocationsResponse:
        page, token = _PAGES.page(self._revocations.all(), request)
        return pb.ListRevocationsResponse(revoked=page, next_page_token=token)

    def _check_entry(self, entry_id: str) -> None:
        if self._registry.get(entry_id) is None:
            raise NotFound("entry not found")

    def _end_tasks(self, which: str, value: str) -> int:
        """End the tasks of a revoked identity; one SVID that is revoked leaves the identity as it is (and takes those
        with it that are due to it).
        """
        ended = [
            task
            for task in self._engine.tasks.all()
            if (which == "entry_id" and task.entry_id == value)
            or (which == "spiffe_id" and str(task.spiffe_id) == value)
        ]
        for task in ended:
            self._engine.end(task, REVOKED, IDENTITY_REVOKED)
        return len(ended)


def _is_serial(value: str) -> bool:
    return len(value) <= 40 and all(char in "0123456789abcdefABCDEF" for char in value)


def _message(revoked: RevokedSvid) -> pb.RevokedSvid:
    svid: IssuedSvid = revoked.svid
    return pb.RevokedSvid(
        kind=svid.kind,
        id=svid.id,
        spiffe_id=svid.spiffe_id,
        entry_id=svid.entry_id,
        expires_at=svid.expires_at,
        revoked_at=revoked.revoked_at,
    )


# The last revoked first.
_PAGES: Final[Pages[RevokedSvid, pb.RevokedSvid]] = Pages(
    (int, str, str), lambda each: (-each.revoked_at, each.svid.kind, each.svid.id), _message
)
