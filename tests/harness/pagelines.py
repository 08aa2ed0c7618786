"""The command lines of a page, as its reader would type them: one shell for the page, one section after the other."""

import os
import re
import subprocess
import textwrap
from collections.abc import Mapping
from pathlib import Path

from harness.agent import ROOT

_FENCED = re.compile(r"^```.*?^```\n", re.MULTILINE | re.DOTALL)  # a program or a picture: nobody types it
# A block is indented by four columns, or by those of the item of a list that it stands in.
_BLOCK = re.compile(r"(?:^(?: {4}|\t).*\n|^\n(?= {4}))+", re.MULTILINE)
_AGENT = re.compile(r"^(sojourn agent run .*)$", re.MULTILINE)
_WITNESS = re.compile(r"^(sojourn audit witness .*) &$", re.MULTILINE)
_DOCTOR = re.compile(r"^(sojourn doctor.*)$", re.MULTILINE)
# Given to bash in front of what a page says. An agent of the page goes on behind it, and ends with the shell; so does a
# witness. The page goes on once they are ready, as its reader would: else it may be over, and they ended, before.
_PROLOGUE = """
set -euo pipefail
ready() { { set +x; } 2>/dev/null; for _ in $(seq 300); do grep -q ready "$1" && { set -x; return; }; sleep 0.1; done; cat "$1"; return 1; }
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
"""


def sections(page: str) -> dict[str, str]:
    """What a page below docs/ has typed, by the headings that it stands under. Sections without a command are left out."""
    text = _FENCED.sub("", (ROOT / "docs" / page).read_text("utf-8"))
    parts = re.split(r"^#+ (.+)\n", text, flags=re.MULTILINE)
    found = {}
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        typed = "\n".join(textwrap.dedent(block).strip("\n") for block in _BLOCK.findall(body))
        if typed.strip():
            found[heading] = typed + "\n"
    return found


def run(typed: str, folder: Path, environment: Mapping[str, str], seconds: float = 400) -> str:
    """Have bash run it as it stands, and return what it prints. Raise AssertionError at the first line that fails."""
    script = _PROLOGUE + _AGENT.sub(r"\1 >agent.out 2>&1 &\nready agent.out", typed)
    script = _WITNESS.sub(r"\1 >witness.out 2>&1 &\nready witness.out\ncat witness.out", script)
    script = _DOCTOR.sub(r"\1 || test $? -le 5", script)  # what it finds is no failure of the page
    done = subprocess.run(
        ["bash", "-xc", script], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=seconds,
    )  # fmt: skip
    assert 0 == done.returncode, f"{script}\n--- printed\n{done.stdout}\n--- said\n{done.stderr}"
    return done.stdout


def lines_below(page: Path, heading: str) -> list[str]:
    """The commands below a heading of the second level, in order: what is indented by four spaces."""
    section = page.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    assert found, heading
    return found
