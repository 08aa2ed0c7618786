"""Tasks as Python programs write them: a block, its clients, what it calls, and its end."""

import asyncio
import contextvars
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import sojourn
from harness.looking import until
from harness.loopback import LoopbackServer, QuietHandler
from harness.ticketshop import Shop, ticket_shop
from sojourn.errors import FailedPrecondition, InvalidInput, NotFound, TaskOver
from sojourn.errors.oauth import OutsideTask
from sojourn.sdk.client.sync import SyncTask
from sojourn.sdk.task.task import Task
from sojourn.tasktoken.grants import Grant

KIND = "read-tickets"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with ticket_shop(tmp_path_factory.mktemp("shop")) as running:
        yield running


@pytest.fixture
def here(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop, whose agent programs find by themselves."""
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{shop.agent.socket}")
    return shop


@pytest.fixture
def trust(shop: Shop) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(shop.tls.ca))


def state(shop: Shop, task_id: str) -> str:
    return str(shop.agent.json("task", "show", task_id)["state"])


class TestBlocking:
    def test_client(self, here: Shop, trust: ssl.SSLContext) -> None:
        """`with sojourn.task(…)`, and a client whose requests have its authority; the block's end is the task's."""
        with sojourn.task(KIND, params={"ticket": "42"}) as task:
            with task.client(here.resource, verify=trust) as client:
                answer = client.get("/tickets/42")
                other = client.get("/tickets/43")
            assert (200, task.id, True) == (answer.status_code, answer.json()["task"], answer.json()["bound"])
            assert 403 == other.status_code
            assert "authorization" not in answer.request.headers
        assert "completed" == state(here, task.id)

    def test_one_token_for_many_requests(self, here: Shop, trust: ssl.SSLContext) -> None:
        """Requests of the same kind have one token, also when several threads begin at once."""
        with sojourn.task(KIND) as task, task.client(here.resource, verify=trust) as client:
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda number: client.get(f"/tickets/{number}"), range(24)))
            assert {200} == {answer.status_code for answer in answers}
            shown = here.agent.json("task", "show", task.id)
            assert shown["tokens_issued"] <= 2

    def test_actions(self, here: Shop, trust: ssl.SSLContext) -> None:
        """Tokens are for the actions that are named, for a client or for one request."""
        with sojourn.task(KIND) as task, httpx.Client(verify=trust) as client:
            auth = task.auth()
            url = f"{here.resource}/tickets/1"
            assert ["ticket:read", "ticket:write"] == client.get(url, auth=auth).json()["actions"]
            assert ["ticket:read"] == client.get(url, auth=auth.with_actions("ticket:read")).json()["actions"]
            with pytest.raises(OutsideTask, match="does not have the action 'ticket:delete'"):
                client.get(url, auth=auth.with_actions("ticket:delete"))

    def test_narrowed(self, here: Shop, trust: ssl.SSLContext) -> None:
        """After the task has changed the next request has a new token, and its answer is as before."""
        with sojourn.task(KIND) as task, task.client(here.resource, verify=trust) as client:
            assert 200 == client.get("/tickets/1").status_code
            task.narrow([Grant.parse(here.resource, ["ticket:read"])])
            answer = client.get("/tickets/1")
            assert (200, ["ticket:read"]) == (answer.status_code, answer.json()["actions"])

    def test_high_class(self, here: Shop, trust: ssl.SSLContext) -> None:
        """A task of class high has a token for each request, over its content, and nobody says so in the program."""
        high = sojourn.task("delete-ticket", params={"ticket": "5"})
        with high as task, task.client(here.resource, verify=trust) as client:
            assert [200, 200] == [client.delete("/tickets/5").status_code for _ in range(2)]
            assert 200 == client.post("/tickets/5/notes?a=1", json={"b": [1, 2]}).status_code

    def test_over(self, here: Shop, trust: ssl.SSLContext) -> None:
        """When the task has ended its next use raises TaskOver, and `on_end` has been called once, with the reason."""
        ends: list[str] = []
        with sojourn.task(KIND, on_end=ends.append) as task, task.client(here.resource, verify=trust) as client:
            assert 200 == client.get("/tickets/1").status_code
            here.agent.run("task", "revoke", task.id)
            until(lambda: ends, "the end is told")
            with pytest.raises(TaskOver, match="revoked"):
                client.get("/tickets/1")
            with pytest.raises(TaskOver):
                task.token()
        assert ["admin"] == ends

    def test_on_end_of_a_good_end(self, here: Shop) -> None:
        """`on_end` is called when the task has completed too."""
        ends: list[str] = []
        with sojourn.task(KIND, on_end=ends.append):
            assert [] == ends
        assert 1 == len(ends)

    def test_requests(self, here: Shop) -> None:
        """requests has the task's authority through an adapter."""
        requests = pytest.importorskip("requests")
        with sojourn.task(KIND) as task, requests.Session() as session:
            session.trust_env, session.verify = False, str(here.tls.ca)
            session.mount("https://", task.adapter())
            answer = session.post(f"{here.resource}/tickets/9/notes", json={"a": 1})
            assert (200, task.id, 8) == (answer.status_code, answer.json()["task"], answer.json()["size"])
            assert "Authorization" not in answer.request.headers
            with pytest.raises(OutsideTask):
                session.get("https://evil.example/")

    def test_entered_once(self, here: Shop) -> None:
        """A task that has begun is not begun again by its block."""
        block = sojourn.task(KIND)
        with block, pytest.raises(InvalidInput, match="entered once"):
            block.__enter__()

    def test_what_it_is(self) -> None:
        """A task has a type or a ticket, and not both."""
        for options in ({}, {"type": KIND, "ticket": "t"}, {"ticket": "t", "params": {"a": "b"}}):
            with pytest.raises(InvalidInput):
                sojourn.task(**options)


class TestAsynchronous:
    async def test_client(self, here: Shop, trust: ssl.SSLContext) -> None:
        """`async with sojourn.task(…)`, and an asynchronous client; a hundred requests at once have one token."""
        async with sojourn.task(KIND) as task, task.client(here.resource, verify=trust) as client:
            answers = await asyncio.gather(*(client.get(f"/tickets/{number}") for number in range(100)))
            assert {200} == {answer.status_code for answer in answers}
            assert (await asyncio.to_thread(here.agent.json, "task", "show", task.id))["tokens_issued"] <= 2
        assert "completed" == await asyncio.to_thread(state, here, task.id)

    async def test_upload_in_parts(self, here: Shop, trust: ssl.SSLContext) -> None:
        """Content that is made while it is sent goes up too, once the service's wish for a nonce is known."""

        async def parts() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b"x" * 1000

        async with sojourn.task(KIND) as task, task.client(here.resource, verify=trust) as client:
            assert 200 == (await client.get("/tickets/1")).status_code
            assert 10_000 == (await client.put("/tickets/1/file", content=parts())).json()["size"]

    async def test_end_cancels_the_block(self, here: Shop) -> None:
        """When the task ends the block is cancelled where it waits, and raises TaskOver; its own task is not cancelled."""
        ends: list[str] = []

        async def work() -> None:
            async with sojourn.task(KIND, on_end=ends.append) as task:
                await asyncio.to_thread(here.agent.run, "task", "revoke", task.id)
                await asyncio.sleep(60)

        with pytest.raises(TaskOver, match="revoked: admin"):
            await work()
        assert ["admin"] == ends
        running = asyncio.current_task()
        assert running is not None
        assert 0 == running.cancelling()
        await asyncio.sleep(0)

    async def test_no_cancellation(self, here: Shop) -> None:
        """With `cancel=False` the block goes on, and the next use of the task raises TaskOver."""
        ends: list[str] = []
        async with sojourn.task(KIND, on_end=ends.append, cancel=False) as task:
            await asyncio.to_thread(here.agent.run, "task", "revoke", task.id)
            async with asyncio.timeout(20):
                while not ends:
                    await asyncio.sleep(0.01)
            with pytest.raises(TaskOver):
                await task.token()

    async def test_cancelled_by_another(self, here: Shop) -> None:
        """A block that somebody else cancels is cancelled, and its task is over."""
        begun: list[Task] = []

        async def work() -> None:
            async with sojourn.task(KIND) as task:
                begun.append(task)
                await asyncio.sleep(60)

        running = asyncio.create_task(work())
        async with asyncio.timeout(20):
            while not begun:
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert begun[0].ended

    async def test_own_completion(self, here: Shop) -> None:
        """A block that completes its task itself is not cancelled."""
        async with sojourn.task(KIND) as task:
            await task.complete()
            await asyncio.sleep(0.05)
        assert "completed" == task.state

    async def test_on_end_that_fails(self, here: Shop) -> None:
        """A callback that raises keeps nothing from ending; the loop is told of it."""
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        async with sojourn.task(KIND, on_end=lambda _: 1 / 0) as task:
            pass
        assert ("completed", ["on_end of a sojourn task failed"]) == (task.state, told)

    async def test_wrong_client(self, here: Shop) -> None:
        """The authority of an asynchronous task is for asynchronous clients, and the error says so."""
        async with sojourn.task(KIND) as task:
            with httpx.Client(auth=task.auth()) as client, pytest.raises(InvalidInput, match="AsyncClient"):
                client.get(here.resource)


class TestCurrent:
    def test_none(self) -> None:
        """Outside of every block there is no task, and the error says what to do."""
        with pytest.raises(NotFound, match=r"begin one by `with sojourn\.task"):
            sojourn.current_task()

    def test_nested(self, here: Shop) -> None:
        """What a block calls finds its task; a task within a task is one of its own, and the outer one comes back."""
        with sojourn.task(KIND) as outer:
            assert outer is sojourn.current_task()
            with sojourn.task(KIND) as inner:
                assert inner is sojourn.current_task(SyncTask)
                assert outer.id != inner.id
            assert outer is sojourn.current_task()
            assert "active" == outer.state
        with pytest.raises(NotFound):
            sojourn.current_task()

    def test_threads(self, here: Shop) -> None:
        """A thread with a copy of the context finds the task, and another thread does not."""
        found: list[object] = []

        def look() -> None:
            try:
                found.append(sojourn.current_task(SyncTask).token(bound="agent").resource)
            except NotFound:
                found.append(None)

        with sojourn.task(KIND):
            context = contextvars.copy_context()
            for target in (look, lambda: context.run(look)):
                thread = threading.Thread(target=target)
                thread.start()
                thread.join()
        assert [None, here.resource] == found

    async def test_tasks_of_the_loop(self, here: Shop) -> None:
        """Each asyncio task finds the task of the block that started it, also side by side."""

        async def nested() -> str:
            await asyncio.sleep(0.01)
            return sojourn.current_task(Task).id

        async def work() -> tuple[str, str]:
            async with sojourn.task(KIND) as task:
                return task.id, await asyncio.create_task(nested())

        pairs = await asyncio.gather(work(), work(), work())
        assert 3 == len({own for own, _ in pairs})
        assert [own for own, _ in pairs] == [seen for _, seen in pairs]

    async def test_blocking_code_of_an_asynchronous_task(self, here: Shop, trust: ssl.SSLContext) -> None:
        """Blocking code in a thread has the task's twin, whose client blocks there and nowhere else."""

        def blocking() -> int:
            twin = sojourn.current_task()
            assert isinstance(twin, SyncTask)
            with twin.client(here.resource, verify=trust) as client:
                return client.get("/tickets/3").status_code

        async with sojourn.task(KIND) as task:
            assert task is sojourn.current_task()
            assert 200 == await asyncio.to_thread(blocking)
            with pytest.raises(InvalidInput, match="await what you ask of it"):
                sojourn.current_task(SyncTask)

    def test_no_twin_for_a_blocking_task(self, here: Shop) -> None:
        """A task of blocking code has no asynchronous twin."""
        with sojourn.task(KIND), pytest.raises(InvalidInput, match="no twin"):
            sojourn.current_task(Task)


class TestRedirects:
    @pytest.fixture
    def elsewhere(self) -> Iterator[tuple[str, list[str]]]:
        """Another origin, and what it was sent."""
        seen: list[str] = []

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                seen.append(str(self.headers))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        with LoopbackServer(Handler) as server:
            yield f"http://localhost:{server.port}/x", seen

    def test_within(self, here: Shop, trust: ssl.SSLContext) -> None:
        """A redirect within the task is followed with a proof of its own."""
        with sojourn.task(KIND) as task, task.client(here.resource, verify=trust, follow_redirects=True) as client:
            answer = client.get("/away", params={"to": f"{here.resource}/tickets/8"})
            assert (200, "/v1/tickets/8") == (answer.status_code, answer.json()["target"])

    @pytest.mark.parametrize("path", ["/v2/x", "/v1/../v2", "/v1/%2e%2e/v2"])
    def test_elsewhere_at_the_origin(self, here: Shop, trust: ssl.SSLContext, path: str) -> None:
        """A redirect that leads out of the task's resource raises OutsideTask, and nothing is sent there."""
        with sojourn.task(KIND) as task, task.client(here.resource, verify=trust, follow_redirects=True) as client:
            client.get("/tickets/1")
            before = len(here.seen)
            with pytest.raises(OutsideTask):
                client.get("/away", params={"to": here.url + path})
            assert before + 1 == len(here.seen)

    def test_another_origin(self, here: Shop, trust: ssl.SSLContext, elsewhere: tuple[str, list[str]]) -> None:
        """A redirect to another origin raises OutsideTask, and nothing is sent there."""
        url, seen = elsewhere
        with sojourn.task(KIND) as task, task.client(here.resource, verify=trust, follow_redirects=True) as client:
            with pytest.raises(OutsideTask):
                client.get("/away", params={"to": url})
            assert "active" == task.state
        assert [] == seen

    def test_a_client_of_the_programs_own(
        self, here: Shop, trust: ssl.SSLContext, elsewhere: tuple[str, list[str]]
    ) -> None:
        """A client of the program's own that follows to another origin takes no token there."""
        url, seen = elsewhere
        with sojourn.task(KIND) as task, httpx.Client(verify=trust, follow_redirects=True, auth=task.auth()) as client:
            assert 200 == client.get(f"{here.resource}/away", params={"to": url}).status_code
        assert 1 == len(seen)
        assert "authorization" not in seen[0].lower()

    def test_another_host_header(self, here: Shop, trust: ssl.SSLContext) -> None:
        """A Host that is not the URL's, or a user in it, is outside of every task."""
        with sojourn.task(KIND) as task, task.client(here.resource, verify=trust) as client:
            with pytest.raises(OutsideTask):
                client.get("/tickets/1", headers={"Host": "evil.example"})
            with pytest.raises(OutsideTask):
                client.get(here.resource.replace("https://", "https://user:word@") + "/tickets/1")


def test_without_httpx(here: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where httpx is not installed the error says what to install; the task itself works."""
    import sys

    for name in [
        each for each in sys.modules if each == "httpx" or each.startswith("sojourn.sdk.integrations.httpx_auth")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    with sojourn.task(KIND) as task:
        assert task.token(bound="agent").resource == here.resource
        with pytest.raises(FailedPrecondition, match=r"pip install './sojourn\[http\]'"):
            task.client(here.resource)


def test_delegated(here: Shop, trust: ssl.SSLContext, tmp_path: Path) -> None:
    """`sojourn.task(ticket=…)` begins what another task handed on."""
    summarise = "spiffe://example.org/agent/summarise"
    import os

    here.agent.register("/agent/summarise", f"unix:uid:{os.getuid()}")
    with sojourn.task(KIND) as parent:
        ticket = parent.delegate(to=summarise, grants=[Grant.parse(here.resource, ["ticket:read"])])
        with sojourn.task(ticket=ticket) as child, child.client(here.resource, verify=trust) as client:
            assert (200, ["ticket:read"]) == (
                (answer := client.get("/tickets/1")).status_code,
                answer.json()["actions"],
            )
            assert parent.id == child.status.parent_id
