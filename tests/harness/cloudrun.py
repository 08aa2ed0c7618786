"""`sojourn task run` as a real process, before an agent whose answers the test sets, with resources of all clouds."""

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from fakes.cloudtask import AWS, ENTRA, GCP, KEY, VAULT
from fakes.fake_agent import Fail, ScriptedAgent
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.sdk.task.values import Outside

from harness.agent import COMMAND, clean_environment
from harness.vaultecho import Upstream

PROGRAM = str(Path(__file__).with_name("cloudprogram.py"))
SECONDS = 30.0
LATER = 4_000_000_000


class CloudAgent:
    """Gives a new credential each time that it is asked, good for `seconds`. `over`: what it says instead."""

    def __init__(self, fake: ScriptedAgent, socket: Path, outside: list[Outside]) -> None:
        self.fake = fake
        self.socket = socket
        self.seconds = 900.0
        self.given: list[str] = []  # what is secret of it
        self.over = ""
        self._outside = {each.resource: each for each in outside}
        self._numbers = itertools.count(1)
        fake.answers["GetToken"] = self._give
        fake.answers["complete"] = pb.TaskEvent(ended=self.task("completed"))
        fake.push("RunTask", pb.TaskEvent(begun=self.task()))

    def task(self, state: str = "active", reason: str = "") -> pb.Task:
        return pb.Task(
            id="t1",
            type="use-clouds",
            spiffe_id="spiffe://example.org/agent/triage",
            state=state,
            reason=reason,
            version=5,
            grants=[pb.Grant(resource=each, actions=["use"]) for each in self._outside],
            created_at=1_700_000_000,
            expires_at=LATER,
            outside=[
                pb.Outside(resource=each.resource, provider=each.provider, kind=each.kind, details=each.details)
                for each in self._outside.values()
            ],
        )

    def end(self, state: str, reason: str) -> None:
        self.over = f"task is {state}: {reason}"
        self.fake.push("RunTask", pb.TaskEvent(ended=self.task(state, reason)), None)

    def _give(self, request: pb.GetTokenRequest) -> Any:
        if self.over:
            return Fail(grpc.StatusCode.FAILED_PRECONDITION, self.over, "task_over")
        outside = self._outside[request.resource]
        number = next(self._numbers)
        text = f"secret-{outside.kind}-{number}"
        self.given.append(text)
        kind, issued = "Bearer", ""
        if outside.kind == "aws":
            kind, issued = "N_A", "urn:sojourn:token-type:aws-credentials"
            text = json.dumps({**KEY, "AccessKeyId": f"AKID{number}", "SecretAccessKey": text, "Expiration": "x"})
        if outside.kind == "vault":
            kind, issued = "N_A", "urn:sojourn:token-type:vault-token"
        return pb.GetTokenResponse(
            access_token=text,
            token_type=kind,
            expires_at=int(time.time() + self.seconds),
            resource=request.resource,
            actions=["use"],
            issued_token_type=issued,
            provider=outside.provider,
            recall="none",
        )

    # --- use ---

    def environment(self, **more: str) -> dict[str, str]:
        return {**clean_environment(), "SPIFFE_ENDPOINT_SOCKET": f"unix://{self.socket}", **more}

    async def run(self, *command: str, options: tuple[str, ...] = (), **environment: str) -> "Run":
        """Start `sojourn task run` with a command; the program of the SDKs by default."""
        words = [*COMMAND, "task", "run", "--type", "use-clouds", "--grace", "30", *options, "--", *command]
        process = await asyncio.create_subprocess_exec(
            *words,
            env=self.environment(**environment),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return Run(process)

    async def program(self, what: str, *, options: tuple[str, ...] = (), **environment: str) -> "Run":
        return await self.run(sys.executable, PROGRAM, what, options=options, **environment)


class Run:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> Any:
        """The next document that the command prints."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS):
            text = await self.process.stdout.readline()
        assert text, (await self.process.communicate())[1].decode()
        return json.loads(text)

    async def done(self) -> tuple[int, str, str]:
        """Exit status, and what is left of both streams."""
        async with asyncio.timeout(SECONDS):
            out, err = await self.process.communicate()
        return self.process.returncode or 0, out.decode(), err.decode()

    async def killed(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def cloud_agent(folder: Path, vault: Upstream, *more: Outside) -> AsyncIterator[CloudAgent]:
    """An agent whose next task has a resource of each cloud, `more` beside them, and `vault` for its Vault."""
    socket = folder / "agent.sock"
    there = replace(VAULT, details={**VAULT.details, "address": vault.address})
    async with ScriptedAgent().serve(socket) as fake:
        yield CloudAgent(fake, socket, [AWS, GCP, ENTRA, there, *more])


def left_behind(folder: Path) -> list[str]:
    """What runs have left in a folder for temporary files."""
    return sorted(each for each in os.listdir(folder) if each.startswith("sojourn-cloud-"))
