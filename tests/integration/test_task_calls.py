"""gRPC clients with a task's authority, and guarded tools, against a real agent and real servers."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import sojourn
from fakes import services
from fakes.services import SERVICE, GrpcService, Ticket
from harness.agent import AgentProcess
from harness.looking import until
from harness.taskagent import PLACE_A, PLACE_B, TICKETS, TRIAGE, make_agent, write_type
from sojourn.errors import InvalidInput, TaskOver
from sojourn.errors.oauth import OutsideTask, ToolRefused
from sojourn.sdk.guard.tools import guarded
from sojourn.sdk.integrations.grpc_client import aio_interceptors, interceptors
from sojourn.tasktoken.grants import Grant

HIGH = f"""
allowed_workloads = ["{TRIAGE}"]
consequence = "high"
[params]
ticket = "string"
[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:read"]
"""
ALL = '@id("all") permit (principal, action, resource);'
TYPES = pytest.mark.parametrize("task_type", ["triage-ticket", "high-tickets"])
GOOD, OTHER = GrpcService.message("42"), GrpcService.message("43")


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with make_agent() as running:
        write_type(running.folder / "types", "high-tickets", HIGH, ALL)
        running.run("policy", "reload")
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running


@pytest.fixture(params=["grpc", "grpc-aio"])
def service(request: pytest.FixtureRequest, agent: AgentProcess) -> Iterator[GrpcService]:
    make = services.grpc_service if request.param == "grpc" else services.grpc_aio_service
    with make(Path(agent.socket)) as running:
        yield running


def begin(agent: AgentProcess, name: str = "triage-ticket", **options: Any) -> Any:
    return sojourn.task(name, params={"ticket": "42"}, socket=agent.socket, **options)


def method(channel: Any, name: str) -> Any:
    kind = {"Follow": "unary_stream", "Collect": "stream_unary", "Chat": "stream_stream"}.get(name, "unary_unary")
    return getattr(channel, kind)(SERVICE + name, Ticket.SerializeToString, Ticket.FromString)


class TestBlocking:
    @TYPES
    def test_one_request(self, agent: AgentProcess, service: GrpcService, task_type: str) -> None:
        """A call has its token, its proof, and the nonce that a young service asks for; another ticket has not."""
        with begin(agent, task_type) as task:
            channel = grpc.intercept_channel(service.channel, *interceptors(task, TICKETS))
            for _ in range(2):
                answer, call = method(channel, "Read").with_call(GOOD)
                assert (f"{TRIAGE} hello", grpc.StatusCode.OK) == (answer.text, call.code())
            assert ["0", "1"] == [each.text[-1] for each in method(channel, "Follow")(GOOD)]
            for name in ("Read", "Follow", "Delete"):
                assert grpc.StatusCode.PERMISSION_DENIED is refusal(
                    lambda name=name: all_of(method(channel, name)(OTHER))
                )

    def test_many_requests(self, agent: AgentProcess, service: GrpcService) -> None:
        """A call that streams its requests has one token for all."""
        with begin(agent) as task:
            channel = grpc.intercept_channel(service.channel, *interceptors(task, TICKETS))
            method(channel, "Read")(GOOD)  # it may be asked for a nonce, which a stream cannot come back with
            assert 2 == method(channel, "Collect")(iter([GOOD, GOOD])).text.count("hello")
            assert 2 == len(list(method(channel, "Chat")(iter([GOOD, GOOD]))))
            assert grpc.StatusCode.PERMISSION_DENIED is refusal(lambda: method(channel, "Collect")(iter([GOOD, OTHER])))

    def test_outside(self, agent: AgentProcess, service: GrpcService) -> None:
        """What is not within the task is not sent, and says why."""
        with begin(agent) as task:
            named = interceptors(task, TICKETS, actions={SERVICE + "Read": "ticket:read", SERVICE + "Delete": "x"})
            channel = grpc.intercept_channel(service.channel, *named)
            assert f"{TRIAGE} hello" == method(channel, "Read")(GOOD).text
            for name in ("Delete", "Follow"):
                with pytest.raises(OutsideTask):
                    all_of(method(channel, name)(GOOD))
            elsewhere = grpc.intercept_channel(service.channel, *interceptors(task, PLACE_B))
            with pytest.raises(OutsideTask):
                method(elsewhere, "Read")(GOOD)
        with pytest.raises(TaskOver):
            method(channel, "Read")(GOOD)


class TestAsynchronous:
    @TYPES
    async def test_one_request(self, agent: AgentProcess, service: GrpcService, task_type: str) -> None:
        """On an event loop a call has its token, its proof and the nonce that a young service asks for; another ticket has not."""
        async with begin(agent, task_type) as task, channel_of(service, aio_interceptors(task, TICKETS)) as channel:
            for _ in range(2):
                assert f"{TRIAGE} hello" == (await method(channel, "Read")(GOOD)).text
            assert ["0", "1"] == [each.text[-1] async for each in method(channel, "Follow")(GOOD)]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(channel, "Read")(OTHER)
            assert grpc.StatusCode.PERMISSION_DENIED is caught.value.code()
            with pytest.raises(grpc.aio.AioRpcError):
                assert [] == [each async for each in method(channel, "Follow")(OTHER)]

    async def test_many_requests(self, agent: AgentProcess, service: GrpcService) -> None:
        """On an event loop a call that streams its requests has one token for all."""
        async with begin(agent) as task, channel_of(service, aio_interceptors(task, TICKETS)) as channel:
            await method(channel, "Read")(GOOD)
            assert 2 == (await method(channel, "Collect")(iter([GOOD, GOOD]))).text.count("hello")
            assert 2 == len([each async for each in method(channel, "Chat")(iter([GOOD, GOOD]))])


def channel_of(service: GrpcService, attached: list[Any]) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{service.port}", interceptors=attached)


def all_of(answer: Any) -> Any:
    return list(answer) if hasattr(answer, "__next__") else answer


def refusal(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()  # type: ignore[attr-defined]


@guarded("ticket:read", params=["ticket"])
def read_ticket(ticket: str, *, notes: int = 0) -> str:
    return f"{ticket} {notes}"


@guarded("ticket:read", params={"number": "ticket"})
async def find_ticket(number: str) -> str:
    await asyncio.sleep(0)
    return number


@guarded("doc:read", resource=PLACE_B)
def read_doc(**about: str) -> str:
    return str(about)


@guarded("doc:read")
def read_any_doc() -> str:
    return "doc"


@guarded("doc:destroy")
def destroy(doc: object) -> str:
    return f"destroyed {doc}"


class TestTools:
    @TYPES
    def test_plain(self, agent: AgentProcess, task_type: str) -> None:
        """A tool runs for the ticket of its task, however it is given, and for no other."""
        with begin(agent, task_type):
            assert ("42 0", "42 3") == (read_ticket("42"), read_ticket(notes=3, ticket="42"))
            with pytest.raises(ToolRefused, match="its task is for another 'ticket'") as caught:
                read_ticket("43")
            assert ("read_ticket", "ticket:read") == (caught.value.tool, caught.value.action)

    @TYPES
    async def test_coroutine(self, agent: AgentProcess, task_type: str) -> None:
        """A coroutine is guarded the same, also by an argument that has another name than the parameter."""
        async with begin(agent, task_type):
            assert "42" == await find_ticket("42")
            with pytest.raises(ToolRefused):
                await find_ticket("43")
            assert "42 0" == await asyncio.to_thread(read_ticket, "42")
            with pytest.raises(ToolRefused, match="await"):
                read_ticket("42")  # it would block the loop that the task needs

    def test_no_task(self) -> None:
        """Without a task no guarded tool runs."""
        with pytest.raises(ToolRefused, match="no task is running here"):
            read_ticket("42")
        with pytest.raises(ToolRefused):
            asyncio.run(find_ticket("42"))

    def test_not_within_the_task(self, agent: AgentProcess) -> None:
        """An action that the task has not is refused, nowhere or in doubt where, and the reason says so."""
        with begin(agent), pytest.raises(ToolRefused, match="nowhere"):
            destroy("x")
        places = sojourn.task("two-places", socket=agent.socket)
        with places, pytest.raises(ToolRefused, match="several resources"):
            read_any_doc()
        narrow = sojourn.task("two-places", socket=agent.socket, grants=[Grant.parse(PLACE_A, ["doc:read"])])
        with narrow, pytest.raises(ToolRefused) as caught:
            read_doc(name="x")
        assert caught.value.reason_code not in {"", "internal"}

    def test_after_its_end(self, agent: AgentProcess) -> None:
        """Once the task is over no tool runs, whoever ended it."""
        with begin(agent) as task:
            agent.run("task", "revoke", task.id)
            until(lambda: task.ended, "the task is over")
            with pytest.raises(ToolRefused, match="task is revoked"):
                read_ticket("42")

    def test_high_class_needs_arguments_that_can_be_said(self, agent: AgentProcess) -> None:
        """Of class high a call is allowed as it is: with arguments that are no JSON nothing could be."""
        with sojourn.task("careful", socket=agent.socket):
            assert "destroyed x" == destroy("x")
            with pytest.raises(ToolRefused):
                destroy(0.5)
            with pytest.raises(ToolRefused):
                destroy(threading.Lock())

    def test_arguments_by_any_name(self, agent: AgentProcess) -> None:
        """An argument that a function takes by any name is the task's parameter if it is said to be, and is there."""

        @guarded("ticket:read", params=["ticket"])
        def read(**about: str) -> str:
            return about["ticket"]

        @guarded("ticket:read")
        def read_any(**about: str) -> str:
            return about["ticket"]

        with begin(agent):
            assert "42" == read(ticket="42")
            with pytest.raises(ToolRefused):
                read(ticket="43")
            for refused in (read, lambda: read_any(ticket="42")):
                with pytest.raises(ToolRefused, match="compared with nothing"):
                    refused()

    def test_what_cannot_be_guarded(self) -> None:
        """A name that is no argument, and a generator, are told when they are decorated."""
        with pytest.raises(InvalidInput, match="no argument 'x'"):
            guarded("a", params=["x"])(lambda ticket: ticket)

        def later() -> Iterator[int]:
            yield 1

        with pytest.raises(InvalidInput, match="generator"):
            guarded("a")(later)
