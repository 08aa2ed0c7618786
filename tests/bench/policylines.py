"""A policy decision: ours beside bare cedarpy and beside an OPA sidecar, about the same questions by the same rules."""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.client import HTTPConnection
from time import perf_counter, process_time

import cedarpy
from beside import Load, Run, Subject, alternate, beside, memory
from figures import Figure, Growth, Missing, percentile
from ground import Bench
from harness.taskagent import PLACE_A
from httpload import JSON, Step, Work, http_load
from opapeer import ALLOW, opa
from policyrules import ACTIONS, TYPE, Question, cedar, questions, rego
from sojourn.errors import PolicyDenied
from sojourn.policy.cedar_schema import Fields, entity, schema_text
from sojourn.policy.rules import authorize
from sojourn.policy.task_types import parse
from sojourn.tasktoken.grants import Authority, Grant

AT = 50  # policies, where all is measured
COUNTS = (10, 20, 50, 100, 200, 500)
QUESTIONS = 1_000
Decide = Callable[[Question], bool]


def sojourn(policies: int) -> Decide:
    """As the engine asks for a token: the ceiling, then policy."""
    kind = parse("many", TYPE, cedar(policies))
    wanted = {action: Authority((Grant(PLACE_A, (action,)),)) for action in ACTIONS}

    def decide(question: Question) -> bool:
        try:
            authorize(kind, question.principal, wanted[question.action], question.context)
        except PolicyDenied:
            return False
        return True

    return decide


def bare(policies: int) -> Decide:
    """The library by itself: all policies and the schema parsed before, the entity as its own JSON."""
    every = cedarpy.PolicySet.from_str(cedar(policies))
    long, boolean = {"level": "long"}, {"tainted": "boolean"}
    schema = cedarpy.Schema.from_str(schema_text(ACTIONS, Fields({**long, **boolean}, ("level", "tainted"))))

    def decide(question: Question) -> bool:
        request = {
            "principal": {"type": "Sojourn::Task", "id": question.principal.task_id},
            "action": {"type": "Sojourn::Action", "id": question.action},
            "resource": {"type": "Sojourn::Resource", "id": PLACE_A},
            "context": question.context.document(),
        }
        entities = cedarpy.Entities.from_json_str(json.dumps([entity(question.principal, ())]), schema)
        result = cedarpy.is_authorized(request, every, entities, schema=schema)
        return bool(result.decision is cedarpy.Decision.Allow and not result.diagnostics.errors)

    return decide


def _body(question: Question) -> str:
    return json.dumps({"input": question.document()})


def sidecar(connection: HTTPConnection) -> Decide:
    """Over a kept connection, by what Python has for that."""

    def decide(question: Question) -> bool:
        connection.request("POST", ALLOW, _body(question), {"Content-Type": "application/json"})
        return bool(json.loads(connection.getresponse().read())["result"])

    return decide


@contextlib.contextmanager
def deciders(policies: int) -> Iterator[tuple[dict[str, Subject], dict[str, Decide], str]]:
    """Subjects, how each is asked, and what is missing. All must say the same."""
    here = {"process": os.getpid()}
    subjects = {name: Subject(name, here) for name in ("Sojourn", "cedarpy")}
    asked = {"Sojourn": sojourn(policies), "cedarpy": bare(policies)}
    missing = ""
    with contextlib.ExitStack() as stack:
        try:
            subjects["OPA"] = stack.enter_context(opa(rego(policies)))
        except Missing as error:
            missing = f"missing: {error}"
        else:
            connection = HTTPConnection(subjects["OPA"].address, timeout=10)
            stack.callback(connection.close)
            asked["OPA"] = sidecar(connection)
        some = questions(QUESTIONS)
        answers = {name: [decide(each) for each in some] for name, decide in asked.items()}
        for name, said in answers.items():
            if said != answers["Sojourn"]:
                raise RuntimeError(f"{name} decides otherwise than Sojourn about {policies} policies")
        yield subjects, asked, missing


def _load(asked: dict[str, Decide], some: Sequence[Question]) -> Load:
    """One question after another, from this process."""

    def load(subject: Subject, seconds: float) -> Run:
        decide, turn, took = asked[subject.name], itertools.cycle(some), []
        began, spent = perf_counter(), process_time()
        before = began
        while before < began + seconds:
            decide(next(turn))
            now = perf_counter()
            took.append((now - before) * 1000)
            before = now
        spent = process_time() - spent
        rate = len(took) / (before - began)
        return Run(len(took), rate, percentile(took, 50), percentile(took, 99), spent / len(took))

    return load


# --- 51 ---


def decisions(bench: Bench) -> Iterator[Figure | str]:
    some = questions(QUESTIONS)
    with deciders(AT) as (subjects, asked, missing):
        if missing:
            yield missing
        every = list(subjects.values())
        what = f"a decision at {AT} policies, from Python"
        yield from beside(bench, every, what, _load(asked, some), client=True)
        again = [next(each for each in some if asked["Sojourn"](each))]
        yield from beside(bench, every, f"{what}, the same question again", _load(asked, again))
        if "OPA" in subjects:
            sidecar = subjects["OPA"]
            work = Work(f"http://{sidecar.address}", [Step(ALLOW, [_body(each) for each in some], '"result"', JSON)])
            for connections in (1, 8) if bench.full else (8,):
                with http_load({"OPA": work}, connections) as load:
                    named = f"the same from Go, {connections} connection{'' if connections == 1 else 's'}"
                    yield from beside(bench, [sidecar], named, load, client=True)
            yield from memory([sidecar], "after all of it")
    yield "Sojourn: ceiling and policy, as the engine asks for a token; it keeps an answer of yes to the very same question"
    yield "cedarpy: all policies and the schema parsed once, the task as an entity each time; both in this process, one core"
    yield "OPA: a server on loopback, asked by http.client or by Go over kept connections; its rules begin with the action,"
    yield "which it indexes; 'daemons' CPU' is that of the process that decides: of OPA, the client's comes to it"


# --- 52 ---


def growth(bench: Bench) -> Iterator[Figure | Growth | str]:
    some = questions(QUESTIONS)
    curves: dict[str, list[tuple[float, Sequence[float]]]] = {}
    seconds = bench.effort.load_seconds / 3
    notes: dict[str, None] = {}  # each once
    for count in COUNTS if bench.full else (10, AT):
        bench.say(f"decisions at {count} policies")
        with deciders(count) as (subjects, asked, missing):
            once = partial(_load(asked, some), seconds=seconds)
            runs = alternate(list(subjects.values()), bench.effort.repetitions, once)
        notes |= {missing: None} if missing else {}
        for name, each in runs.items():
            curves.setdefault(name, []).append((count, [run.p50_ms * 1000 for run in each]))
    yield Growth("a decision, from Python: p50", "µs", "policies", curves)
    yield from notes
    yield "a tenth of the policies is about each action; OPA as a server on loopback, the others in this process"


POLICY_LINES = (
    (51, f"decisions: Sojourn beside bare cedarpy and an OPA sidecar, {AT} policies", decisions),
    (52, "decisions: growth with policies", growth),
)
