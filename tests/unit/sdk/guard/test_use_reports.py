"""Reports of use: behind the requests, in batches, within limits, and missed once if nobody takes them."""

import asyncio
import logging
from typing import Any

import pytest
from fakes.fake_agent import Fail, ScriptedAgent
from fakes.task_feed import signing_key, token
from grpc import StatusCode
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.limits import TOKEN_USES_BYTES_PER_REPORT, TOKEN_USES_PER_REPORT
from sojourn.sdk.client.client import Client
from sojourn.sdk.guard.use_reports import UseReporter

KEY = signing_key()


def reported(agent: ScriptedAgent) -> list[pb.TokenUse]:
    return [use for method, request in agent.requests if method == "ReportUse" for use in request.uses]


async def seen(agent: ScriptedAgent, uses: int) -> list[pb.TokenUse]:
    async with asyncio.timeout(20):
        while len(reported(agent)) < uses:
            await asyncio.sleep(0.01)
    return reported(agent)


async def test_batched(agent: ScriptedAgent, client: Client) -> None:
    """Calls with the same token for the same action are one use with their number, sent after a while."""
    agent.answers["ReportUse"] = pb.ReportUseResponse()
    async with UseReporter(client, every_seconds=0.05) as reports:
        for action in ("a", "b", "a", "a"):
            reports.note("token", action)
        assert [] == reported(agent)
        assert [("a", 3), ("b", 1)] == [(use.action, use.calls) for use in await seen(agent, 2)]
        reports.note("token", "a")
        assert 1 == (await seen(agent, 3))[-1].calls


async def test_the_first_of_a_task(agent: ScriptedAgent, client: Client) -> None:
    """The first call of a task is reported at once, those that follow with the next report."""
    agent.answers["ReportUse"] = pb.ReportUseResponse()
    async with UseReporter(client, every_seconds=1_000) as reports:
        reports.note("token", "a", "t1")
        assert [1] == [use.calls for use in await seen(agent, 1)]
        reports.note("token", "a", "t1")
        reports.note("token", "a", "t1")
    assert [1, 2] == [use.calls for use in reported(agent)]


@pytest.mark.parametrize("heard", ["t1", ""])
async def test_when_something_is_heard(agent: ScriptedAgent, client: Client, heard: str) -> None:
    """What was noted of a task is reported as soon as something is heard of it, as its end, or of all tasks."""
    agent.answers["ReportUse"] = pb.ReportUseResponse()
    async with UseReporter(client, every_seconds=1_000) as reports:
        reports.note("token", "a", "t1")
        await seen(agent, 1)
        reports.note("token", "b", "t1")
        reports.heard("t2")
        reports.heard(heard)
        assert ["a", "b"] == [use.action for use in await seen(agent, 2)]


async def test_at_the_end(agent: ScriptedAgent, client: Client) -> None:
    """What is left when a service ends is reported then."""
    agent.answers["ReportUse"] = pb.ReportUseResponse()
    async with UseReporter(client, every_seconds=1_000) as reports:
        reports.note("token", "a")
    assert ["token"] == [use.token for use in reported(agent)]


async def test_as_much_as_a_report_holds(agent: ScriptedAgent, client: Client) -> None:
    """Many uses, and long tokens, go in several reports, each within what the agent takes."""
    agent.answers["ReportUse"] = pb.ReportUseResponse()
    async with UseReporter(client, every_seconds=1_000) as reports:
        for number in range(2 * TOKEN_USES_PER_REPORT + 1):
            reports.note(f"{number}", "a")
        for number in range(30):
            reports.note(f"{number}".ljust(15_000, "x"), "a")
    sizes = [request.uses for method, request in agent.requests if method == "ReportUse"]
    assert 2 * TOKEN_USES_PER_REPORT + 31 == sum(map(len, sizes))
    assert all(len(uses) <= TOKEN_USES_PER_REPORT for uses in sizes)
    assert all(sum(len(use.token) for use in uses) <= TOKEN_USES_BYTES_PER_REPORT for uses in sizes)


async def test_lost(agent: ScriptedAgent, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody takes reports their calls are lost, which the log tells once until one is taken again."""
    agent.answers["ReportUse"] = Fail(StatusCode.UNAVAILABLE, "gone")
    with caplog.at_level(logging.WARNING, "sojourn.guard"):
        async with UseReporter(client, every_seconds=0.01) as reports:
            for number in (1, 2, 3):
                reports.note(token(KEY), "a")
                async with asyncio.timeout(20):
                    while reports.lost < number:
                        await asyncio.sleep(0.01)
            told = [record for record in caplog.records if record.name == "sojourn.guard"]
            assert 1 == len(told)
            assert token(KEY)[:20] not in told[0].getMessage()
            agent.answers["ReportUse"] = pb.ReportUseResponse()
            reports.note("good", "a")
            await seen(agent, 4)
            assert 3 == reports.lost


async def test_bounded(agent: ScriptedAgent, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held for the next report is bounded; over that calls are lost, and no request waits."""
    monkeypatch.setattr("sojourn.sdk.guard.use_reports.TOKEN_USES_HELD", 2)
    agent.answers["ReportUse"] = pb.ReportUseResponse()
    async with UseReporter(client, every_seconds=1_000) as reports:
        for name in ("a", "b", "c", "a", "d"):
            reports.note(name, "x")
        assert 2 == reports.lost
    found: Any = {use.token: use.calls for use in reported(agent)}
    assert {"a": 2, "b": 1} == found


async def test_what_is_on_its_way_at_the_end(agent: ScriptedAgent, client: Client) -> None:
    """A report that is under way when a service ends is waited for: nothing that was noted is lost."""
    agent.answers["ReportUse"] = pb.ReportUseResponse()
    async with UseReporter(client, every_seconds=1_000) as reports:
        for number in range(3 * TOKEN_USES_PER_REPORT):
            reports.note(f"{number}", "a", "t1")
        await seen(agent, 1)
        reports.note("last", "a", "t1")
    assert 3 * TOKEN_USES_PER_REPORT + 1 == len(reported(agent))
    assert 0 == reports.lost
