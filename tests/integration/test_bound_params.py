"""A shop as services are, with an amount in the JSON body: what a task is bound to is compared there, or refused."""

import asyncio
import os
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import sojourn
from harness.agent import AgentProcess
from harness.taskagent import TRIAGE, inner_failures, make_agent, revoke_all, write_type
from sojourn import Client, SyncClient, TaskTokenMiddleware, TaskVerifier
from sojourn.errors import InvalidInput, Refused
from sojourn.errors.oauth import RoutesNotBound, ToolRefused
from sojourn.sdk.guard.param_places import body, path, query
from sojourn.sdk.guard.routes import Action
from sojourn.sdk.guard.tools import guarded
from sojourn.sdk.integrations.wsgi import TaskTokenWsgi

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")
import fastapi
from starlette.testclient import TestClient

SHOP = "https://bound.example.org"  # of which no sample type has tokens
REFUNDS = f"""
allowed_workloads = ["{TRIAGE}"]
[params]
order = {{type = "string", required = true}}
cents = {{type = "long", required = true}}
[bind]
"order:read" = ["order"]
[[ceiling]]
resource = "{SHOP}"
actions = ["order:read", "refund:create"]
"""
BATCHES = "https://batches.example.org"
THREE = 'limits = {"refund:create" = 3}\n' + REFUNDS.replace(SHOP, BATCHES)
NOT_OURS = "https://books.example.org"
SERVICES = f"""
[[services]]
resource = "{NOT_OURS}"
workloads = ["spiffe://example.org/service/books"]
name = "Books"
"""
ALL = '@id("all") permit (principal, action, resource);'
MAPPED = {
    "POST /orders/{order}/refunds": Action("refund:create", params={"cents": body("/cents")}),
    "GET /orders/{order_id}": Action("order:read", params={"order": path("order_id")}),
    "GET /orders": Action("order:read", params={"order": query()}),
}
FORGOTTEN = {"POST /orders/{order}/refunds": "refund:create", "GET /orders/{order_id}": "order:read"}


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    made = make_agent(extra=SERVICES)
    write_type(made.folder / "types", "give-refund", REFUNDS, ALL)
    write_type(made.folder / "types", "give-three", THREE, ALL)
    with made as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running
        revoke_all(running)
        assert [] == inner_failures(running)


