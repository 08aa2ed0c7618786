"""Of sojourn.v1.Admin: replacing SVIDs before their time, and revoking them."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit, Event
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.pages import Pages
from sojourn.errors import InvalidInput, NotFound, told_as
from sojourn.errors.oauth import NotOnDisk
from sojourn.identity.identities import Identities
from sojourn.identity.issued_svids import JWT, X509, IssuedSvids
from sojourn.identity.registry import Registry
from sojourn.identity.revocation_list import ENTRY, NAME, RevokedIdentity, RevokedSvid
from sojourn.identity.revocations import Revocations
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.limits import AUDITED_TEXT, ENTRY_ID_MAX_BYTES, PAGE_BYTES, REVOCATIONS_LISTED, REVOKED_TOLD
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.mass_end import MassEnd
from sojourn.tasks.revoked_svids import due_to, end_due_to, end_of


class RevokingApi:
    """For operators: what was issued is replaced, or is no longer good, when the call returns."""

    def __init__(
        self,
        registry: Registry,
        identities: Identities,
        issuing: SvidIssuer,
        issued: IssuedSvids,
        revocations: Revocations,
        engine: TaskEngine,
        ending: MassEnd,
        audit: Audit,
    ) -> None:
        self._registry = registry
        self._identities = identities
        self._issuing = issuing
        self._issued = issued
        self._revocations = revocations
        self._engine = engine
        self._ending = ending
        self._audit = audit
        # The last revoked first.
        self._pages: Pages[RevokedSvid, pb.RevokedSvid] = Pages(
            (int, str, str), lambda each: (-each.revoked_at, each.svid.kind, each.svid.id), self._message
        )

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
        await self._audit.commit("svids_rotated", entry_ids=listed, x509_svids=count, **call.by)
        return pb.RotateSvidsResponse(rotated=count)

    async def revoke(self, call: Call, request: pb.RevokeSvidsRequest) -> pb.RevokeSvidsResponse:
        which = request.WhichOneof("which")
        value = getattr(request, which) if which else ""
        if not value:
            raise InvalidInput("which SVIDs must be specified: a serial number or jti, an entry, or a SPIFFE ID")
        said = {"reason": request.reason[:AUDITED_TEXT] or None, **call.by}
        if which == "svid_id":
            return await self._revoke_one(value.lower() if _is_serial(value) else value, said)
        if which == "entry_id":
            if len(value) > ENTRY_ID_MAX_BYTES:
                raise InvalidInput(f"the entry's ID is longer than {ENTRY_ID_MAX_BYTES} characters")
            return await self._revoke_all(ENTRY, value, said)
        with told_as(InvalidInput, "invalid SPIFFE ID"):
            value = str(SpiffeId.parse(value))
        return await self._revoke_all(NAME, value, said)

    async def _revoke_one(self, value: str, said: Mapping[str, Any]) -> pb.RevokeSvidsResponse:
        """One SVID: the tasks that are due to it end with it, and its identity stays as it is."""
        svids = await self._issued.find(svid_id=value)
        if not svids:
            raise NotFound("this agent issued no such SVID, or it has ended")
        due = due_to(self._engine, svids)
        event = self._audit.event(
            "svids_revoked",
            {
                "svid_id": value,
                "x509_svids": [each.id for each in svids if each.kind == X509],
                "jwt_svids": sum(each.kind == JWT for each in svids),
                "tasks": len(due),
                **said,
            },
        )
        fresh = await self._identities.revoke(svids, [event])
        await self._on_disk()
        return pb.RevokeSvidsResponse(revoked=map(self._message, fresh), ended_tasks=len(due))

    async def _revoke_all(self, kind: str, name: str, said: Mapping[str, Any]) -> pb.RevokeSvidsResponse:
        """All that an identity was given so far. What is taken away is so before anything is awaited: first its tasks,
        whatever becomes of the list. So it is written, too: no kill in between has it revoked while its tasks go on.
        """
        if kind == NAME:
            registered = bool(self._registry.registered(SpiffeId.parse(name)))
        else:
            registered = self._registry.get(name) is not None
        identity = self._revocations.next_identity(kind, name)
        ended = end_of(self._ending, identity)
        self._identities.revoke_identity(identity)

        def event(revoked: RevokedIdentity) -> Event:
            known = self._revocations.of_identity(revoked)
            due = due_to(self._engine, [each.svid for each in known])  # to which no mark has led
            end_due_to(self._ending, [each.svid for each in known])
            ended.extend(due)
            fields = {
                kind: name,
                "x509_svids": [each.svid.id for each in known[:REVOKED_TOLD]],
                "x509_svids_listed": revoked.x509_svids,
                "x509_svids_left_out": revoked.left_out or None,
                "tasks": len(ended),
            }
            return self._audit.event("svids_revoked", {**fields, **said})

        with suppress(NotOnDisk):  # it is asked for again
            await self._on_disk()
        revoked = await self._revocations.settle(
            identity, lambda: self._issued.find(**{kind: name, "kind": X509}), event
        )
        await self._on_disk()
        known = self._revocations.of_identity(revoked)[:REVOKED_TOLD]
        return pb.RevokeSvidsResponse(
            revoked=map(self._message, known),
            ended_tasks=len(ended),
            identity=self._identity_message(revoked),
            unknown=not (registered or ended or revoked.x509_svids or revoked.left_out),
        )

    async def _on_disk(self) -> None:
        """Return when the ends of tasks are on disk, also of those that an earlier call has ended. Raise NotOnDisk."""
        await self._ending.quiet()
        for task_id in self._engine.journal.waiting:
            if not self._engine.tasks.is_live(task_id):
                await self._engine.journal.told(task_id)

    async def list(self, _call: Call, request: pb.ListRevocationsRequest) -> pb.ListRevocationsResponse:
        page, token = self._pages.page(self._revocations.svids(), request)
        answer = pb.ListRevocationsResponse(revoked=page, next_page_token=token)
        if not request.page_token:
            identities, room = self._revocations.identities(), PAGE_BYTES
            for message in map(self._identity_message, identities[:REVOCATIONS_LISTED]):
                room -= message.ByteSize()
                if room < 0:
                    break
                answer.identities.append(message)
            answer.left_out = len(identities) - len(answer.identities)
        return answer

    def _check_entry(self, entry_id: str) -> None:
        if self._registry.get(entry_id) is None:
            raise NotFound("entry not found")

    def _message(self, revoked: RevokedSvid) -> pb.RevokedSvid:
        svid = revoked.svid
        return pb.RevokedSvid(
            kind=svid.kind,
            id=svid.id,
            spiffe_id=svid.spiffe_id,
            entry_id=svid.entry_id,
            expires_at=svid.expires_at,
            revoked_at=revoked.revoked_at,
            written=self._revocations.is_written(revoked),
        )

    def _identity_message(self, revoked: RevokedIdentity) -> pb.RevokedIdentity:
        return pb.RevokedIdentity(
            **{revoked.kind: revoked.name},
            revoked_at=revoked.revoked_at,
            x509_svids=revoked.x509_svids,
            left_out=revoked.left_out,
            written=self._revocations.is_written(revoked),
        )


def _is_serial(value: str) -> bool:
    return len(value) <= 40 and all(char in "0123456789abcdefABCDEF" for char in value)
