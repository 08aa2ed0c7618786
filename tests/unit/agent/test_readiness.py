"""readiness.py: each condition holds in a healthy agent, and does not once its own fault is there."""

import socket
from datetime import timedelta
from pathlib import Path

from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.databases import opened
from sojourn.agent.readiness import EmbeddedConditions, follow_socket, readiness_of
from sojourn.attestation.attestor_stats import Tally
from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.runtime.readiness import Readiness
from sojourn.store.write_health import WriteHealth

DAY = 86_400


def told(readiness: Readiness) -> dict[str, str]:
    return {fault.name: fault.found for fault in readiness.faults()}


def readiness(authority: EmbeddedAuthority, clock: FakeClock, tally: Tally | None = None) -> Readiness:
    return readiness_of(EmbeddedConditions(authority, clock), WriteHealth(), tally or Tally([], clock))


def test_all_is_well(tmp_path: Path) -> None:
    """Right after the start every condition holds."""
    clock = FakeClock()
    with opened(tmp_path / "sojourn.db") as database:
        conditions = EmbeddedConditions(authority_in(tmp_path / "keys", clock), clock)
        made = readiness_of(conditions, database.health, Tally(["unix"], clock))
        assert {} == told(made)


def test_the_intermediate_has_ended_until_it_is_renewed(tmp_path: Path) -> None:
    """An intermediate that ended without upkeep is told as keys that cannot be used, until upkeep makes another."""
    clock = FakeClock()
    authority = authority_in(tmp_path, clock, issuer_ttl=timedelta(hours=1))
    made = readiness(authority, clock)
    clock.advance(3601)
    assert {"keys"} == told(made).keys()
    authority.maintain()
    assert {} == told(made)


def test_a_jwt_key_has_ended(tmp_path: Path) -> None:
    """A key that signs JWT-SVIDs, and has ended, is told by its kind."""
    clock = FakeClock()
    authority = authority_in(tmp_path, clock, jwt_key_ttl=timedelta(hours=2))
    made = readiness(authority, clock)
    clock.advance(7201)
    assert "the active key has ended, and no new one could be made: jwt" == told(made)["keys"]


def test_the_root_has_ended(tmp_path: Path) -> None:
    """A root that has ended, or that a clock set back makes one of the future, is the authority's own condition."""
    clock = FakeClock()
    made = readiness(authority_in(tmp_path, clock, root_ttl=timedelta(days=100)), clock)
    clock.advance(101 * DAY)
    assert "the root certificate ended at 2030-04-11T00:00:00Z: is the clock right?" == told(made)["authority"]
    clock.step_wall(-102 * DAY)
    assert "the root certificate begins at" in told(made)["authority"]


def test_an_attestor_cannot_tell(tmp_path: Path) -> None:
    """An attestor that failed when it was last asked is told with its reason, until it can tell again."""
    clock = FakeClock()
    tally = Tally(["docker", "unix"], clock)
    made = readiness(authority_in(tmp_path, clock), clock, tally)
    tally.note("docker", 0.1, "the engine does not answer")
    tally.note("unix", 0.1, "")
    assert {"attestors": "docker: the engine does not answer"} == told(made)
    tally.note("docker", 0.1, "")
    assert {} == told(made)


def test_a_socket_that_is_gone_or_another(tmp_path: Path) -> None:
    """A socket that was removed, or in whose place another one stands, is a fault; one that was put back is none."""
    path, made = tmp_path / "agent.sock", Readiness()
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.bind(str(path))
        follow_socket(made, path)
        assert {} == told(made)
        path.rename(tmp_path / "away")
        assert f"the socket {str(path)!r} is gone: restart the agent" == told(made)["sockets"]
        second.bind(str(path))
        assert f"the socket {str(path)!r} is another one now: restart the agent" == told(made)["sockets"]
        (tmp_path / "away").rename(path)
        assert {} == told(made)
