"""A route that nobody mapped is closed where one that somebody mapped looks like it: the service's framework decides."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from fakes.guarded import AUDIENCE, agent_at, token
from sojourn.sdk.guard.service_routes import Segments, segments_of
from sojourn.web import TaskTokenMiddleware, TaskTokenWsgi
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

Make = Callable[[dict[str, Any]], Any]
ORDER, SUMMARY = "GET /orders/{order}", "GET /orders/summary"
ACTIONS = {ORDER: "ticket:read", "GET /reports/{name}": "ticket:read"}
PUBLIC = ["GET /pages/{page}"]
# What the service has: all that is mapped but the family of reports, and what nobody mapped.
ORDERS = ["/summary", "/{order}", "/{order}/lines"]
OTHERS = ["/reports/daily", "/reports/weekly", "/pages/drafts", "/pages/{page}"]


def starlette(options: dict[str, Any]) -> Any:
    return TaskTokenMiddleware(Starlette(routes=[Mount("/orders", routes=plain(ORDERS)), *plain(OTHERS)]), **options)


def plain(paths: Sequence[str]) -> list[Route]:
    async def served(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    return [Route(path, served) for path in paths]


def fastapi(options: dict[str, Any]) -> Any:
    library = pytest.importorskip("fastapi")
    app, orders = library.FastAPI(), library.APIRouter(prefix="/orders")

    def served(request: Request) -> Any:
        return PlainTextResponse(request.url.path)

    served.__annotations__["request"] = Request
    for path in ORDERS:
        orders.get(path)(served)
    for path in OTHERS:
        app.get(path)(served)
    app.include_router(orders)
    app.add_middleware(TaskTokenMiddleware, **options)
    return app


def litestar(options: dict[str, Any]) -> Any:
    library = pytest.importorskip("litestar")

    async def served(request: Any) -> str:
        return str(request.url.path)

    served.__annotations__["request"] = library.Request
    paths = [path.replace("}", ":str}") for path in [*(f"/orders{path}" for path in ORDERS), *OTHERS]]
    handlers = [library.get(path, media_type="text/plain", name=path)(served) for path in paths]
    return TaskTokenMiddleware(library.Litestar(route_handlers=handlers, logging_config=None), **options)


def flask(options: dict[str, Any]) -> Any:
    library = pytest.importorskip("flask")
    app = library.Flask(__name__)
    for path in [*(f"/orders{path}" for path in ORDERS), *OTHERS]:
        app.add_url_rule(path.replace("{", "<").replace("}", ">"), path, lambda **_: library.request.path)
    return TaskTokenWsgi(app.wsgi_app, **options)


def django(options: dict[str, Any]) -> Any:
    library = pytest.importorskip("django")
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import clear_url_caches, include, path

    def served(request: Any, **_: str) -> HttpResponse:
        return HttpResponse(request.path)

    def paths(written: Sequence[str]) -> list[Any]:
        return [path(each[1:].replace("{", "<str:").replace("}", ">"), served) for each in written]

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="of a test")
        library.setup()
    globals()["urlpatterns"] = [path("orders/", include(paths(ORDERS))), *paths(OTHERS)]
    clear_url_caches()
    return TaskTokenWsgi(get_wsgi_application(), **options)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("agent") / "agent.sock"
    with agent_at(path):
        yield path


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def client_of(opened: ExitStack, agent: Path, make: Make, **changed: Any) -> Any:
    """Asks a service that was made so and has started, with a token for no order in particular."""
    app = make({"actions": ACTIONS, "public": PUBLIC, "audience": AUDIENCE, "socket": str(agent), **changed})
    client: Any
    if isinstance(app, TaskTokenWsgi):
        opened.callback(app.close)
        app.start()
        client = opened.enter_context(httpx.Client(transport=httpx.WSGITransport(app), base_url="http://shop"))
    else:
        client = opened.enter_context(TestClient(app, base_url="http://shop"))
    client.headers["authorization"] = f"Bearer {token(params={})}"
    return client


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "sojourn.guard" and each.levelno == 30]


@pytest.mark.parametrize("make", [starlette, fastapi, litestar, flask, django])
class TestWhereTheFrameworkCanBeAsked:
    def test_a_sibling_is_closed(
        self, make: Make, agent: Path, opened: ExitStack, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A service's route that no action is for is refused, where the guard's route for another matches its path."""
        client = client_of(opened, agent, make)
        told = warned(caplog)[0]
        assert told.startswith(SUMMARY)
        assert ORDER in told
        assert [client.get(path).status_code for path in ("/orders/7", "/orders/7/lines")] == [200, 403]
        for path in ("/orders/summary", "/orders/sum%6Dary"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
            assert "'/orders/summary'" in answer.json()["error_description"]

    def test_one_that_is_mapped(
        self, make: Make, agent: Path, opened: ExitStack, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A sibling with an action of its own is served by that, and the start warns of none."""
        client = client_of(opened, agent, make, actions={SUMMARY: "ticket:read", **ACTIONS}, public=())
        assert (client.get("/orders/summary").text, warned(caplog)) == ("/orders/summary", [])

    def test_a_family(self, make: Make, agent: Path, opened: ExitStack) -> None:
        """A route of the guard that is none of the service's stands for all that it matches."""
        client = client_of(opened, agent, make)
        assert [client.get(f"/reports/{name}").status_code for name in ("daily", "weekly")] == [200, 200]

    def test_public(self, make: Make, agent: Path, opened: ExitStack) -> None:
        """A public route lets no other of the service be public either."""
        client = client_of(opened, agent, make)
        client.headers.pop("authorization")
        assert [client.get(f"/pages/{name}").status_code for name in ("about", "drafts")] == [200, 401]


def test_the_frameworks_order_decides(agent: Path, opened: ExitStack) -> None:
    """The action of a request is that of the route which the service takes it to, and not of one that it never reaches.

    Services whose routes are in the wrong order have such.
    """

    def shadowing(options: dict[str, Any]) -> Any:
        return TaskTokenMiddleware(Starlette(routes=plain(["/reports/{name}", "/reports/daily"])), **options)

    actions = {"GET /reports/daily": "ticket:read", "GET /reports/{name}": "ticket:close"}
    client = client_of(opened, agent, shadowing, actions=actions, public=())
    answer = client.get("/reports/daily")
    assert (answer.status_code, "ticket:close" in answer.headers["www-authenticate"]) == (403, True)


def test_mounted(agent: Path, opened: ExitStack) -> None:
    """A guarded application that is mounted in another closes siblings by the routes that it has itself."""

    def mounted(options: dict[str, Any]) -> Any:
        guard = TaskTokenMiddleware(Starlette(routes=plain([f"/orders{path}" for path in ORDERS])), **options)

        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            yield
            await guard.close()

        return Starlette(routes=[Mount("/shop", guard)], lifespan=lifespan)

    actions = {"GET /shop/orders/{order}": "ticket:read"}
    client = client_of(opened, agent, mounted, actions=actions, public=())
    assert [client.get(f"/shop/orders/{name}").status_code for name in ("7", "summary")] == [200, 403]


def test_a_framework_that_fails(
    agent: Path, opened: ExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A request of which the framework cannot say where it goes is refused, and the log has why."""
    library = pytest.importorskip("flask")
    monkeypatch.setattr(library.Flask, "create_url_adapter", lambda *_: 1 / 0)
    client = client_of(opened, agent, flask)
    assert [client.get(path).status_code for path in ("/orders/7", "/pages/about")] == [403, 403]
    assert "does not say which route" in caplog.text


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("/orders/{order:int}", ("", "orders", None)),
        ("/orders/<int(min=1):order>/lines", ("", "orders", None, "lines")),
        ("/bücher und mehr/<isbn>", ("", "b%C3%BCcher%20und%20mehr", None)),
        ("/files/{rest:path}", None),
        ("/files/<path:rest>", None),
        ("/orders/{order}.json", None),
        ("/^orders/(?P<order>[0-9]+)$", None),
    ],
)
def test_paths_of_frameworks(path: str, segments: Segments | None) -> None:
    """A framework's path is compared by whole segments, and one that has others is no route that a guard can have."""
    assert segments_of(path) == segments
