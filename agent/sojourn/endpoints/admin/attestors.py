"""The attestors, for operators: what each said of a process, how each fares, and the metrics of that."""

from collections.abc import Mapping
from functools import partial

from prometheus_client import Counter, Gauge, Histogram

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.attestation.attestor import Attested
from sojourn.attestation.attestor_stats import CHANGED, PARTLY, PROVED, Tally
from sojourn.endpoints.api.workload import seconds
from sojourn.identity.explain import Need

ANSWERS = Counter("sojourn_attestor_answers_total", "Answers of attestors, by result.", ["attestor", "result"])
SECONDS = Histogram(
    "sojourn_attestor_seconds",
    "How long an attestor took to answer.",
    ["attestor"],
    buckets=(0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
ENDED = Counter(
    "sojourn_attestor_processes_ended_total", "Processes of attestors that ended and were started again.", ["attestor"]
)


FAILING = Gauge(
    "sojourn_attestor_failing", "1 while an attestor could not tell the last time that it was asked.", ["attestor"]
)
ATTESTATIONS = Counter(
    "sojourn_attestations_total",
    "Attestations of processes, by result: proved, partly (an attestor could not tell), changed (the process had).",
    ["result"],
)


def measure(tally: Tally) -> None:
    """Count what attestors answer. Their names are the configuration's: there are no others."""
    for name in tally.records:
        for result in ("told", "failed"):
            ANSWERS.labels(name, result)
        SECONDS.labels(name)
        ENDED.labels(name)
        FAILING.labels(name).set_function(partial(_failing, tally, name))
    attestations = {result: ATTESTATIONS.labels(result) for result in (PROVED, PARTLY, CHANGED)}

    def count(name: str, took: float, failure: str) -> None:
        ANSWERS.labels(name, "failed" if failure else "told").inc()
        SECONDS.labels(name).observe(took)

    tally.on_answer(count)
    tally.on_end(lambda name: ENDED.labels(name).inc())
    tally.on_attested(lambda result: attestations[result].inc())


def _failing(tally: Tally, name: str) -> float:
    return tally.records[name].failing


def states(tally: Tally) -> list[pb.AttestorState]:
    """How each fares, by name."""
    return [
        pb.AttestorState(
            name=name,
            asked=record.asked,
            failed=record.failed,
            seconds=record.seconds,
            failing=record.failing,
            failure=record.failure,
            failed_at=seconds(record.failed_at),
        )
        for name, record in sorted(tally.records.items())
    ]


def answers(attested: Attested, needs: Mapping[str, Need]) -> list[pb.AttestorAnswer]:
    """What each said, by name; and, as `unix:user`, each kind of selectors of which it could say nothing."""
    found = []
    for name in sorted(attested.asked.keys() | attested.failures.keys()):
        answer = pb.AttestorAnswer(name=name, failure=attested.failures.get(name, ""))
        asked = attested.asked.get(name)
        if asked is not None:
            answer.seconds, answer.selectors, answer.age_seconds = asked.seconds, asked.selectors, asked.age
        need = needs.get(name)
        if need is not None:
            answer.needed.extend(need.selectors)
            answer.entry_id, answer.spiffe_id = need.entry.id, str(need.entry.spiffe_id)
            answer.also_missing.extend(need.others)
        found.append(answer)
    return found
