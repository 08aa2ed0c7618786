"""SPIRE's agent API on a server's admin socket: its nodes, and the tokens by which others join."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from google.protobuf.empty_pb2 import Empty

from sojourn._pb.spire.api.server.agent.v1 import agent_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.attestation.selectors import Selector
from sojourn.audit.journal import Audit
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.spire.agent import MASKED
from sojourn.endpoints.spire.entry import matches, recorder
from sojourn.errors import InvalidInput, InvalidSpiffeId, NotFound, told_as
from sojourn.identity.entries import Entry
from sojourn.identity.registry import Registry
from sojourn.identity.trust import TrustSource
from sojourn.limits import NODE_NAME_MAX
from sojourn.server.authorized_entries import named_node
from sojourn.server.bound_keys import check_free
from sojourn.server.join_tokens import JoinTokens
from sojourn.server.node_records import Node
from sojourn.server.nodes import Nodes
from sojourn.spiffe.ids import AGENT_PATH, SpiffeId, TrustDomain
from sojourn.spireapi import messages as convert
from sojourn.upstream.join_string import JoinString, digest_of

_OURS = ("name", "attested_at", "locked")


class NodesApi:
    """Lists nodes, bans and evicts them, and makes join tokens."""

    def __init__(
        self, nodes: Nodes, tokens: JoinTokens, registry: Registry, authority: TrustSource, audit: Audit
    ) -> None:
        self._nodes = nodes
        self._tokens = tokens
        self._registry = registry
        self._authority = authority
        self._audit = audit
        self._trust_domain: TrustDomain = registry.node_id.trust_domain

    def methods(self) -> dict[str, Method]:
        return {
            "CountAgents": Method("unary", pb.CountAgentsRequest, self.count),
            "ListAgents": Method("unary", pb.ListAgentsRequest, self.list),
            "GetAgent": Method("unary", pb.GetAgentRequest, self.get),
            "DeleteAgent": Method("unary", pb.DeleteAgentRequest, self.delete),
            "BanAgent": Method("unary", pb.BanAgentRequest, self.ban),
            "CreateJoinToken": Method("unary", pb.CreateJoinTokenRequest, self.create_join_token),
        }

    async def count(self, _call: Call, request: pb.CountAgentsRequest) -> pb.CountAgentsResponse:
        return pb.CountAgentsResponse(count=sum(map(_filter(request.filter), self._nodes)))

    async def list(self, _call: Call, request: pb.ListAgentsRequest) -> pb.ListAgentsResponse:
        """In the order of their IDs, of which a page's last is the token of the next."""
        wanted, after = _filter(request.filter), request.page_token
        found = sorted((each for each in self._nodes if wanted(each)), key=lambda node: str(node.spiffe_id))
        if after:
            found = [each for each in found if str(each.spiffe_id) > after]
        page, last = convert.page_of(found, request.page_size)
        mask = convert.output_mask(request)
        return pb.ListAgentsResponse(
            agents=[_message(each, mask) for each in page], next_page_token=str(last.spiffe_id) if last else ""
        )

    async def get(self, _call: Call, request: pb.GetAgentRequest) -> types.Agent:
        node = self._nodes.get(self._agent_id(request.id))
        if node is None:
            raise NotFound("agent not found")
        return _message(node, convert.output_mask(request))

    async def delete(self, call: Call, request: pb.DeleteAgentRequest) -> Empty:
        await self._nodes.evict(self._agent_id(request.id), call.by)
        return Empty()

    async def ban(self, call: Call, request: pb.BanAgentRequest) -> Empty:
        change = self._nodes.unban if request.lift else self._nodes.ban
        await change(self._agent_id(request.id), call.by)
        return Empty()

    async def create_join_token(self, call: Call, request: pb.CreateJoinTokenRequest) -> types.JoinToken:
        alias = self._alias(request) if request.HasField("agent_id") else None
        if request.name:
            self._check_name(request.name)
        if request.bound and alias is not None:
            raise InvalidInput("agent_id is not for a token that binds a key: entries name the node itself")
        if request.name and not request.bound:
            check_free(self._nodes, self._trust_domain, request.name)
        token, ends = await self._tokens.make(
            request.ttl, token=request.token, name=request.name, bound=request.bound, by=call.by
        )
        if alias is not None:
            await self._register(token, alias, call)
        digest = digest_of(self._authority.bundle.x509_authorities)
        return types.JoinToken(value=token, expires_at=ends, join=str(JoinString(self._trust_domain, token, digest)))

    def _alias(self, request: pb.CreateJoinTokenRequest) -> SpiffeId:
        with told_as(InvalidInput, "invalid agent ID"):
            alias = convert.spiffe_id(request.agent_id)
            alias.check_workload_of(self._trust_domain)
        return alias

    def _check_name(self, name: str) -> None:
        if len(name) > NODE_NAME_MAX:
            raise InvalidInput(f"name: it is longer than {NODE_NAME_MAX} characters")
        try:
            named_node(self._trust_domain, name)
        except InvalidSpiffeId as error:
            raise InvalidInput(f"name: {error.public}") from error

    async def _register(self, token: str, alias: SpiffeId, call: Call) -> None:
        """The node that joins by the token is a parent by this SPIFFE ID, too, as SPIRE has it."""
        parent = self._tokens.node_of(token)
        entry = Entry("", alias, parent, frozenset({Selector("spiffe_id", str(parent))}))
        (outcome,) = await self._registry.create([entry], recorder(self._audit, call))
        if outcome.error is not None:
            raise outcome.error

    def _agent_id(self, message: types.SPIFFEID) -> SpiffeId:
        with told_as(InvalidInput, "invalid agent ID"):
            found = convert.spiffe_id(message)
            if found.trust_domain != self._trust_domain:
                raise InvalidSpiffeId(f"{str(found)!r} is not a member of trust domain {self._trust_domain.name!r}")
            if not found.path.startswith(AGENT_PATH):
                raise InvalidSpiffeId(f"{str(found)!r} is not an agent; path is not below {AGENT_PATH!r}")
        return found


