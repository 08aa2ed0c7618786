"""The keys that sign, from prepared to revoked, on the admin socket: by SPIRE's local authority API, and by ours."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from sojourn._pb.sojourn.v1 import admin_pb2 as admin
from sojourn._pb.spire.api.server.localauthority.v1 import localauthority_pb2 as pb
from sojourn.audit.journal import Audit
from sojourn.authority.embedded_ca import JWT, WIT, X509, EmbeddedAuthority
from sojourn.authority.key_rotation import Slot
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import FailedPrecondition, InvalidInput
from sojourn.identity.svid_issuer import SvidIssuer

SERVICE = "spire.api.server.localauthority.v1.LocalAuthority"
_NAMES = {X509: "X509", JWT: "JWT", WIT: "WIT"}


class LocalAuthorityApi:
    """The same five calls for each kind of key. Every change is audited."""

    def __init__(self, authority: EmbeddedAuthority, issuing: SvidIssuer, audit: Audit) -> None:
        self._authority = authority
        self._issuing = issuing
        self._audit = audit

    def methods(self) -> dict[str, Method]:
        made: dict[str, Method] = {}
        for kind, name in _NAMES.items():
            made[f"Get{name}AuthorityState"] = self._method(f"Get{name}AuthorityState", partial(self._state, kind))
            made[f"Prepare{name}Authority"] = self._method(f"Prepare{name}Authority", partial(self._prepare, kind))
            made[f"Activate{name}Authority"] = self._method(f"Activate{name}Authority", partial(self._activate, kind))
            made[f"Taint{name}Authority"] = self._method(f"Taint{name}Authority", partial(self._taint, kind))
            made[f"Revoke{name}Authority"] = self._method(f"Revoke{name}Authority", partial(self._revoke, kind))
        for method in ("TaintX509UpstreamAuthority", "RevokeX509UpstreamAuthority"):
            made[method] = self._method(method, self._upstream)
        return made

    def admin_methods(self) -> dict[str, Method]:
        return {"ChangeAuthorityKey": Method("unary", admin.ChangeAuthorityKeyRequest, self.change)}

    async def change(self, call: Call, request: admin.ChangeAuthorityKeyRequest) -> admin.AuthorityKey:
        """One step of any kind of key."""
        kind, authority_id = request.kind, request.authority_id
        if request.step == "prepare":
            slot = self._authority.prepare(kind)
            await self._note(call, kind, "prepared", slot)
        elif request.step == "activate":
            slot = self._authority.activate(kind, authority_id)
            await self._note(call, kind, "activated", slot)
        elif request.step == "taint":
            before = self._authority.slots(kind).active
            slot = self._authority.replace(kind, authority_id)
            signs = self._authority.slots(kind).active
            await self._tainted(kind, call, slot, activated=signs if before.id == slot.id else None)
        elif request.step == "revoke":
            slot = await self._revoked(kind, call, authority_id)
        else:
            raise InvalidInput("step is none of prepare, activate, taint and revoke")
        return key_message(kind, slot)

    def _method(self, name: str, answer: Callable[[Call, Any, Any], Awaitable[None]]) -> Method:
        async def handle(call: Call, request: Any) -> Any:
            response = getattr(pb, f"{name}Response")()
            await answer(call, request, response)
            return response

        return Method("unary", getattr(pb, f"{name}Request"), handle)

    async def _state(self, kind: str, _call: Call, _request: Any, response: Any) -> None:
        slots = self._authority.slots(kind)
        response.active.CopyFrom(_message(slots.active))
        if slots.prepared is not None:
            response.prepared.CopyFrom(_message(slots.prepared))
        if slots.old:
            response.old.CopyFrom(_message(slots.old[-1]))

    async def _prepare(self, kind: str, call: Call, _request: Any, response: Any) -> None:
        slot = self._authority.prepare(kind)
        await self._note(call, kind, "prepared", slot)
        response.prepared_authority.CopyFrom(_message(slot))

    async def _activate(self, kind: str, call: Call, request: Any, response: Any) -> None:
        slot = self._authority.activate(kind, request.authority_id)
        await self._note(call, kind, "activated", slot)
        response.activated_authority.CopyFrom(_message(slot))

    async def _taint(self, kind: str, call: Call, request: Any, response: Any) -> None:
        slot = self._authority.taint(kind, request.authority_id)
        await self._tainted(kind, call, slot)
        response.tainted_authority.CopyFrom(_message(slot))

    async def _tainted(self, kind: str, call: Call, slot: Slot[Any], *, activated: Slot[Any] | None = None) -> None:
        await self._issuing.replace_signed_by(kind, slot.id)  # first: it is recorded whatever becomes of the disk
        self._audit.note("authority_tainted", kind=kind, authority_id=slot.id, **call.by)
        if activated is not None:
            self._audit.note("authority_activated", kind=kind, authority_id=activated.id, **call.by)
        await self._audit.recorded()

    async def _revoke(self, kind: str, call: Call, request: Any, response: Any) -> None:
        response.revoked_authority.CopyFrom(_message(await self._revoked(kind, call, request.authority_id)))

    async def _revoked(self, kind: str, call: Call, authority_id: str) -> Slot[Any]:
        if authority_id in self._authority.slots(kind).tainted:
            await self._issuing.replace_signed_by(kind, authority_id)  # another's taint may be under way
        slot = self._authority.revoke(kind, authority_id)
        await self._note(call, kind, "revoked", slot)
        return slot

    async def _upstream(self, _call: Call, _request: Any, _response: Any) -> None:
        raise FailedPrecondition("upstream authority is not configured")

    async def _note(self, call: Call, kind: str, done: str, slot: Slot[Any]) -> None:
        await self._audit.commit(f"authority_{done}", kind=kind, authority_id=slot.id, **call.by)


def _message(slot: Slot[Any]) -> pb.AuthorityState:
    return pb.AuthorityState(authority_id=slot.id, expires_at=int(slot.not_after.timestamp()))


def key_message(kind: str, slot: Slot[Any]) -> admin.AuthorityKey:
    return admin.AuthorityKey(
        kind=kind,
        authority_id=slot.id,
        status=slot.status,
        tainted=slot.tainted,
        created_at=int(slot.created.timestamp()),
        not_after=int(slot.not_after.timestamp()),
    )
