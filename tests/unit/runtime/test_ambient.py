"""runtime/ambient.py: which of an agent's children have its capabilities, with a user's process that has them as in its unit."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

TWO = 1 << 2 | 1 << 19  # CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE
NAMES = "+dac_read_search,+sys_ptrace"
USER = 4953
AS_IN_THE_UNIT = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"),
    *(f"--inh-caps=-all,{NAMES}", f"--ambient-caps=-all,{NAMES}", f"--bounding-set=-all,{NAMES}"),
)
BEGIN = """
import asyncio, json, subprocess, sys, threading
from sojourn.agent.process import harden
from sojourn.runtime import ambient
def own(which):
    with open("/proc/thread-self/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith(which + ":"))
def childs():
    done = subprocess.run(["grep", "^CapEff:", "/proc/self/status"], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[1], 16)
"""


def said(code):
    """What a process prints as JSON that has the capabilities of the agent's unit."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    command = [*AS_IN_THE_UNIT, sys.executable, "-B", "-c", BEGIN + code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_no_child_has_them():
    """After the agent's start its children have none of its capabilities, which it keeps itself."""
    assert [TWO, 0, TWO] == said("before = childs(); harden(); print(json.dumps([before, childs(), own('CapEff')]))")


def test_passed_on():
    """A child that is started so has them, and the next one has none."""
    code = "harden()\nwith ambient.passed_on():\n    one = childs()\nprint(json.dumps([one, childs(), own('CapEff')]))"
    assert [TWO, 0, TWO] == said(code)


def test_passed_on_by_one_thread():
    """What another thread starts meanwhile has none."""
    code = """
harden()
found = []
go, over = threading.Event(), threading.Event()
def other():
    go.wait()
    found.append(childs())
    over.set()
threading.Thread(target=other).start()
with ambient.passed_on():
    go.set()
    over.wait()
    found.append(childs())
print(json.dumps(found))
"""
    assert [0, TWO] == said(code)


def test_that_cannot_be_passed_on():
    """Where the agent has none any more to pass on, starting such a child fails, and says why."""
    code = """
harden()
ambient._taken.add(21)  # CAP_SYS_ADMIN, which it never had
try:
    with ambient.passed_on():
        print(json.dumps(["begun"]))
except OSError as error:
    print(json.dumps([str(error), own("CapAmb")]))
"""
    assert ["[Errno 1] the agent cannot pass capability 21 on: Operation not permitted", 0] == said(code)


def test_the_command_for_notices():
    """The command that takes notices to people has none of the agent's capabilities."""
    code = """
from sojourn.notices.notifiers import Command
from sojourn.notices.outbox import NotDelivered
harden()
try:
    look = "grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status >&2; exit 3"
    asyncio.run(Command(("/bin/sh", "-c", look), 20.0).deliver({"id": "apr_1"}))
except NotDelivered as error:
    print(json.dumps([error.public, own("CapEff")]))
"""
    none = " ".join(f"Cap{each}: {0:016x}" for each in ("Prm", "Eff", "Amb"))
    assert [f'command: it ended with status 3: "{none}"', TWO] == said(code)


def test_the_process_of_an_attestor():
    """The process that a foreign attestor runs in has them: it looks at the processes of others."""
    code = """
from sojourn.attestation.plugin_process import HostProcess
from sojourn.runtime.clock import SystemClock
harden()
async def look():
    heard = asyncio.Queue()
    process = HostProcess("x", heard.put_nowait, lambda process, reason: None, SystemClock())
    process.send({"do": "ping", "id": 1})
    await heard.get()
    with open(f"/proc/{process.pid}/status") as file:
        found = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    process.end("seen")
    return found
print(json.dumps([asyncio.run(look()), childs()]))
"""
    assert [TWO, 0] == said(code)
