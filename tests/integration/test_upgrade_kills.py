"""kill -9 while one release takes the place of another, there and back: two hundred times, and nothing acknowledged is lost."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from harness.agent import clean_environment
from harness.authserver import AuthServer
from harness.forks import PROGRAM, forking, run
from harness.nextrelease import modules_of, next_release
from harness.upgradekills import Life, made

pytestmark = [pytest.mark.full, pytest.mark.timeout(400)]
LIVES = 5  # folders, each upgraded once
KILLS = 10  # of an agent in each, in each of four parts: 200


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, str]]]:
    """What this release and the next one need in their environment; both are forked, so that a start is short."""
    following = modules_of(next_release(tmp_path_factory.mktemp("next")))
    both = [{}, following]
    with ExitStack() as stack:
        for each in both:
            environment = {**clean_environment(), **each}
            stack.enter_context(forking(environment))
            assert 0 == run([PROGRAM, "--version"], env=environment, text=True, timeout=120).returncode
        yield both


@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_killed_there_and_back(releases: list[dict[str, str]], part: int) -> None:
    """However often the agent is killed, amid a start or amid work, and whichever of two releases comes next: entries are
    as acknowledged, who follows has an SVID again, tasks live or have ended as they were said to, no decision on a
    request is lost, no revoked token is good, and no credential that was given out is forgotten.
    """
    chance, kills, seen = random.Random(part), Counter[str](), Counter[str]()
    for _ in range(LIVES):
        with AuthServer() as server, made(server) as agent:
            life = Life(agent, server, releases, chance)
            life.run(KILLS)
        kills += life.kills
        seen += life.known.counts()
    assert LIVES * KILLS == kills.total()
    assert {"start", "work"} == kills.keys()
    assert set() == {name for name in life.known.counts() if not seen[name]}, "nothing of this was acknowledged"