def _message(node: Node, mask: types.AgentMask | None) -> types.Agent:
    message = types.Agent(
        id=convert.spiffe_id_message(node.spiffe_id),
        attestation_type=node.attestor,
        x509svid_serial_number=str(node.serial) if node.serial else "",
        x509svid_expires_at=node.expires_at,
        selectors=[types.Selector(type=each.type, value=each.value) for each in sorted(node.selectors)],
        banned=node.banned,
        can_reattest=node.reattestable,
        agent_version=node.version,
        name=node.name,
        attested_at=node.attested_at,
        locked=node.locked,
    )
    return convert.masked(message, mask, (*MASKED, *_OURS))


def _filter(wanted: Any) -> Callable[[Node], bool]:
    """What a list or count filter lets through. Raise InvalidInput if it is malformed."""
    tests: list[Callable[[Node], bool]] = []
    if wanted.by_attestation_type:
        kind = wanted.by_attestation_type
        tests.append(lambda node: node.attestor == kind)
    if wanted.HasField("by_banned"):
        banned = wanted.by_banned.value
        tests.append(lambda node: node.banned == banned)
    if wanted.HasField("by_can_reattest"):
        can = wanted.by_can_reattest.value
        tests.append(lambda node: node.reattestable == can)
    if wanted.HasField("by_selector_match"):
        tests.append(_by_selectors(wanted.by_selector_match))
    if wanted.by_expires_before:
        before = _moment(wanted.by_expires_before)
        tests.append(lambda node: node.expires_at < before)
    return lambda node: all(test(node) for test in tests)


def _by_selectors(message: types.SelectorMatch) -> Callable[[Node], bool]:
    with told_as(InvalidInput, "failed to parse selectors"):
        selectors = convert.selectors(message.selectors)
    if message.match not in types.SelectorMatch.MatchBehavior.values():
        raise InvalidInput("failed to parse selectors: unhandled match behavior")
    return lambda node: matches(node.selectors, selectors, message.match)


def _moment(text: str) -> float:
    """Seconds since the epoch of a time as Go's commands write it: 2006-01-02 15:04:05 -0700 -07."""
    try:
        return datetime.strptime(" ".join(text.split()[:3]), "%Y-%m-%d %H:%M:%S %z").timestamp()
    except ValueError as error:
        raise InvalidInput(f"by_expires_before is no time: {text[:64]!r}") from error
