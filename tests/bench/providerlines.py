"""What the bench measures of credentials that a provider outside gives."""

import asyncio
import http.client
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any
from urllib.parse import urlencode

from figures import Figure, percentile
from ground import HERE, TRIAGE, Admin, Bench, entry
from harness.agent import AgentProcess
from harness.taskagent import CONFIG, write_type
from harness.taskagent import TRIAGE as TRIAGE_ID
from sojourn import Client

OUTSIDE, OWN = "https://outside.example.org", "https://own.example.org"
ENDING = 1_000
OTHERS = 100
AT_ONCE = 20
SLOW_SECONDS = 2.0
PROVIDER = """
[providers.outside]
kind = "bearer"
issuer = "http://127.0.0.1:{port}"
token_endpoint = "http://127.0.0.1:{port}/token"
revocation_endpoint = "http://127.0.0.1:{port}/revoke"
plain_http = true
"""
TYPE = f"""
allowed_workloads = ["{TRIAGE_ID}"]
max_duration = "1h"
[[ceiling]]
resource = "{OUTSIDE}"
actions = ["doc:read"]
provider = "outside"
[[ceiling]]
resource = "{OWN}"
actions = ["doc:read"]
"""


@contextmanager
def ground(revoking_seconds: float) -> Iterator[tuple[AgentProcess, int]]:
    """An agent with a provider, and the port of its token endpoint."""
    command = [sys.executable, str(HERE / "tokenendpoint.py"), str(revoking_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as endpoint:
        try:
            assert endpoint.stdout is not None
            port = int(endpoint.stdout.readline())
            agent = AgentProcess(config=CONFIG.format(level="warning") + PROVIDER.format(port=port))
            types = agent.folder / "types"
            types.mkdir()
            write_type(types, "docs", TYPE, '@id("all") permit (principal, action, resource);')
            with agent, Admin(agent.admin_socket) as admin:
                admin.create([entry(TRIAGE)])
                yield agent, port
        finally:
            endpoint.kill()


async def _each(count: int, do: Callable[[int], Awaitable[Any]], at_once: int = AT_ONCE) -> list[float]:
    """Do it so often, so many at once, and return how long each took, in milliseconds."""
    turn = asyncio.Semaphore(at_once)

    async def one(number: int) -> float:
        async with turn:
            begun = perf_counter()
            await do(number)
            return (perf_counter() - begun) * 1000

    return list(await asyncio.gather(*(one(number) for number in range(count))))


def _direct(port: int, calls: int) -> list[float]:
    """What the provider itself takes, for the same request over a kept connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "x" * 700}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    took = []
    for _ in range(calls):
        begun = perf_counter()
        connection.request("POST", "/token", urlencode(form), headers)
        connection.getresponse().read()
        took.append((perf_counter() - begun) * 1000)
    connection.close()
    return took


def answers(bench: Bench) -> Iterator[Figure | str]:
    with ground(0) as (agent, port):
        rows = asyncio.run(_answers(bench, agent, port))
    for name, (unit, values) in rows.items():
        yield Figure.of(name, unit, values)
    yield "what is added has two writes to the disk in it: that the provider is asked, and what it gave"


async def _answers(bench: Bench, agent: AgentProcess, port: int) -> dict[str, tuple[str, list[float]]]:
    rows: dict[str, tuple[str, list[float]]] = {}
    async with Client(agent.socket) as client:
        for _ in range(bench.effort.repetitions):
            for name, unit, value in await _repetition(client, port, bench.effort.calls):
                rows.setdefault(name, (unit, []))[1].append(value)
    return rows


async def _repetition(client: Client, port: int, calls: int) -> list[tuple[str, str, float]]:
    tasks = [await client.begin_task("docs") for _ in range(2 * calls)]
    direct = _direct(port, calls)
    first = await _each(calls, lambda number: tasks[number].token(OUTSIDE), 1)
    own = await _each(calls, lambda number: tasks[calls + number].token(OWN), 1)
    again = await _each(calls, lambda _: tasks[0].token(OUTSIDE), 1)
    begun = perf_counter()
    await _each(10 * calls, lambda _: tasks[0].token(OUTSIDE), 8)
    rate = 10 * calls / (perf_counter() - begun)
    await _each(len(tasks), lambda number: tasks[number].complete())
    return [
        ("the provider alone: p50", "ms", percentile(direct, 50)),
        ("a first answer: p50", "ms", percentile(first, 50)),
        ("added to the provider's own answer: p50", "ms", percentile(first, 50) - percentile(direct, 50)),
        ("a token of our own: p50", "ms", percentile(own, 50)),
        ("a cached answer: p50", "ms", percentile(again, 50)),
        ("a cached answer: p99", "ms", percentile(again, 99)),
        ("cached answers, 8 at once", "/s", rate),
    ]


def endings(bench: Bench) -> Iterator[Figure | str]:
    found: list[tuple[list[float], list[float], list[float]]] = []
    left = []
    count = ENDING if bench.effort.calls > 100 else ENDING // 10
    for _ in range(bench.effort.repetitions):
        with ground(SLOW_SECONDS) as (agent, _port):  # anew: nothing waits from the repetition before
            found.append(asyncio.run(_endings(agent, count)))
            left.append(float(agent.json("provider", "show", "outside")["residual"]))
    for share in (50, 99):
        for title, which in (
            (f"end of a task without, beside {count:,} without", 0),
            (f"end of a task without, beside {count:,} with", 1),
            ("end of a task with", 2),
        ):
            yield Figure.of(f"{title}: p{share}", "ms", [percentile(each[which], share) for each in found])
    yield Figure.of("credentials that wait to be taken back then", "", left)
    yield f"the provider takes {SLOW_SECONDS:g} s for a revocation; {2 * AT_ONCE} ends are under way at once"


async def _endings(agent: AgentProcess, count: int) -> tuple[list[float], list[float], list[float]]:
    """How long the ends of others take beside a crowd that has no credentials, and beside one that has; and of that."""
    async with Client(agent.socket) as client:

        async def begun(number: int, resource: str) -> list[Any]:
            tasks = [await client.begin_task("docs") for _ in range(number)]
            await _each(number, lambda each: tasks[each].token(resource), 10)
            return tasks

        async def beside(others: list[Any], crowd: list[Any]) -> tuple[list[float], list[float]]:
            ending = asyncio.ensure_future(_each(len(crowd), lambda each: crowd[each].complete(), AT_ONCE))
            took = await _each(len(others), lambda each: others[each].complete(), AT_ONCE)
            return took, await ending

        alone, _ = await beside(await begun(OTHERS, OWN), await begun(count, OWN))
        others, crowd = await beside(await begun(OTHERS, OWN), await begun(count, OUTSIDE))
        return alone, others, crowd


PROVIDER_LINES = (
    (20, "credentials of a provider outside", answers),
    (21, f"{ENDING:,} tasks with such credentials end at once", endings),
)
