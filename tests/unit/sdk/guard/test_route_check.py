"""route_check.py: what a guard says of its routes at its start."""

import logging
from collections.abc import Sequence

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from sojourn.errors import Unavailable
from sojourn.errors.oauth import RoutesNotBound
from sojourn.sdk.guard.param_places import argument, body
from sojourn.sdk.guard.route_check import InForce, hold, refused
from sojourn.sdk.guard.routes import Action, Route, routes_of
from sojourn.sdk.integrations.grpc_calls import GuardedMethods
from sojourn.sdk.integrations.mcp_server import _Tools

IN_FORCE = {
    "give-refund": {"order:read": ["order"], "refund:create": ["order", "cents"]},
    "look": {"order:read": []},
}


class Agent:
    """Knows the types, or is not there."""

    audience = "https://shop.example.org"

    def __init__(self, types: InForce | None = None) -> None:
        self._types = types

    async def types_in_force(self) -> InForce:
        if self._types is None:
            raise Unavailable("nobody is at the socket")
        return self._types


def told(routes: Sequence[Route]) -> list[tuple[str, str]]:
    """Each route with what it would have to write."""
    found = [each.partition(": tasks of type 'give-refund' that have ") for each in refused(IN_FORCE, routes)]
    return [(route, rest.partition("map it, as ")[2].partition(", or say")[0]) for route, _, rest in found]


class TestRefused:
    def test_routes_of_http(self) -> None:
        """What a route neither names, maps nor leaves unchecked is told, with the segment that it most likely is."""
        actions = {
            "POST /orders/{order}/refunds": "refund:create",
            "PUT /orders/{order}/refunds": Action("refund:create", params={"cents": body()}),
            "DELETE /orders/{order}/refunds": Action("refund:create", unchecked=("cents",)),
            "GET /orders/{order_id}": "order:read",
            "GET /other/{id}": "other:read",
        }
        assert [
            ("POST /orders/{order}/refunds", "Action('refund:create', params={'cents': body()})"),
            ("GET /orders/{order_id}", "Action('order:read', params={'order': path('order_id')})"),
        ] == told(routes_of(actions))

    def test_a_function(self) -> None:
        """Of routes that a function says nothing is known before there is a request."""
        assert [] == routes_of(lambda _method, _path: "order:read")

    def test_tools(self) -> None:
        """Of a tool whose arguments are not said each parameter is told."""
        tools = _Tools({"read": "order:read", "find": Action("order:read", params={"order": argument("id")})}, None)
        assert [("tool read", "Action('order:read', params={'order': argument()})")] == told(tools.routes)

    def test_methods(self) -> None:
        """Of a gRPC method whose messages are those of generated code its fields are known; of another nothing is."""
        file = descriptor_pb2.FileDescriptorProto(name="held_orders.proto", package="held.v1", syntax="proto3")
        message = file.message_type.add(name="Order")
        message.field.add(name="order", number=1, type=9, label=1)
        for service, name in (("Orders", "Read"), ("Refunds", "Create")):
            made = file.service.add(name=service).method.add(name=name)
            made.input_type = made.output_type = ".held.v1.Order"
        descriptor_pool.Default().Add(file)
        names = {"/held.v1.Orders/Read": "order:read", "/held.v1.Refunds/Create": "refund:create"}
        methods = GuardedMethods({**names, "/held.v1.Nowhere/Read": "order:read"}, ())
        expected = "Action('refund:create', params={'cents': field()})"
        assert [("/held.v1.Refunds/Create", expected)] == told(methods.routes)


class TestHold:
    ROUTES = routes_of({"GET /orders/{id}": Action("order:read"), "GET /x": Action("x", unchecked=("b", "a"))})

    async def test_warnings(self, caplog: pytest.LogCaptureFixture) -> None:
        """What would be refused and what is left unchecked is a warning each, and the guard starts."""
        await hold(Agent(IN_FORCE), self.ROUTES, strict=False)
        assert [logging.WARNING] * 2 == [each.levelno for each in caplog.records]
        assert "GET /x: requests are not compared with the task's a, b (unchecked)" == caplog.messages[0]
        assert "GET /orders/{id}: tasks of type 'give-refund' that have 'order' are refused" in caplog.messages[1]

    async def test_strict(self) -> None:
        """A strict one does not start, and names the first few; with nothing to refuse it starts."""
        with pytest.raises(RoutesNotBound, match=r"GET /orders/\{id\}"):
            await hold(Agent(IN_FORCE), self.ROUTES, strict=True)
        many = routes_of({f"GET /{number}/x": "order:read" for number in range(8)})
        with pytest.raises(RoutesNotBound, match=r"/4/x.*, and 3 more$"):
            await hold(Agent(IN_FORCE), many, strict=True)
        await hold(Agent({}), self.ROUTES, strict=True)

    async def test_an_agent_that_cannot_be_asked(self, caplog: pytest.LogCaptureFixture) -> None:
        """Where the types are not known that is a warning, and a strict guard does not start."""
        await hold(Agent(), self.ROUTES, strict=False)
        assert "nobody is at the socket" in caplog.messages[-1]
        with pytest.raises(RoutesNotBound, match="cannot hold its routes"):
            await hold(Agent(), self.ROUTES, strict=True)
        with pytest.raises(RoutesNotBound):
            await hold(Agent(), [], strict=True)
