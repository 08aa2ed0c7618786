"""What the bench measures of facts: live tasks decided again, and how that and tokens grow with tasks and policies."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

import grpc
from figures import Figure, Growth
from ground import CALL_SECONDS, TRIAGE, Admin, Bench, Helper, entry
from harness.agent import AgentProcess
from harness.facttypes import CEILING, PERMIT, write_types
from harness.taskagent import CONFIG, write_type
from harness.taskagent import TRIAGE as TRIAGE_ID
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn.sdk.client.facts import fact_value

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


def growth(bench: Bench) -> Iterator[Growth]:
    """Ten tasks' policies read the fact; those of all the others read another one."""
    took: list[tuple[float, Sequence[float]]] = []
    with _agent() as agent, Helper(agent.socket) as worker, Operator(agent.admin_socket) as operator:
        worker.call("begin_many", task_type="few", count=10)
        alive = 10
        for count in (10, 100, 1_000, 9_900) if bench.full else (10, 100):
            worker.call("begin_many", task_type="risky", count=count - alive)
            alive = count
            took.append((count, [operator.took("level_few", next(_VALUES)) for _ in range(bench.effort.tries)]))
    yield Growth("a fact that concerns ten of them", "ms", "live tasks", {"Sojourn": took})


FACT_LINES = (
    (11, "facts: live tasks decided again", decided_again),
    (12, "facts: growth with live tasks", growth),
)
