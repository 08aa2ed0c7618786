"""readiness.py: conditions are looked at when somebody asks, and what one says makes the state of all."""

import pytest
from sojourn.runtime.readiness import ATTESTORS, CONDITIONS, KEYS, STORE, UPSTREAM, Readiness, State, state_of


@pytest.mark.parametrize(
    ("failing", "state"),
    [
        ([], State.READY),
        ([ATTESTORS], State.DEGRADED),
        ([UPSTREAM], State.DEGRADED),
        ([STORE], State.UNREADY),
        ([ATTESTORS, KEYS], State.UNREADY),
    ],
)
def test_state(failing: list[str], state: State) -> None:
    """An attestor that fails, or a server that is away, leaves the agent degraded; any other condition that does not hold makes it unready."""
    assert state == state_of(failing)


def test_what_is_wrong_is_looked_at_each_time() -> None:
    """A condition is asked anew whenever somebody wants to know, and what it finds is told in a fixed order."""
    wrong = {STORE: "", KEYS: ""}
    readiness = Readiness()
    readiness.on(STORE, lambda: wrong[STORE])
    readiness.on(KEYS, lambda: wrong[KEYS])
    assert (State.READY, []) == (readiness.state, readiness.faults())
    wrong.update({STORE: "no room on /var", KEYS: "token closed"})
    assert [(KEYS, "token closed"), (STORE, "no room on /var")] == [(f.name, f.found) for f in readiness.faults()]
    wrong[KEYS] = ""
    assert [STORE] == [fault.name for fault in readiness.faults()]
    assert State.UNREADY == readiness.state


def test_what_anybody_reads_says_nothing_of_the_machine() -> None:
    """What is said of a fault is one sentence for each condition; what was found stands apart from it."""
    readiness = Readiness()
    readiness.on(STORE, lambda: "no room on /var/lib/secret")
    assert CONDITIONS[STORE] == readiness.faults()[0].said


def test_an_unknown_condition_is_refused() -> None:
    """Nobody can be asked about a condition that has no sentence."""
    with pytest.raises(KeyError):
        Readiness().on("weather", lambda: "")
