"""The agent is killed at random moments while tasks get credentials of a provider and end.

When it is back: no credential that anyone was given is good once its task is over, and each that is still good at the
provider is one that the audit tells was lost: nobody ever had it.
"""

import random
import threading
import time

import pytest
from harness.agent import AgentProcess
from harness.authserver import AuthServer, granted_then_drop, status
from harness.cascade import ORDERS, READ, provider, records, running
from harness.looking import until
from sojourn import SyncClient
from sojourn.errors import SojournError

pytestmark = [pytest.mark.full, pytest.mark.forked]

KILLS = 6
WORKERS = 3
LONGEST_RUN_SECONDS = 0.6


class Work(threading.Thread):
    """Begins tasks, gets credentials, and ends some of the tasks, until the agent has gone."""

    def __init__(self, agent: AgentProcess, got: set[str], chance: random.Random) -> None:
        super().__init__()
        self._agent = agent
        self._got = got
        self._chance = chance
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with SyncClient(self._agent.socket, deadline_seconds=5) as client:
                while True:
                    task = client.begin_task("orders").id
                    try:
                        self._got.add(client.get_token(task, ORDERS, READ).token)
                    except SojournError as error:
                        if error.remote_code != "provider_unavailable":
                            raise
                    if self._chance.random() < 0.7:
                        client.complete_task(task)
        except SojournError as error:
            if error.code not in {"unavailable", "unreachable"}:
                self.failure = error
        except BaseException as error:
            if "StatusCode.UNAVAILABLE" not in str(error):
                self.failure = error


@pytest.mark.timeout(240)
def test_killed_again_and_again() -> None:
    """Over kills at random moments, with a provider that drops answers and refuses recalls now and then."""
    seed = random.randrange(1 << 32)
    chance, got = random.Random(seed), set()
    with AuthServer() as server, running(provider("corp", server)) as agent:
        for number in range(KILLS):
            server.script("token", *[granted_then_drop] * chance.randrange(3))
            server.script("revoke", *[status(503)] * chance.randrange(6))
            works = [Work(agent, got, random.Random(seed + number * WORKERS + each)) for each in range(WORKERS)]
            for work in works:
                work.start()
            time.sleep(chance.uniform(0.05, LONGEST_RUN_SECONDS))
            agent.kill()
            for work in works:
                work.join()
            assert [None] * WORKERS == [work.failure for work in works], f"seed {seed}"
            agent.start()
        until(lambda: agent.json("status")["live_tasks"] == 0, "tasks whose holder did not come back are over", 40)
        until(lambda: not by_state(agent, "ending"), "all that can be taken back is", 60)
        good = {token for token in server.given() if server.active(token)}
        lost = records(agent, "external_credential_lost")
        assert len(server.given()) > len(good), f"seed {seed}: nothing was taken back"
        assert set() == good & got, f"seed {seed}: a credential outlives its task"
        assert len(good) <= len(lost), f"seed {seed}: one is good, and nobody knows of it"
        assert not any(each["handed_out"] for each in lost), f"seed {seed}"


def by_state(agent: AgentProcess, state: str) -> list[dict]:
    return [each for each in agent.json("provider", "residuals")["credentials"] if each["state"] == state]
