"""SPIRE's logger and debug APIs on the admin socket."""

from datetime import datetime
from typing import Protocol

from cryptography import x509

from sojourn._pb.spire.api.server.debug.v1 import debug_pb2
from sojourn._pb.spire.api.server.logger.v1 import logger_pb2
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.audit.journal import Audit
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import InvalidInput
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.registry import Registry
from sojourn.runtime.clock import Clock
from sojourn.runtime.logs import Level
from sojourn.spiffe.ids import TrustDomain
from sojourn.spireapi import messages as convert

LOGGER = "spire.api.server.logger.v1.Logger"
DEBUG = "spire.api.server.debug.v1.Debug"
# SPIRE knows more levels than we have: each stands for the nearest.
_NAMES = {
    types.PANIC: "error",
    types.FATAL: "error",
    types.ERROR: "error",
    types.WARN: "warning",
    types.INFO: "info",
    types.DEBUG: "debug",
    types.TRACE: "debug",
}
_NUMBERS = {"error": types.ERROR, "warning": types.WARN, "info": types.INFO, "debug": types.DEBUG}


class LoggerApi:
    """Shows and changes what is logged."""

    def __init__(self, level: Level, audit: Audit) -> None:
        self._level = level
        self._audit = audit

    def methods(self) -> dict[str, Method]:
        return {
            "GetLogger": Method("unary", logger_pb2.GetLoggerRequest, self.get),
            "SetLogLevel": Method("unary", logger_pb2.SetLogLevelRequest, self.set),
            "ResetLogLevel": Method("unary", logger_pb2.ResetLogLevelRequest, self.reset),
        }

    async def get(self, _call: Call, _request: logger_pb2.GetLoggerRequest) -> types.Logger:
        return self._message()

    async def set(self, call: Call, request: logger_pb2.SetLogLevelRequest) -> types.Logger:
        if request.new_level == types.UNSPECIFIED:
            raise InvalidInput("newLevel value cannot be LogLevel_UNSPECIFIED")
        name = _NAMES.get(request.new_level)
        if name is None:
            raise InvalidInput("unsupported log level")
        return await self._change(call, name)

    async def reset(self, call: Call, _request: logger_pb2.ResetLogLevelRequest) -> types.Logger:
        return await self._change(call, self._level.launch)

    async def _change(self, call: Call, name: str) -> types.Logger:
        self._level.set(name)
        await self._audit.commit("log_level_changed", level=name, **call.by)
        return self._message()

    def _message(self) -> types.Logger:
        return types.Logger(current_level=_NUMBERS[self._level.name], launch_level=_NUMBERS[self._level.launch])


class SignedBy(Protocol):
    """What signs SVIDs of our trust domain."""

    @property
    def trust_domain(self) -> TrustDomain: ...

    @property
    def whole_chain(self) -> tuple[x509.Certificate, ...]:
        """From what signs leaves now up to the root."""


class DebugApi:
    """A few numbers about the agent."""

    def __init__(self, authority: SignedBy, registry: Registry, foreign: ForeignBundles, clock: Clock) -> None:
        self._authority = authority
        self._registry = registry
        self._foreign = foreign
        self._clock = clock
        self._started: datetime = clock.now()

    def methods(self) -> dict[str, Method]:
        return {"GetInfo": Method("unary", debug_pb2.GetInfoRequest, self.get_info)}

    async def get_info(self, _call: Call, _request: debug_pb2.GetInfoRequest) -> debug_pb2.GetInfoResponse:
        answer = debug_pb2.GetInfoResponse(
            uptime=max(0, int((self._clock.now() - self._started).total_seconds())),
            agents_count=1,
            federated_bundles_count=len(self._foreign),
            entries_count=len(self._registry),
        )
        for certificate in self._authority.whole_chain:
            answer.svid_chain.add(
                id=convert.spiffe_id_message(self._authority.trust_domain.id),
                expires_at=int(certificate.not_valid_after_utc.timestamp()),
                subject=certificate.subject.rfc4514_string(),
            )
        return answer
