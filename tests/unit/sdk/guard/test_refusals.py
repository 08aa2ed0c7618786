"""sdk/guard/refusals.py: what a guard refuses is logged at once and told behind, within limits, and never with a token's text."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from fakes.fake_agent import Fail, ScriptedAgent
from fakes.task_feed import AUDIENCE, HOLDER, signing_key, token
from grpc import StatusCode
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.jose.jws import VerifiedClaims
from sojourn.limits import (
    REFUSAL_TARGETS_TOLD,
    REFUSALS_LOGGED_PER_SECOND,
    REFUSALS_PER_REPORT,
    REFUSED_STRANGERS_HELD,
    TOKEN_USES_BYTES_PER_REPORT,
)
from sojourn.sdk.client.client import Client
from sojourn.sdk.guard.refusals import Refusals, RefusedRequest
from sojourn.tasktoken.request_record import Served
from sojourn.tasktoken.task_claim import TaskClaim
from sojourn.tasktoken.tokens import TaskToken

KEY = signing_key()


def good(text: str = "", task_id: str = "t1") -> TaskToken:
    expires = datetime.now(UTC) + timedelta(minutes=1)
    claims = VerifiedClaims({})
    task = TaskClaim(task_id, "triage", 5, "normal")
    return TaskToken(text or token(KEY), HOLDER, AUDIENCE, ("read",), task, expires, claims)


def refused(target: str = "/a", *, code: str = "wrong_params", token: TaskToken | None = None, shown: str = "") -> RefusedRequest:  # fmt: skip
    return RefusedRequest(code, "it is another one", Served.of("read", "GET", target), token, shown)


def reports(agent: ScriptedAgent) -> list[pb.ReportRefusalsRequest]:
    return [request for method, request in agent.requests if method == "ReportRefusals"]


@pytest.fixture
def answering(agent: ScriptedAgent) -> ScriptedAgent:
    agent.answers["ReportRefusals"] = pb.ReportRefusalsResponse()
    return agent


def refusals(client: Client, every_seconds: float = 1_000) -> Refusals:
    return Refusals(client, AUDIENCE, every_seconds=every_seconds)


async def test_told_behind(answering: ScriptedAgent, client: Client) -> None:
    """Requests that are refused alike are one with their number, told after a while, with the service they came to."""
    async with refusals(client, 0.05) as told:
        for target in ("/a?key=s3cret", "/b", "/a?key=other"):
            told.note(refused(target, token=good("x.y.z")))
        assert [] == reports(answering)
        async with asyncio.timeout(20):
            while not reports(answering):
                await asyncio.sleep(0.01)
    (report,) = reports(answering)
    assert AUDIENCE == report.audience
    assert [("x.y.z", "wrong_params", "/a?key", 2), ("x.y.z", "wrong_params", "/b", 1)] == [
        (each.token, each.code, each.request.target, each.count) for each in report.refusals
    ]


async def test_many_tries_of_one(answering: ScriptedAgent, client: Client) -> None:
    """Of many tries with one token some are told one by one and the others together: none is forgotten."""
    held = good()
    async with refusals(client) as told:
        for number in range(1_000):
            told.note(refused(f"/{number}", token=held))
    (report,) = reports(answering)
    assert REFUSAL_TARGETS_TOLD + 1 == len(report.refusals)
    assert 1_000 == sum(each.count for each in report.refusals)
    assert [1_000 - REFUSAL_TARGETS_TOLD] == [each.count for each in report.refusals if not each.HasField("request")]


async def test_strangers(answering: ScriptedAgent, client: Client) -> None:
    """A token that is no good is told if it may have been one of ours, some of them; all else is counted."""
    async with refusals(client) as told:
        for code in ("no_token", "malformed", "unknown_key", "malformed"):
            told.note(refused(code=code, shown="who.knows.what"))
        for number in range(REFUSED_STRANGERS_HELD + 20):
            told.note(refused(code="task_over", shown=f"a.b.{number}"))
    (report,) = reports(answering)
    assert REFUSED_STRANGERS_HELD == len(report.refusals)
    assert {"no_token": 1, "malformed": 2, "unknown_key": 1, "task_over": 20} == {
        each.code: each.count for each in report.others
    }
    assert b"who.knows" not in report.SerializeToString()


async def test_as_much_as_a_report_holds(answering: ScriptedAgent, client: Client) -> None:
    """Many tokens, and long ones, go in several reports, each within what the agent takes."""
    async with refusals(client) as told:
        for number in range(2 * REFUSALS_PER_REPORT + 1):
            told.note(refused(token=good(f"a.b.{number}")))
        for number in range(30):
            told.note(refused(token=good(f"{number}".ljust(15_000, "x"))))
    assert 2 * REFUSALS_PER_REPORT + 31 == sum(len(each.refusals) for each in reports(answering))
    assert all(len(each.refusals) <= REFUSALS_PER_REPORT for each in reports(answering))
    sizes = [sum(len(each.token) for each in report.refusals) for report in reports(answering)]
    assert max(sizes) <= TOKEN_USES_BYTES_PER_REPORT


async def test_bounded(answering: ScriptedAgent, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held for the next report is bounded; more is counted by its reason."""
    monkeypatch.setattr("sojourn.sdk.guard.refusals.REFUSALS_HELD", 2)
    async with refusals(client) as told:
        for number in range(5):
            told.note(refused(token=good(f"a.b.{number}")))
    (report,) = reports(answering)
    assert (2, {"wrong_params": 3}) == (len(report.refusals), {each.code: each.count for each in report.others})


async def test_lost(agent: ScriptedAgent, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody takes them they are lost, which the log tells once; requests go on."""
    agent.answers["ReportRefusals"] = Fail(StatusCode.UNIMPLEMENTED, "an older agent")
    async with refusals(client, 0.01) as told:
        for number in (1, 2, 3):
            told.note(refused(token=good()))
            async with asyncio.timeout(20):
                while told.lost < number:
                    await asyncio.sleep(0.01)
    assert 1 == sum("cannot be told" in each.getMessage() for each in caplog.records)


async def test_log(answering: ScriptedAgent, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """The log has task, action, request and reason of each refusal: of a task as a warning, of anybody as information."""
    del answering
    held = good()
    with caplog.at_level(logging.INFO, "sojourn.guard"):
        async with refusals(client) as told:
            told.note(refused("/orders/2", token=held))
            told.note(refused("/orders/3", code="malformed", shown="who.knows.what"))
    lines = [(each.levelname, each.getMessage()) for each in caplog.records if each.name == "sojourn.guard"]
    assert [
        ("WARNING", "refused: task t1, action read, GET /orders/2: it is another one (wrong_params)"),
        ("INFO", "refused: task -, action read, GET /orders/3: it is another one (malformed)"),
    ] == lines
    assert held.token[:30] not in caplog.text
    assert "who.knows" not in caplog.text


async def test_a_flood_is_not_logged(
    answering: ScriptedAgent, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a flood so many lines a second are written, and later how many were not."""
    del answering
    second = iter([0.0] * 100 + [1.0] * 100)
    with caplog.at_level(logging.INFO, "sojourn.guard"):
        async with Refusals(client, AUDIENCE, every_seconds=1_000, now=lambda: next(second)) as told:
            for _ in range(101):
                told.note(refused(token=good("a.b.c")))
    found = [each.getMessage() for each in caplog.records]
    assert REFUSALS_LOGGED_PER_SECOND + 2 == len(found)
    assert f"{100 - REFUSALS_LOGGED_PER_SECOND} refusals before that one" in found[-1]
