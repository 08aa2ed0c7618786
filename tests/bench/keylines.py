"""What keys of roots in a token cost: nothing but a start and a rotation, however slow the token is."""

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import grpc
from beside import Load, Run, Subject, beside
from clients import go_load
from figures import Figure, percentile
from ground import CALL_SECONDS, TRIAGE, Admin, Bench, Helper, entry, needed
from harness.agent import SAMPLES, AgentProcess
from harness.raw import Wire
from harness.slowtoken import SlowToken
from harness.softhsm import SoftHsm
from peers import CLIENT
from sojourn._pb.sojourn.v1 import admin_pb2

SECONDS = 1.0  # of a signature in the slow token
SLOW, FILE = "a token of 1 s a signature", "a file"
AT_ONCE = 8
STORM = 1_000
TASK_TOKENS = "task tokens, one after another"
TYPES = f'trust_domain = "example.org"\n[tasks]\ntypes_dir = "{SAMPLES / "task-types"}"\n'
_PAUSE = 1.0  # between two signatures that are asked for, of either root


class _Root:
    """Has an agent's root sign, again and again while something else is measured."""

    def __init__(self, agent: AgentProcess) -> None:
        self._channel = grpc.insecure_channel(f"unix:{agent.admin_socket}")
        self._call = self._channel.unary_unary(
            "/sojourn.v1.Admin/TestRoots",
            request_serializer=admin_pb2.TestRootsRequest.SerializeToString,
            response_deserializer=admin_pb2.TestRootsResponse.FromString,
        )
        self.signed = 0

    def sign(self) -> float:
        """One signature: for how many seconds the agent waited for it."""
        [found] = self._call(admin_pb2.TestRootsRequest(), timeout=CALL_SECONDS).roots
        if found.fault:
            raise RuntimeError(found.fault)
        self.signed += 1
        return float(found.seconds)

    @contextlib.contextmanager
    def signing(self) -> Iterator[None]:
        over = threading.Event()

        def go_on() -> None:
            while not over.is_set():
                begun = monotonic()
                self.sign()
                over.wait(max(0.0, _PAUSE - (monotonic() - begun)))

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def close(self) -> None:
        self._channel.close()


# --- 80 ---


def beside_a_slow_token(bench: Bench) -> Iterator[Figure | str]:
    """Both roots sign once a second while it is measured."""
    CLIENT.there()
    with contextlib.ExitStack() as stack:
        with needed():
            token = SlowToken(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "hsm", SECONDS)
        agents = {
            name: stack.enter_context(AgentProcess(config=TYPES + keys))
            for name, keys in ((SLOW, token.config()), (FILE, ""))
        }
        for agent in agents.values():
            stack.enter_context(Admin(agent.admin_socket)).create([entry(TRIAGE)])
        roots = {name: stack.enter_context(contextlib.closing(_Root(agent))) for name, agent in agents.items()}
        subjects = [Subject(name, {"agent": agent.pid}, agent.socket) for name, agent in agents.items()]
        turns = 3 * bench.effort.alternations  # the two are to be told apart where they differ by hundredths
        fetch = _while_signing(go_load("x509", AT_ONCE), roots)
        yield from beside(bench, subjects, f"FetchX509SVID, {AT_ONCE} clients", fetch, repetitions=turns)
        workers = {name: stack.enter_context(Helper(agent.socket)) for name, agent in agents.items()}

        def tokens(subject: Subject, seconds: float) -> Run:
            tries = max(20, int(400 * seconds))
            begun = monotonic()
            told = workers[subject.name].call("tokens", tries=tries)
            return Run(tries, tries / (monotonic() - begun), told["p50"], told["p99"])

        yield from beside(bench, subjects, TASK_TOKENS, _while_signing(tokens, roots), repetitions=turns)
        yield from _storms(agents, roots, 3 * bench.effort.starts)
        yield from (f"{name}: the root has signed {root.signed} times meanwhile" for name, root in roots.items())


def _storms(agents: dict[str, AgentProcess], roots: dict[str, _Root], turns: int) -> Iterator[Figure]:
    """How long a workload waits for STORM identities that nobody has had yet, in turns at both agents."""
    took: dict[str, list[float]] = {name: [] for name in agents}
    for turn in range(turns):
        for name, agent in agents.items():
            with Admin(agent.admin_socket) as admin:
                made = admin.create([entry(f"/storm/{turn}/{number}") for number in range(STORM)])
                try:
                    with roots[name].signing(), Wire(agent.socket) as wire:
                        begun = monotonic()
                        found = len(wire.x509().svids)
                        took[name].append((monotonic() - begun) * 1000)
                finally:
                    admin.delete(made)
            if found != STORM + 1:  # with the one that the agents have already
                raise RuntimeError(f"{found} SVIDs came")
    for name, each in took.items():
        yield Figure.of(f"{STORM:,} first X.509-SVIDs of one workload", "ms", each, subject=name)
    ratios = [slow / file for slow, file in zip(took[SLOW], took[FILE], strict=True)]
    yield Figure.of(f"{STORM:,} first X.509-SVIDs of one workload, to those by a file", "", ratios, subject=SLOW)


def _while_signing(load: Load, roots: dict[str, _Root]) -> Load:
    def loaded(subject: Subject, seconds: float) -> Run:
        with roots[subject.name].signing():
            return load(subject, seconds)

    return loaded


# --- 81 ---


def signatures_and_starts(bench: Bench) -> Iterator[Figure | str]:
    """A root's signature as the agent waits for it, and a start until a workload has its X.509-SVID."""
    tries = bench.effort.tries
    with contextlib.ExitStack() as stack:
        with needed():
            places = [Path(stack.enter_context(tempfile.TemporaryDirectory())) / "hsm" for _ in range(2)]
            hsm, slow = SoftHsm(places[0]), SlowToken(places[1], SECONDS)
        seal = places[0] / "seal-key"
        seal.write_bytes(bytes(range(32)))
        seal.chmod(0o600)
        configs = {
            FILE: "",
            "SoftHSM": hsm.config(),
            SLOW: slow.config(),
            f"{SLOW}, with a seal key": slow.config(f'seal_key = "{seal}"'),
        }
        starts: dict[str, list[float]] = {}
        for name, config in configs.items():
            bench.say(name)
            with AgentProcess(config=config) as agent:
                with Admin(agent.admin_socket) as admin:
                    admin.create([entry(TRIAGE)])
                if name in {FILE, "SoftHSM"}:
                    with contextlib.closing(_Root(agent)) as root:
                        took = [root.sign() * 1000 for _ in range(tries)]
                    yield Figure.of("a root's signature: p50", "ms", [percentile(took, 50)], subject=name)
                    yield Figure.of("a root's signature: p99", "ms", [percentile(took, 99)], subject=name)
                starts[name] = [_started(agent) for _ in range(bench.effort.starts)]
        for name, took in starts.items():
            yield Figure.of("start to a workload's X.509-SVID", "ms", took, subject=name)
    yield "with the time that the agent's program takes to begin; without a seal key the root signs at each start"


def _started(agent: AgentProcess) -> float:
    """Milliseconds from a start until a workload has an X.509-SVID."""
    agent.stop()
    begun = monotonic()
    agent.start()
    with Wire(agent.socket) as wire:
        wire.x509()
    return (monotonic() - begun) * 1000


KEY_LINES = (
    (80, "Beside a root whose key is in a slow token", beside_a_slow_token),
    (81, "Signatures of roots in a token, and starts with them", signatures_and_starts),
)
