"""Routes that need no token: what they are, and what they never are."""

import pytest
from sojourn.errors import InvalidInput
from sojourn.sdk.guard.public_routes import CORS_PREFLIGHT, PublicRoutes

GUARDED = {"GET /orders/{order}": "order:read", "GET /orders/all": "order:list"}
LISTED = {"GET /orders/all": "order:list", "GET /orders/{order}": "order:read"}


class TestRoutes:
    def test_named(self) -> None:
        """A route that is named is public, for HEAD as for GET, and nothing beside it is."""
        routes = PublicRoutes(["GET /health", "GET /docs/{page}"], LISTED)
        public = [("GET", "/health"), ("HEAD", "/health"), ("GET", "/docs/start")]
        assert all(routes.has(*each) for each in public)
        others = [("POST", "/health"), ("GET", "/health/"), ("GET", "//health"), ("GET", "/Health"), ("GET", "/docs")]
        assert not any(routes.has(*each) for each in [*others, ("GET", "/orders/7"), ("GET", "/docs/a%2Fb")])

    def test_none(self) -> None:
        """Without public routes nothing is public."""
        assert not PublicRoutes([], LISTED).has("GET", "/health")

    @pytest.mark.parametrize("path", ["/orders/all", "/orders/%61ll", "/orders/ALL", "/orders/al%6C"])
    def test_never_a_guarded_one(self, path: str) -> None:
        """What is a guarded route, or could be read as one, is not public by a route with a name in braces."""
        routes = PublicRoutes(["GET /orders/{any}"], {"GET /orders/all": "order:list"})
        assert routes.has("GET", "/orders/7")
        assert not any(routes.has(method, path) for method in ("GET", "HEAD"))

    def test_literal_before_a_guarded_name(self) -> None:
        """A public route without names counts before a guarded one that would take it."""
        routes = PublicRoutes(["GET /orders/schema"], {"GET /orders/{order}": "order:read"})
        assert routes.has("GET", "/orders/schema")
        assert not routes.has("GET", "/orders/7")

    def test_beside_a_function(self) -> None:
        """Beside a function that names actions a public route is one path."""
        routes = PublicRoutes(["GET /health"], lambda method, path: "read")
        assert routes.has("GET", "/health")
        assert not routes.has("GET", "/other")


class TestPreflight:
    ASKED = ("Origin", "Access-Control-Request-Method", "Accept")

    def test_is_public_if_named(self) -> None:
        """A browser's question before a request is public on every path where that is said, and nowhere else."""
        asked = ("OPTIONS", "/orders/7", self.ASKED)
        assert PublicRoutes([CORS_PREFLIGHT], LISTED).has(*asked)
        assert not PublicRoutes(["GET /health"], LISTED).has(*asked)

    @pytest.mark.parametrize(
        ("method", "headers"),
        [
            ("OPTIONS", ["Origin"]),
            ("OPTIONS", ["Access-Control-Request-Method"]),
            ("OPTIONS", []),
            ("POST", list(ASKED)),
            ("options", list(ASKED)),
        ],
    )
    def test_is_no_other_request(self, method: str, headers: list[str]) -> None:
        """A request that is no preflight is none, whatever it says of itself in part."""
        assert not PublicRoutes([CORS_PREFLIGHT], LISTED).has(method, "/orders/7", headers)


class TestFaults:
    @pytest.mark.parametrize(
        "public",
        [
            ["GET /orders/all"],  # is guarded
            ["GET health"],  # is no path
            ["health"],
            ["GET /a{b}"],
            "GET /health",  # is no list
        ],
    )
    def test_refused(self, public: list[str]) -> None:
        """A public route that has an action, or is none, is told when the guard is made."""
        with pytest.raises(InvalidInput):
            PublicRoutes(public, LISTED)

    def test_covering_a_guarded_one(self) -> None:
        """A public route that a guarded one takes every request of is told, as is one with names beside a function."""
        with pytest.raises(InvalidInput, match="never counts"):
            PublicRoutes(["GET /orders/{any}"], {"GET /orders/{order}": "order:read"})
        with pytest.raises(InvalidInput, match="braces"):
            PublicRoutes(["GET /docs/{page}"], lambda method, path: None)