@pytest.fixture(scope="module")
def client(agent: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(agent.socket) as opened:
        yield opened


def shop(agent: AgentProcess, actions: Any, audience: str = SHOP, **options: Any) -> Any:
    app = fastapi.FastAPI()

    async def refund(order: str, cents: int = fastapi.Body(embed=True)) -> dict[str, object]:
        return {"order": order, "cents": cents}

    async def read(order_id: str) -> dict[str, object]:
        return {"order": order_id}

    async def listed(order: str) -> dict[str, object]:
        return {"order": order}

    app.post("/orders/{order}/refunds")(refund)
    app.get("/orders/{order_id}")(read)
    app.get("/orders")(listed)
    app.add_middleware(TaskTokenMiddleware, actions=actions, audience=audience, socket=agent.socket, **options)
    return app


def test_what_the_task_is_for(agent: AgentProcess, client: SyncClient) -> None:
    """A task for 2500 cents on order O-1001 refunds that and reads that order, and nothing else, wherever it stands."""
    with (
        client.task("give-refund", params={"order": "O-1001", "cents": "2500"}) as task,
        TestClient(shop(agent, MAPPED), base_url=SHOP) as http,
    ):
        headers = {"Authorization": task.token(SHOP).header}
        answer = http.post("/orders/O-1001/refunds", json={"cents": 2500}, headers=headers)
        assert (200, {"order": "O-1001", "cents": 2500}) == (answer.status_code, answer.json())
        for order, cents in (("O-1001", 9900), ("O-9999", 2500), ("O-1001", "2500"), ("O-1001", 2500.0)):
            answer = http.post(f"/orders/{order}/refunds", json={"cents": cents}, headers=headers)
            assert (403, "insufficient_scope") == (answer.status_code, answer.json()["error"])
        for target, status in (
            *(("/orders/O-1001", 200), ("/orders/O-9999", 403)),
            *(("/orders?order=O-1001", 200), ("/orders?order=O-9999", 403), ("/orders", 403)),
        ):
            assert status == http.get(target, headers=headers).status_code, target


def test_a_batch(agent: AgentProcess, client: SyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """Of a batch each refund is what the task is for, and each is a use; where one alone is mapped a longer one is
    refused, which the start says.
    """
    each = {"order": body("/items/*/order"), "cents": body("/items/*/cents")}
    first = {"order": body("/items/0/order"), "cents": body("/items/0/cents")}
    actions = {
        "POST /batches": Action("refund:create", params=each),
        "POST /firsts": Action("refund:create", params=first),
    }
    app = shop(agent, actions, BATCHES)
    done: list[object] = []

    async def refunds(items: Annotated[list[dict[str, object]], fastapi.Body(embed=True)]) -> None:
        done.extend(items)

    app.post("/batches")(refunds)
    app.post("/firsts")(refunds)
    one = {"order": "O-1001", "cents": 2500}
    with (
        client.task("give-three", params={"order": "O-1001", "cents": "2500"}) as task,
        TestClient(app, base_url=BATCHES) as http,
    ):
        warned = [record.getMessage() for record in caplog.records if record.name == "sojourn.guard"]
        assert [f"POST /firsts: body:/items/0/{name} names one of a list" for name in first] == [
            said.partition(",")[0] for said in warned
        ]

        def ask(target: str, *items: object) -> tuple[int, str]:
            headers = {"Authorization": task.token(BATCHES, ["refund:create"]).header}
            answer = http.post(target, json={"items": items}, headers=headers)
            return answer.status_code, "" if answer.status_code == 200 else answer.json()["error"]

        for items in (
            [one, {**one, "cents": 9900}],
            [one, {**one, "order": "O-9999"}],
            [{**one, "cents": [2500, 9900]}],
        ):
            assert (403, "insufficient_scope") == ask("/batches", *items)
        assert (403, "unbound_parameter") == ask("/batches")
        assert (403, "unbound_parameter") == ask("/firsts", one, one)
        assert 403 == ask("/batches", *[one] * 4)[0]
        assert [] == done
        assert (200, "") == ask("/batches", one, one)
        assert 403 == ask("/batches", one, one)[0]
        assert (200, "") == ask("/firsts", one)
        assert [one] * 3 == done


def test_what_was_forgotten(agent: AgentProcess, client: SyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """A route that does not say where a parameter stands is told of at the start, and refused, with what to write."""
    with (
        client.task("give-refund", params={"order": "O-1001", "cents": "2500"}) as task,
        TestClient(shop(agent, FORGOTTEN), base_url=SHOP) as http,
    ):
        warned = [each.getMessage() for each in caplog.records if each.name == "sojourn.guard"]
        said = (
            "{route}: tasks of type 'give-refund' that have '{name}' are refused, which is compared with nothing: map it,"
            " as Action('{action}', params={{'{name}': {place}}}), or say that requests do not have it:"
            " unchecked=('{name}',)"
        )
        refunds, reads = FORGOTTEN
        assert [
            said.format(route=refunds, name="cents", action="refund:create", place="body()"),
            said.format(route=reads, name="order", action="order:read", place="path('order_id')"),
        ] == warned
        headers = {"Authorization": task.token(SHOP).header}
        for answer in (
            http.post("/orders/O-1001/refunds?cents=2500", json={"cents": 2500}, headers=headers),
            http.get("/orders/O-1001?order=O-1001", headers=headers),
        ):
            assert (403, "unbound_parameter") == (answer.status_code, answer.json()["error"])


async def test_which_types_are_in_force(agent: AgentProcess) -> None:
    """The agent tells a service which types have tokens for it, and what concerns each action; another's it does not."""
    async with Client(agent.socket) as client:
        assert {"give-refund": {"order:read": ("order",), "refund:create": ("order", "cents")}} == await TaskVerifier(
            client, SHOP
        ).types_in_force()
        assert {} == await TaskVerifier(client, "https://nothing.example.org").types_in_force()
        with pytest.raises(Refused, match="not a workload of the service"):
            await TaskVerifier(client, NOT_OURS).types_in_force()
        with pytest.raises(InvalidInput, match="must be specified"):
            await TaskVerifier(client, "").types_in_force()


def test_what_is_left_unchecked(agent: AgentProcess, client: SyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """A route that says that it does not have a parameter lets any task through, and that is told at the start."""
    actions = {"GET /orders/{order_id}": Action("order:read", unchecked=("order",))}
    with (
        client.task("give-refund", params={"order": "O-1001", "cents": "2500"}) as task,
        TestClient(shop(agent, actions), base_url=SHOP) as http,
    ):
        assert ["GET /orders/{order_id}: requests are not compared with the task's order (unchecked)"] == [
            each.getMessage() for each in caplog.records if each.name == "sojourn.guard"
        ]
        assert 200 == http.get("/orders/O-9999", headers={"Authorization": task.token(SHOP).header}).status_code


@pytest.mark.parametrize("lifespan", ["on", "auto"])
def test_strict(agent: AgentProcess, lifespan: Any) -> None:
    """A strict guard whose routes forget a parameter does not start, nor does the server; one that maps all does."""
    import uvicorn

    async def starts(actions: Any, socket: str) -> bool:
        app = TaskTokenMiddleware(shop(agent, {}), actions=actions, audience=SHOP, socket=socket, strict=True)
        server = uvicorn.Server(uvicorn.Config(app, port=0, host="127.0.0.1", lifespan=lifespan, log_level="critical"))
        running = asyncio.ensure_future(server.serve())
        while not server.started and not running.done():
            await asyncio.sleep(0.01)
        started, server.should_exit = server.started, True
        await asyncio.wait([running])
        return started

    with pytest.raises(SystemExit):
        asyncio.run(starts(FORGOTTEN, agent.socket))
    assert asyncio.run(starts({"POST /orders/{order}/refunds": MAPPED["POST /orders/{order}/refunds"]}, agent.socket))


def test_strict_without_threads_of_events(agent: AgentProcess) -> None:
    """Under WSGI a strict guard is begun by hand, says what it would refuse, and until then answers nobody."""
    made = TaskTokenWsgi(lambda *_: [], actions=FORGOTTEN, audience=SHOP, socket=agent.socket, strict=True)
    try:
        with pytest.raises(RoutesNotBound, match=r"'cents'.*'order'") as raised:
            made.start()
        assert "unbound_routes" == raised.value.code
        seen: list[str] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/orders/O-1001", "HTTP_AUTHORIZATION": "Bearer a.b.c"}
        made(environ, lambda status, _: seen.append(status))
        assert ["503 Service Unavailable"] == seen
    finally:
        made.close()
    made = TaskTokenWsgi(lambda *_: [], actions=MAPPED, audience=SHOP, socket=agent.socket, strict=True)
    made.start()
    made.close()


def test_strict_without_an_agent(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A guard that cannot ask which types are in force says so, and a strict one does not begin."""
    path = str(tmp_path / "nobody.sock")
    made = TaskTokenWsgi(lambda *_: [], actions=MAPPED, audience=SHOP, socket=path, strict=True)
    with pytest.raises(RoutesNotBound, match="cannot hold its routes"):
        made.start()
    made.close()
    made = TaskTokenWsgi(lambda *_: [], actions=MAPPED, audience=SHOP, socket=path)
    made.start()
    made.close()
    assert "cannot hold its routes" in caplog.text


def test_tools_of_an_agents_own(agent: AgentProcess) -> None:
    """A guarded function is called with what the task is for, and a task with a parameter that it lacks is refused."""

    @guarded("refund:create", params={"amount": "cents"}, resource=SHOP)
    def refund(order: str, amount: int) -> str:
        return f"{order} {amount}"

    @guarded("refund:create", resource=SHOP)
    def forgets(order: str, amount: int) -> str:
        return f"{order} {amount}"

    @guarded("refund:create", resource=SHOP)
    def takes_any(order: str, **more: int) -> str:
        return f"{order} {more}"

    @guarded("refund:create", resource=SHOP, unchecked=["cents"])
    def says_so(order: str, amount: int) -> str:
        return f"{order} {amount}"

    @guarded("order:read", resource=SHOP)
    def read(order: str) -> str:
        return order

    with sojourn.task("give-refund", params={"order": "O-1001", "cents": "2500"}, socket=agent.socket):
        assert ("O-1001 2500", "O-1001", "O-1001 9900") == (
            refund("O-1001", 2500),
            read("O-1001"),
            says_so("O-1001", 9900),
        )
        for call, code in (
            (lambda: refund("O-1001", 9900), "invalid_input"),
            (lambda: refund("O-9999", 2500), "invalid_input"),
            (lambda: forgets("O-1001", 9900), "unbound_parameter"),
            (lambda: takes_any("O-1001", cents=2500), "unbound_parameter"),
        ):
            with pytest.raises(ToolRefused) as raised:
                call()
            assert code == raised.value.reason_code
