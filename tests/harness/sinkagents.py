"""Agents whose journal goes to sinks: they are configured, watched, and given something to record."""

import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from harness.agent import AgentProcess
from harness.looking import until
from harness.raw import Wire
from harness.sinkplace import SinkProgram


def sink(name: str, kind: str, *lines: str) -> str:
    return "\n".join(["", "[[audit.sinks]]", f'name = "{name}"', f'kind = "{kind}"', *lines, ""])


def configured(agent: AgentProcess, *sinks: str) -> None:
    """Have the agent run with these sinks and no others."""
    text = agent.config.read_text().partition("\n[[audit.sinks]]")[0]
    if agent.process is not None:
        agent.stop()
    agent.config.write_text(text + "".join(sinks))
    agent.start()


@contextmanager
def running(*sinks: str, more: str = "") -> Iterator[AgentProcess]:
    made = AgentProcess(config=f'trust_domain = "example.org"\n{more}')
    made.config.write_text(made.config.read_text() + "".join(sinks))
    with made as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield agent


def states(agent: AgentProcess) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in agent.json("audit", "sinks")["sinks"]}


def written(agent: AgentProcess) -> dict[int, str]:
    """The digest of each record of an agent that is stopped, however many they are."""
    with sqlite3.connect(agent.data_dir / "sojourn.db") as database:
        return dict(database.execute("SELECT seq, digest FROM audit"))


def caught_up(agent: AgentProcess, seconds: float = 60.0) -> None:
    until(lambda: all(not each["lag_records"] for each in states(agent).values()), "the sinks have all", seconds)


def kill_by_turns(agent: AgentProcess, receiver: SinkProgram, times: int) -> None:
    """Kill each of the two so often, in an order and at moments that chance says, and start it again."""
    deeds = ["agent"] * times + ["receiver"] * times
    random.shuffle(deeds)
    for deed in deeds:
        time.sleep(random.uniform(0.05, 1.0))
        if deed == "agent":
            agent.stop(signal.SIGKILL)
            agent.start()
        else:
            receiver.kill()
            time.sleep(random.uniform(0, 0.3))
            receiver.start()


@contextmanager
def load(agent: AgentProcess) -> Iterator[list[int]]:
    """JWT-SVIDs are issued within, as fast as can be: a record for each. Gives how many were, in one number."""
    over, issued = threading.Event(), [0]

    def ask() -> None:
        while not over.is_set():
            with suppress(Exception), Wire(agent.socket) as wire:  # the agent may be gone just now
                while not over.is_set():
                    wire.jwt(f"https://a.example/{issued[0]}")
                    issued[0] += 1
            time.sleep(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield issued
    finally:
        over.set()
        thread.join()
