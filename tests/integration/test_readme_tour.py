"""README's five minutes by hand, typed line by line in one shell: as root and as an ordinary user.

Each line has its expectation here, and a line that has none fails: nothing of the tour is passed over.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.agent import ROOT, clean_environment
from harness.lacking import lacking, lacking_program

pytestmark = [pytest.mark.full, pytest.mark.timeout(180)]

README = (ROOT / "README.md").read_text("utf-8")
_BLOCK = re.compile(r"(?:^ {4}.*\n|^\n(?= {4}))+", re.MULTILINE)
_COMMAND = re.compile(r"(?:.*\\\n)*.+")
_AFTER = "@@ after"
SOMEBODY = 1234
GOOD, NOT_GOOD = (0, "valid: "), (1, "not valid: ")
# By the beginnings of lines, each time that it is typed: the exit status, and what is printed on either output.
EXPECTED: dict[str, list[tuple[int, str]]] = {
    "export PATH=": [(0, "")],
    "sojourn agent run ": [(0, "")],
    "sojourn svid x509": [(1, "[no_identity]"), (0, "spiffe://example.org/agent/triage")],
    "sojourn explain ": [(0, "no identity: there are no entries")],
    "sojourn entry create ": [(0, "spiffe://example.org/agent/triage")],
    "sojourn svid jwt ": [(0, "eyJ")],
    "sojourn task run --type triage-ticket -- sh ": [(0, "valid: task of spiffe://example.org/agent/triage")],
    "TASK=$(sojourn task begin ": [(0, "")],
    "TOKEN=$(sojourn task token ": [(0, "")],
    'echo "$TOKEN" | sojourn validate ': [GOOD, NOT_GOOD, GOOD, NOT_GOOD],
    "sojourn task complete ": [(0, "")],
    "ANSWER=$(curl ": [(0, "")],
    'TOKEN=$(echo "$ANSWER" ': [(0, "")],
    "sojourn task run --type triage-ticket --proxy -- curl ": [(0, "outside_task")],
    "sojourn authority rotate jwt": [(0, "activated ")],
    "sojourn svid rotate --all": [(0, "X.509-SVIDs in use that were replaced: 1")],
    "TOKEN=$(sojourn svid jwt ": [(0, "")],
    "sojourn svid revoke ": [(0, "all that this SPIFFE ID was given so far is revoked")],
    "sojourn bundle publish ": [(0, "/.well-known/openid-configuration")],
    "sojourn status": [(0, "trust domain   example.org")],
    "sojourn task list --all": [(0, "completed")],
    "sojourn audit tail": [(0, "svids_revoked")],
    "sojourn entry list": [(0, "spiffe://example.org/agent/triage")],
    "sojourn --help": [(0, "Usage: sojourn")],
}


@dataclass(frozen=True)
class Typed:
    command: str
    status: int
    printed: str


def tour() -> list[str]:
    """The commands of the section, in their order."""
    section = README.partition("\n## Five minutes by hand\n")[2].partition("\n## ")[0]
    typed = "\n".join(textwrap.dedent(block) for block in _BLOCK.findall(section))
    return [each for each in _COMMAND.findall(typed) if each.strip()]


def script_of(commands: list[str]) -> str:
    """For a shell that says after each what became of it. The agent's terminal of its own is a job of the shell."""
    lines = ["exec 2>&1", 'cd "$1"']
    for number, each in enumerate(commands):
        command = each
        if each.startswith("sojourn agent run"):
            command = f'{each} >"$2/agent.log" 2>&1 &\nfor _ in $(seq 600); do grep -q ready "$2/agent.log" && break; sleep 0.1; done'
        lines.append(f"{command.replace('/tmp/site', '$2/site')}\nstatus=$?; echo; echo '{_AFTER}' {number} $status")
    lines.append("kill %1; wait")
    return "\n".join(lines)


def taken(user: int, folder: Path) -> Iterator[Typed]:
    """Take the tour as that user, who is another one in a user namespace; root has /run and /var of their own."""
    commands = tour()
    (folder / "tour.sh").write_text(script_of(commands))
    if os.geteuid() == 0:
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        mounts = "for each in /run /var/lib; do mount -t tmpfs -o mode=755 none $each; done"
        if user:
            own = [*own[:1], "--user", f"--map-user={user}", f"--map-group={user}", *own[1:]]
            mounts = ":"
        command = [*own, "sh", "-c", f'{mounts}; bash "$1/tour.sh" {ROOT} "$1"; exit 0', "sh", str(folder)]
    else:
        command = ["bash", str(folder / "tour.sh"), str(ROOT), str(folder)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**clean_environment(), "HOME": str(folder), "XDG_RUNTIME_DIR": "", "PATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
    parts = re.split(rf"^{_AFTER} (\d+) (\d+)\n", done.stdout, flags=re.MULTILINE)
    printed, numbers, statuses = parts[:-1:3], parts[1::3], parts[2::3]
    assert [*map(str, range(len(commands)))] == numbers, done.stdout + done.stderr
    for command_, status, text in zip(commands, statuses, printed, strict=True):
        yield Typed(command_, int(status), text)


@pytest.mark.curl
@pytest.mark.parametrize("user", [0, SOMEBODY], ids=["root", "an ordinary user"])
def test_the_tour(user: int) -> None:
    """Each line of README's five minutes does what the page says of it, and none is there of which nothing is said."""
    lacking_program("curl")
    if user == 0 and os.geteuid() != 0:
        lacking("needs root, for root's tour")
    if os.geteuid() == 0 and shutil.which("unshare") is None:
        lacking("needs unshare: install the package util-linux")
    left = {start: [*each] for start, each in EXPECTED.items()}
    with tempfile.TemporaryDirectory(
        prefix="tour-"
    ) as folder:  # a home, with sockets below: their paths are to be short
        said_of_each = [*taken(user, Path(folder))]
    for typed in said_of_each:
        [start] = [each for each in left if typed.command.startswith(each)]
        assert left[start], f"typed more often than is expected: {typed}"
        status, said = left[start].pop(0)
        assert status == typed.status, typed
        assert said in typed.printed, typed
    assert {} == {start: each for start, each in left.items() if each}
