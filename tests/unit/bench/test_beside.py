"""beside.py and processes.py of the bench: who is measured when, and what is counted."""

import os
import subprocess
import sys

import pytest
from beside import Run, Subject, alternate, beside, compared, memory
from figures import Figure
from ground import QUICK, Bench
from processes import cpu_seconds, resident_mib

SUBJECTS = [Subject("ours", {"agent": os.getpid()}), Subject("theirs", {"agent": os.getpid(), "server": os.getpid()})]


def run(subject, _seconds):
    calls = 200 if subject.name == "ours" else 100
    return Run(calls, calls, 0.5, 2.0, failed={} if subject.name == "ours" else {"Unavailable": 3})


def test_subjects_take_turns_from_both_ends():
    """Whoever was last in one repetition is first in the next."""
    order = []
    found = alternate(SUBJECTS, 3, lambda subject: order.append(subject.name) or len(order))
    assert ["ours", "theirs", "theirs", "ours", "ours", "theirs"] == order
    assert {"ours": [1, 4, 5], "theirs": [2, 3, 6]} == found


def test_rows_of_a_load():
    """Rate, latencies and CPU time of each, and ratios of the first to the other."""
    found = list(beside(Bench(QUICK), SUBJECTS, "calls", run))
    figures = {(each.name, each.subject): each for each in found if isinstance(each, Figure)}
    assert (200.0, 200.0) == figures["calls: calls", "ours"].values
    assert (2.0, 2.0) == figures["calls: calls", "ours : theirs"].values
    assert {"calls: p50", "calls: p99", "calls: daemons' CPU a call"} < {name for name, _ in figures}


def test_failed_calls_are_counted_shown_and_marked():
    """Whose calls failed has a mark on each figure, and so have the ratios to it."""
    found = list(beside(Bench(QUICK), SUBJECTS, "calls", run))
    marked = {each.subject: each.failed for each in found if isinstance(each, Figure)}
    assert {"ours": False, "theirs": True, "ours : theirs": True} == marked
    (note,) = (each for each in found if isinstance(each, str))
    assert "calls: calls to theirs FAILED: 6 Unavailable, beside 200 that were answered" == note


def test_one_subject_alone():
    """Without a peer there are figures and no ratios."""
    assert {"ours"} == {each.subject for each in beside(Bench(QUICK), SUBJECTS[:1], "calls", run)}


def test_no_ratio_to_nothing():
    """Where the other has zero there is no ratio."""
    assert 2 == len(list(compared("x", "/s", {"ours": [1.0], "theirs": [0.0]})))


def test_run_as_the_clients_print_it():
    """CPU time a call is that of all daemons, or of one."""
    told = Run.told({"calls": 4, "rate": 2.0, "p50": 1.0, "p99": 3.0, "client_cpu": 0.1, "failed": {"Internal": 1}})
    assert (4, 2.0, 1.0, 3.0, 0.1, {"Internal": 1}) == (
        told.calls, told.rate, told.p50_ms, told.p99_ms, told.client_cpu_seconds, told.failed,
    )  # fmt: skip
    spent = Run(4, 2.0, 1.0, 3.0, cpu_seconds={"agent": 0.002, "server": 0.001})
    assert (750.0, 250.0) == (spent.microseconds(), spent.microseconds("server"))
    assert 0 == Run(0, 0.0, 0.0, 0.0, cpu_seconds={"agent": 0.0}).microseconds()


def test_memory_of_every_daemon():
    """Where there are several, each is named."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as one:
        subjects = [Subject("ours", {"agent": one.pid}), Subject("theirs", {"agent": one.pid, "server": one.pid})]
        names = [(each.name, each.subject) for each in memory(subjects, "idle")]
        one.communicate(b"\n")
    assert ("idle: RSS of the server", "theirs") in names
    assert ("idle: RSS of all daemons", "ours : theirs") in names


@pytest.mark.timing
def test_cpu_time_of_a_process():
    """The CPU time of a process is what that itself reads before and after."""
    program = "from time import process_time; print(process_time(), flush=True); input(); print(process_time())"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as asked:
        before = float(asked.stdout.readline())
        found = cpu_seconds(asked.pid)
        after = float(asked.communicate(b"\n")[0])
    assert before <= found <= after


@pytest.mark.timing
def test_descendants_are_counted():
    """What a process starts belongs to it; what has ended cannot be measured."""
    program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'x = bytearray(2**26); print(1, flush=True); input()']).wait()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        assert resident_mib(parent.pid) > 64
        assert cpu_seconds(parent.pid) > 0
        parent.communicate(b"\n")
    with pytest.raises(RuntimeError, match="has ended"):
        cpu_seconds(parent.pid)
