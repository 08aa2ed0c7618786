"""repeats.py: which calls are made again that an agent has not answered because it stops."""

import importlib
import pkgutil
import re
from typing import Any

import grpc
import pytest
from fakes.fake_agent import Fail, ScriptedAgent
from sojourn import _pb
from sojourn._pb import workload_pb2
from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.errors import LimitExceeded, Unavailable
from sojourn.errors.oauth import ShuttingDown
from sojourn.sdk.client.client import Client
from sojourn.sdk.client.repeats import READS

SHUT = Fail(grpc.StatusCode.UNAVAILABLE, "the agent is shutting down", "shutting_down")
CUT = Fail(grpc.StatusCode.UNAVAILABLE, "Socket closed")
COMPLETE, VALIDATE = "/sojourn.v1.Tasks/CompleteTask", "/SpiffeWorkloadAPI/ValidateJWTSVID"
REQUESTS = {
    COMPLETE: (tasks_pb2.CompleteTaskRequest(task_id="t"), tasks_pb2.Task),
    VALIDATE: (workload_pb2.ValidateJWTSVIDRequest(svid="s"), workload_pb2.ValidateJWTSVIDResponse),
}


async def call(agent: ScriptedAgent, client: Client, method: str, *failures: Fail) -> int:
    """Make a call that ends so before it is answered well, and return how often it was made. Raise what it raises."""
    name, left = method.rpartition("/")[2], list(failures)
    request, answer = REQUESTS[method]
    agent.answers[name] = lambda _: left.pop(0) if left else answer()
    client.connection.restart_seconds = 20.0
    await client.connection.unary(method, request, answer)
    return len(agent.requests)


@pytest.mark.parametrize("method", REQUESTS)
async def test_refused_at_the_door(agent: ScriptedAgent, client: Client, method: str) -> None:
    """What a stopping agent refused before it began anything is made again until the next agent answers."""
    assert 3 == await call(agent, client, method, SHUT, SHUT)


async def test_cut_off(agent: ScriptedAgent, client: Client) -> None:
    """A call that was cut off is made again if it only reads; of another nobody knows what came of it."""
    assert 2 == await call(agent, client, VALIDATE, CUT)
    with pytest.raises(Unavailable):
        await call(agent, client, COMPLETE, CUT)
    assert ["CompleteTask"] == [name for name, _ in agent.requests if name == "CompleteTask"]


@pytest.mark.parametrize("answer", [
    Fail(grpc.StatusCode.UNAVAILABLE, "the disk refuses", "store_failed"),
    Fail(grpc.StatusCode.UNAVAILABLE, "not now", "unavailable"),
    Fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many"),
    Fail(grpc.StatusCode.DEADLINE_EXCEEDED, "too late"),
], ids=lambda answer: answer.details)  # fmt: skip
async def test_any_other_answer(agent: ScriptedAgent, client: Client, answer: Fail) -> None:
    """An answer of the agent, and a call that nobody answered in time, stand, of what reads too."""
    with pytest.raises((Unavailable, LimitExceeded)):
        await call(agent, client, VALIDATE, answer)
    assert 1 == len(agent.requests)


async def test_no_agent_comes(agent: ScriptedAgent, client: Client) -> None:
    """Where the next agent is not there in time the refusal is raised, as its own error with the agent's code."""
    agent.answers["CompleteTask"] = SHUT
    request, answer = REQUESTS[COMPLETE]
    client.connection.restart_seconds = 0.3
    with pytest.raises(ShuttingDown) as raised:
        await client.connection.unary(COMPLETE, request, answer)
    assert "shutting_down" == raised.value.remote_code
    assert len(agent.requests) > 1


async def test_by_default_none(agent: ScriptedAgent, client: Client) -> None:
    """A program that uses the client decides by itself: it hears of the first refusal."""
    agent.answers["CompleteTask"] = SHUT
    request, answer = REQUESTS[COMPLETE]
    with pytest.raises(ShuttingDown):
        await client.connection.unary(COMPLETE, request, answer)
    assert 1 == len(agent.requests)


async def test_the_first_of_a_stream(agent: ScriptedAgent, client: Client) -> None:
    """A fetch of identities that was refused or cut off is made again."""
    client.connection.restart_seconds = 20.0
    agent.push("FetchX509Bundles", SHUT, CUT, workload_pb2.X509BundlesResponse(bundles={"spiffe://example.org": b""}))
    found = await client.connection.first(
        "/SpiffeWorkloadAPI/FetchX509Bundles", workload_pb2.X509BundlesRequest(), workload_pb2.X509BundlesResponse
    )
    assert ["spiffe://example.org"] == list(found.bundles)
    assert 3 == len(agent.requests)


def test_which_read() -> None:
    """Each method that reads by its name is one that reads, and all of those are methods; taking a token is no reading."""
    methods = set(_methods())
    assert methods >= READS - {"Check"}
    reading = {name for name in methods if re.match(r"Get|List|Count|Show|Read|Explain", name)}
    assert READS >= reading - {"GetToken"}
    assert "GetToken" in methods - READS
    assert [] == [name for name in READS if re.match(r"Batch|Set|Create|Delete|Change|Mint|Begin|Report", name)]


def _methods() -> list[str]:
    """The names of all methods of all APIs."""
    found = []
    for module in pkgutil.walk_packages(_pb.__path__, f"{_pb.__name__}."):
        if module.name.endswith("_pb2"):
            descriptor: Any = importlib.import_module(module.name).DESCRIPTOR
            found += [each.name for service in descriptor.services_by_name.values() for each in service.methods]
    return found
