"""What the bench measures of facts: live tasks decided again, and how that and tokens grow with tasks and policies."""

import itertools
import timeit
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import grpc
from figures import Figure
from ground import CALL_SECONDS, TRIAGE, Admin, Bench, Helper, entry
from harness.agent import AgentProcess
from harness.facttypes import CEILING, PERMIT, write_types
from harness.taskagent import CONFIG, PLACE_A, write_type
from harness.taskagent import TRIAGE as TRIAGE_ID
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn.sdk.facts import fact_value
from sojourn.tasks.policy import Context, Principal
from sojourn.tasks.types import parse

CROWD = 1_000
_VALUES = itertools.count(1)  # that are no risk yet: each is another one
RISK = (
    f'allowed_workloads = ["{TRIAGE_ID}"]\n[facts]\nlevel = "long"\n{CEILING}',
    PERMIT
    + '@id("high") forbid (principal, action, resource) when { context.facts has level && context.facts.level < 0 };',
)


class Operator:
    """Says facts over one kept connection, and times it."""

    def __init__(self, socket: str) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._call = self._channel.unary_unary(
            "/sojourn.v1.Admin/SetFact",
            request_serializer=admin_pb2.SetFactRequest.SerializeToString,
            response_deserializer=admin_pb2.SetFactResponse.FromString,
        )

    def took(self, name: str, value: int | bool) -> float:
        """Say it, and return the milliseconds until all that depends on it was decided again."""
        begun = monotonic()
        self._call(admin_pb2.SetFactRequest(name=name, value=fact_value(value)), timeout=CALL_SECONDS)
        return (monotonic() - begun) * 1000

    def __enter__(self) -> "Operator":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


@contextmanager
def _agent() -> Iterator[AgentProcess]:
    agent = AgentProcess(config=CONFIG.format(level="info"))
    types = agent.folder / "types"
    types.mkdir()
    write_types(types)
    for name in ("risky", "few"):
        write_type(types, name, RISK[0].replace("level", f"level_{name}"), RISK[1].replace("level", f"level_{name}"))
    with agent, Admin(agent.admin_socket) as admin:
        admin.create([entry(TRIAGE)])
        yield agent


def decided_again(bench: Bench) -> Iterator[Figure]:
    tries = max(3, bench.effort.tries // 3)
    crowd = CROWD if bench.full else CROWD // 10
    with _agent() as agent, Helper(agent.socket) as worker, Operator(agent.admin_socket) as operator:
        worker.call("begin_many", task_type="risky", count=crowd)
        took = [operator.took("level_risky", next(_VALUES)) for _ in range(tries)]
        yield Figure.of(f"{crowd:,} live tasks decided again, all kept", "ms", took)
    with _agent() as agent, Helper(agent.socket) as worker, Operator(agent.admin_socket) as operator:
        worker.call("begin_many", task_type="suspended", count=crowd)
        suspended, back = [], []
        for _ in range(tries):
            suspended.append(operator.took("freeze", True))
            back.append(operator.took("freeze", False))
        yield Figure.of(f"{crowd:,} live tasks suspended by a fact", "ms", suspended)
        yield Figure.of(f"{crowd:,} tasks given back, on disk", "ms", back)


def growth(bench: Bench) -> Iterator[Figure]:
    with _agent() as agent, Helper(agent.socket) as worker, Operator(agent.admin_socket) as operator:
        worker.call("begin_many", task_type="few", count=10)
        alive = 10
        for count in (10, 1_000, 10_000) if bench.full else (10, 200):
            if count > alive:
                worker.call("begin_many", task_type="risky", count=count - alive - 1)  # one is that of the tokens
                alive = count - 1
            worker.call("tokens_of", task_type="risky", tries=5)
            runs = [worker.call("tokens_of", task_type="risky", tries=bench.effort.calls) for _ in range(2)]
            yield Figure.of(f"GetToken beside {count:,} live tasks: p50", "ms", [run["p50"] for run in runs])
            took = [operator.took("level_few", next(_VALUES)) for _ in range(bench.effort.tries)]
            yield Figure.of(f"a fact that concerns 10 of {count:,} live tasks", "ms", took)
    for count in (10, 50, 500):
        yield _decision(count, bench)


def _decision(count: int, bench: Bench) -> Figure:
    """One decision of a type with that many policies, about another task each time."""
    forbids = "\n".join(
        f'@id("f{number}") forbid (principal, action == Sojourn::Action::"{"doc:read" if number % 10 == 0 else "doc:write"}",'
        f" resource) when {{ principal.calls > {1_000_000 + number} }};"
        for number in range(count - 1)
    )
    kind = parse("many", f'allowed_workloads = ["{TRIAGE_ID}"]\n{CEILING}', PERMIT + forbids)
    numbers = itertools.count()

    def decide() -> None:
        principal = Principal("tsk_" + "A" * 22, "many", TRIAGE_ID, "active", next(numbers), 0)
        if not kind.policy.decide(principal, "doc:read", PLACE_A, Context()):
            raise RuntimeError("the decision is a deny")

    loops = 500
    times = timeit.repeat(decide, number=loops, repeat=bench.effort.repetitions)
    return Figure.of(
        f"a decision at {count} policies, a tenth of them about the action", "µs", [t / loops * 1e6 for t in times]
    )


FACT_LINES = (
    (11, "facts: live tasks decided again", decided_again),
    (12, "facts: growth with tasks and policies", growth),
)
