"""The command as a process, at an agent that stops and comes back: what it makes again, and what it does not."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from fakes.fake_agent import Fail, ScriptedAgent
from harness.agent import COMMAND, clean_environment
from sojourn._pb import workload_pb2
from sojourn._pb.sojourn.v1 import admin_pb2

SHUT = Fail(grpc.StatusCode.UNAVAILABLE, "the agent is shutting down", "shutting_down")
CUT = Fail(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[ScriptedAgent]:
    """One that stands in for an agent at both of its sockets."""
    async with ScriptedAgent().serve(tmp_path / "a.sock") as running:
        yield running


async def run(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    """A command's exit status, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**clean_environment(), "SOJOURN_SOCKET": str(tmp_path / "a.sock"), "SOJOURN_ADMIN_SOCKET": str(tmp_path / "a.sock")},
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_what_reads(agent: ScriptedAgent, tmp_path: Path) -> None:
    """A command that reads is answered by the next agent, also where the one before cut it off."""
    left = [SHUT, CUT]
    agent.answers["ListReviews"] = lambda _: left.pop(0) if left else admin_pb2.ListReviewsResponse()
    agent.answers["ListReviewItems"] = admin_pb2.ListReviewItemsResponse()
    status, out, err = await run(tmp_path, "review", "list", "--output", "json")
    assert (0, "", []) == (status, err, json.loads(out)["reviews"])
    assert 4 == len(agent.requests)  # and one for the items


async def test_what_writes(agent: ScriptedAgent, tmp_path: Path) -> None:
    """A command that changes something is made again where the agent says that nothing was done, and at no other end."""
    left = [SHUT]
    agent.answers["UnsetFact"] = lambda _: left.pop(0) if left else admin_pb2.UnsetFactResponse()
    status, _, err = await run(tmp_path, "fact", "unset", "frozen", "--subject", "global")
    assert (0, 2) == (status, len(agent.requests)), err
    agent.answers["UnsetFact"] = CUT
    status, _, err = await run(tmp_path, "fact", "unset", "frozen", "--subject", "global")
    assert (True, 3) == (status != 0, len(agent.requests)), err


async def test_what_is_told_in_parts(agent: ScriptedAgent, tmp_path: Path) -> None:
    """A list in parts is begun again that was refused; one of which a part was told is not told twice."""
    part = admin_pb2.ListAuditResponse(records=[admin_pb2.AuditRecord(seq=7, event="agent_started")])
    agent.push("ReadAudit", SHUT, part, CUT)
    status, out, _ = await run(tmp_path, "audit", "tail", "--follow", "--output", "json")
    assert 2 == len(agent.requests)
    assert (True, 1) == (status != 0, out.count("agent_started"))


async def test_an_identity(agent: ScriptedAgent, tmp_path: Path) -> None:
    """A workload's own call that the agent refused as it stops is made again too; the next answer stands."""
    left = [SHUT]
    agent.answers["FetchJWTSVID"] = lambda _: left.pop(0) if left else workload_pb2.JWTSVIDResponse()
    _, _, err = await run(tmp_path, "svid", "jwt", "--audience", "a")
    assert (2, True) == (len(agent.requests), "no_identity" in err), err
