"""kill -9 amid registrations, many times over: nothing acknowledged is lost, and nothing is there by half."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import forks
from harness.agent import clean_environment

pytestmark = pytest.mark.full

SCRIPT = Path(__file__).parent.parent / "harness" / "registrar.py"
KILLS = 45  # in each part; with the whole agent's (test_store.py) more than 200 of all
LETTERS = "abc"
MOST_LINES = 60  # that are heard before the kill
LONGEST_SECONDS = 0.01  # and then it is killed in the midst of whatever comes next


class Trios:
    """What has been acknowledged (trio -> hint), and what may have been done in the moment of the kill."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self.under_way: dict[str, str | None] = {}

    def hear(self, line: str) -> None:
        said = json.loads(line)
        if "begin" in said:
            self.under_way[said["begin"]] = said["to"]
            return
        del self.under_way[said["done"]]
        if said["to"] is None:
            del self.acknowledged[said["done"]]
        else:
            self.acknowledged[said["done"]] = said["to"]

    def check(self, found: dict[str, str]) -> None:
        """What was found after a kill is what was acknowledged; a step under way was done whole, or not at all."""
        hints: dict[str, set[str]] = {}
        for path, hint in found.items():
            hints.setdefault(path[1:].rpartition("/")[0], set()).add(hint)
        whole = {trio for trio in hints if all(f"/{trio}/{letter}" in found for letter in LETTERS)}
        assert set(hints) == whole
        assert [1] * len(hints) == [len(each) for each in hints.values()]
        now = {trio: each.pop() for trio, each in hints.items()}
        changed = {
            trio: now.get(trio) for trio in {*now, *self.acknowledged} if now.get(trio) != self.acknowledged.get(trio)
        }
        assert {} == {trio: to for trio, to in changed.items() if trio not in self.under_way}
        assert changed == {trio: self.under_way[trio] for trio in changed}
        self.acknowledged, self.under_way = now, {}


@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_registrations_that_are_killed(tmp_path: Path, part: int) -> None:
    """Whenever the process dies that writes them, entries are as acknowledged, whole, and have no twins."""
    chance = random.Random(part)
    trios = Trios()
    steps = 0
    for number in range(KILLS):
        with forks.popen(
            [sys.executable, str(SCRIPT), str(tmp_path / "sojourn.db"), str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        ) as process:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            trios.check(first["found"])
            assert ["already_exists"] * min(5, len(first["found"])) == first["twins"]
            lines = [process.stdout.readline() for _ in range(chance.randrange(MOST_LINES))]
            time.sleep(chance.random() * LONGEST_SECONDS)
            process.kill()
            lines += process.stdout.readlines()
        assert -signal.SIGKILL == process.returncode
        for line in lines:
            trios.hear(line)
        steps += len(lines)
    assert trios.acknowledged
    assert steps > KILLS * 10
