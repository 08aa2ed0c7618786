"""Providers outside that fail, and many who wait for one: whoever asks for something else is answered as ever."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.agent import AgentProcess
from harness.authserver import AuthServer, drop, held, slow, status
from harness.callers import Caller
from harness.exchanges import http, post
from harness.looking import until
from harness.outside import ORDERS, STOCK, client_beside, listed, working_agent
from harness.taskagent import TICKETS
from sojourn import SojournError, SyncClient
from sojourn.limits import CALLS_PER_UID, PROVIDER_CALLS_PER_OWNER
from sojourn.tasktoken.grants import Grant

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def shared(corp: AuthServer, other: AuthServer) -> Iterator[AgentProcess]:
    with working_agent(corp, other) as agent:
        yield agent


@pytest.fixture
def client(shared: AgentProcess, corp: AuthServer, other: AuthServer) -> Iterator[SyncClient]:
    with client_beside(shared, corp, other) as opened:
        yield opened


class TestDown:
    def test_it_fails_its_own_audience_alone(
        self, shared: AgentProcess, client: SyncClient, corp: AuthServer, other: AuthServer
    ) -> None:
        """With one provider that hangs, another one and our own tokens are as quick as ever, and so is the end."""
        other.always["token"] = slow(30)
        before = len(other.calls("token"))
        with client.task("outside") as task, Caller(shared.socket) as waiting:
            mine = waiting.ask("begin", type="outside")["id"]
            waiting.tell("token", task=mine, resource=STOCK)
            until(lambda: len(other.calls("token")) > before, "the provider is asked")
            assert task.token(ORDERS).provider == "corp"
            assert task.token(TICKETS).provider == ""
            assert waiting.hear("refused", "error", "token")["event"] != "token"

    def test_it_is_tried_again(self, client: SyncClient, corp: AuthServer) -> None:
        """A connection that breaks off once is nothing that a task hears of."""
        before = len(corp.calls("token"))
        corp.script("token", drop)
        with client.task("outside") as task:
            assert corp.active(task.token(ORDERS).token)
        assert 2 == len(corp.calls("token")) - before

    def test_it_is_left_alone_and_found_again(
        self, shared: AgentProcess, client: SyncClient, other: AuthServer
    ) -> None:
        """After some failures nobody asks it, operators see that, and once it is back it is found without anyone."""
        other.always["token"] = status(500)
        with client.task("outside") as task:

            def fails() -> bool:
                with pytest.raises(SojournError):
                    task.token(STOCK)
                return listed(shared)["other"].circuit == "open"

            until(fails, "it is left alone")
            asked = len(other.calls("token"))
            for _ in range(20):
                with pytest.raises(SojournError, match="does not answer"):
                    task.token(STOCK)
                if listed(shared)["other"].circuit != "open":
                    break
            assert len(other.calls("token")) <= asked + 1
            assert listed(shared)["other"].fault
            other.always.clear()
            until(lambda: works(task, STOCK), "it is found again")
            assert listed(shared)["other"].circuit == "closed"


def works(task: object, resource: str) -> bool:
    try:
        return bool(task.token(resource).token)
    except SojournError:
        return False


class TestManyWait:
    def test_they_hold_up_nothing_else(
        self, shared: AgentProcess, client: SyncClient, other: AuthServer, corp: AuthServer
    ) -> None:
        """With more of a user's requests waiting for a provider than it may have calls, its others are answered."""
        go_on = threading.Event()
        corp.always["token"] = held(go_on)
        before = len(corp.calls("token"))
        with ThreadPoolExecutor(2 * CALLS_PER_UID) as pool, contextlib.ExitStack() as closing:
            closing.callback(go_on.set)
            tasks = [client.begin_task("outside") for _ in range(CALLS_PER_UID + 8)]  # none is a stream
            forms = [{"grant_type": "client_credentials", "resource": ORDERS, "task_id": each.id} for each in tasks]
            waiting = [pool.submit(fails, lambda task=each: task.token(ORDERS)) for each in tasks]
            waiting += [pool.submit(posted, shared.socket, each) for each in forms[:40]]
            until(lambda: len(corp.calls("token")) - before >= PROVIDER_CALLS_PER_OWNER, "as many ask as may")
            assert tasks[0].token(TICKETS).token
            assert tasks[0].token(STOCK).provider == "other"
            with http(shared.socket) as opened:
                fields = {**forms[0], "resource": TICKETS}
                assert 200 == opened.post("/token", data=fields).status_code
                assert {"active": False} == opened.post("/introspect", data={"token": "x"}).json()
            tasks[0].complete()
            go_on.set()
            codes = {code for each in waiting if (code := each.result())}
        assert codes <= {"", 0, "provider_unavailable", "task_not_active", 400, 503}
        for each in tasks:
            each.complete()

    def test_nor_do_those_that_name_no_resource(
        self, shared: AgentProcess, client: SyncClient, corp: AuthServer
    ) -> None:
        """A request for the only resource of a task, which need not name it, waits with those for its provider."""
        go_on = threading.Event()
        corp.always["token"] = held(go_on)
        with ThreadPoolExecutor(40) as pool, contextlib.ExitStack() as closing:
            closing.callback(go_on.set)
            tasks = [client.begin_task("outside", grants=[Grant.parse(ORDERS, ["orders:read"])]) for _ in range(40)]
            ours = client.begin_task("outside")
            before = len(corp.calls("token"))
            forms = [{"grant_type": "client_credentials", "task_id": each.id} for each in tasks]
            waiting = [pool.submit(posted, shared.socket, each) for each in forms]
            until(lambda: len(corp.calls("token")) - before >= PROVIDER_CALLS_PER_OWNER, "as many ask as may")
            assert 200 == post(shared.socket, {**forms[0], "task_id": ours.id, "resource": TICKETS}).status_code
            assert not any(each.done() for each in waiting)
            go_on.set()
            assert {0} == {each.result() for each in waiting}
        for each in (*tasks, ours):
            each.complete()


def fails(ask: Callable[[], object]) -> str:
    """Ask, and return the code of the error; empty if there is none."""
    try:
        ask()
    except SojournError as error:
        return error.remote_code or error.public
    return ""


def posted(socket_path: str, fields: dict[str, str]) -> int:
    """Ask at the token endpoint, and return the status of the refusal; 0 if it is none."""
    with http(socket_path) as opened:
        answer = opened.post("/token", data=fields)
    return 0 if answer.status_code == 200 else answer.status_code
