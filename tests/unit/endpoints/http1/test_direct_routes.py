"""direct_routes.py: which requests go straight to a handler, and which through Starlette."""

import httpx
import pytest
from sojourn.endpoints.http1.direct_routes import Straight
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def token(request):
    return PlainTextResponse(f"straight {(await request.body()).decode()} {request.headers['x-seen']}")


async def routed(request):
    return PlainTextResponse(f"routed {request.url.path}")


@pytest.fixture
async def client():
    others = Starlette(routes=[Route("/token", routed, methods=["POST"]), Route("/keys", routed, methods=["GET"])])
    transport = httpx.ASGITransport(Straight({"/token": token}, others))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        yield client


async def test_straight(client):
    """A POST to the very path is answered by its handler, with its body and headers."""
    answer = await client.post("/token", content=b"a=b", headers={"x-seen": "yes"})
    assert (200, "straight a=b yes") == (answer.status_code, answer.text)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/token", 405),
        ("HEAD", "/token", 405),
        ("OPTIONS", "/token", 405),
        ("POST", "/token/", 307),
        ("POST", "/Token", 404),
        ("POST", "//token", 404),
        ("GET", "/keys", 200),
        ("POST", "/keys", 405),
    ],
)
async def test_all_else(client, method, path, status):
    """Any other method or path is Starlette's, which says what is wrong with it."""
    assert status == (await client.request(method, path)).status_code
