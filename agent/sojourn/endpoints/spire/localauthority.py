"""The keys that sign, from prepared to revoked, on the admin socket: by SPIRE's local authority API, and by ours."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from sojourn._pb.sojourn.v1 import admin_pb2 as admin
from sojourn._pb.spire.api.server.localauthority.v1 import localauthority_pb2 as pb
from sojourn.audit.journal import Audit
from sojourn.authority.embedded_ca import JWT, WIT
from sojourn.authority.key_rotation import Slot, Slots
from sojourn.authority.key_steps import X509
from sojourn.authority.root_tests import RootTest
from sojourn.authority.roots import TokenRoot
from sojourn.authority.upstream import UpstreamHealth
from sojourn.authority.upstream_roots import UpstreamRoots
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import FailedPrecondition, InvalidInput
from sojourn.identity.svid_issuer import SvidIssuer

SERVICE = "spire.api.server.localauthority.v1.LocalAuthority"
UPSTREAM = "upstream"  # the kind of a root that is not the agent's own, in the journal
_NAMES = {X509: "X509", JWT: "JWT", WIT: "WIT"}


class LocalAuthorities(Protocol):
    """The keys that sign here, by their kind."""

    def slots(self, kind: str) -> Slots[Any]:
        """The keys of one kind. Raise Unimplemented if this agent has none of it."""

    @property
    def upstream(self) -> UpstreamHealth | None:
        """The authority that signs the intermediate instead of a root of the agent's own; None: there is none."""

    @property
    def upstream_roots(self) -> UpstreamRoots:
        """Those of the authority that signs the intermediate instead of a root of the agent's own."""

    async def prepare_waited(self, kind: str) -> Slot[Any]: ...
    async def activate(self, kind: str, authority_id: str) -> Slot[Any]: ...
    async def try_roots(self) -> tuple[RootTest, ...]: ...
    def taint(self, kind: str, authority_id: str) -> Slot[Any]: ...
    def replace(self, kind: str, authority_id: str) -> Slot[Any]: ...
    def revoke(self, kind: str, authority_id: str) -> Slot[Any]: ...


class LocalAuthorityApi:
    """The same five calls for each kind of key. Every change is audited."""

    def __init__(self, authority: LocalAuthorities, issuing: SvidIssuer, audit: Audit) -> None:
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
        made["TaintX509UpstreamAuthority"] = self._method("TaintX509UpstreamAuthority", self._taint_upstream)
        made["RevokeX509UpstreamAuthority"] = self._method("RevokeX509UpstreamAuthority", self._revoke_upstream)
        return made

    def admin_methods(self) -> dict[str, Method]:
        return {
            "ChangeAuthorityKey": Method("unary", admin.ChangeAuthorityKeyRequest, self.change),
            "TestRoots": Method("unary", admin.TestRootsRequest, self.try_roots),
        }

    async def try_roots(self, _call: Call, _request: admin.TestRootsRequest) -> admin.TestRootsResponse:
        """Whether each root's key signs. Those in a token are journaled, as all that these sign is."""
        return admin.TestRootsResponse(
            roots=[
                admin.RootTest(
                    authority_id=each.authority_id,
                    status=each.status,
                    key=each.place,
                    seconds=each.seconds,
                    fault=each.fault,
                    code=each.code,
                )
                for each in await self._authority.try_roots()
            ]
        )

    async def change(self, call: Call, request: admin.ChangeAuthorityKeyRequest) -> admin.AuthorityKey:
        """One step of any kind of key."""
        kind, authority_id = request.kind, request.authority_id
        if kind == X509 and self._authority.upstream_roots.has(authority_id):
            return await self._change_upstream(call, request.step, authority_id)
        if request.step == "prepare":
            slot = await self._authority.prepare_waited(kind)
            await self._note(call, kind, "prepared", slot)
        elif request.step == "activate":
            slot = await self._authority.activate(kind, authority_id)
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
        slot = await self._authority.prepare_waited(kind)
        await self._note(call, kind, "prepared", slot)
        response.prepared_authority.CopyFrom(_message(slot))

    async def _activate(self, kind: str, call: Call, request: Any, response: Any) -> None:
        slot = await self._authority.activate(kind, request.authority_id)
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

    # --- roots of an upstream authority -----------------------------------------------------------------------------

    async def _change_upstream(self, call: Call, step: str, root_id: str) -> admin.AuthorityKey:
        if step == "taint":
            await self._upstream_tainted(call, root_id)
        elif step == "revoke":
            await self._upstream_revoked(call, root_id)
        else:
            raise FailedPrecondition("the root is the upstream authority's: what signs is changed there")
        return admin.AuthorityKey(kind=X509, authority_id=root_id, status="old", tainted=True)

    async def _taint_upstream(self, call: Call, request: Any, response: Any) -> None:
        response.upstream_authority_subject_key_id = await self._upstream_tainted(call, _named(request))

    async def _revoke_upstream(self, call: Call, request: Any, response: Any) -> None:
        response.upstream_authority_subject_key_id = await self._upstream_revoked(call, _named(request))

    async def _upstream_tainted(self, call: Call, root_id: str) -> str:
        self._authority.upstream_roots.taint(root_id)
        await self._issuing.replace_signed_by(X509, root_id)
        await self._audit.commit("authority_tainted", kind=UPSTREAM, authority_id=root_id, **call.by)
        return root_id

    async def _upstream_revoked(self, call: Call, root_id: str) -> str:
        await self._issuing.replace_signed_by(X509, root_id)  # another's taint may be under way
        self._authority.upstream_roots.revoke(root_id)
        await self._audit.commit("authority_revoked", kind=UPSTREAM, authority_id=root_id, **call.by)
        return root_id

    async def _note(self, call: Call, kind: str, done: str, slot: Slot[Any]) -> None:
        await self._audit.commit(f"authority_{done}", kind=kind, authority_id=slot.id, **call.by)


def _named(request: Any) -> str:
    """The authority ID of a root. Raise InvalidInput if there is none."""
    if not request.subject_key_id:
        raise InvalidInput("no subject key ID provided")
    return str(request.subject_key_id).lower()


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
        key_uri=slot.key.uri if isinstance(slot.key, TokenRoot) else "",
    )
