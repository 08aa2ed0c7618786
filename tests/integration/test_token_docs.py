"""docs/tokens.md: each request that it shows works as it stands."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from harness.agent import COMMAND, ROOT
from harness.taskagent import shared_agent

TEXT = (ROOT / "docs" / "tokens.md").read_text()
BLOCKS = re.findall(r"(?:^    .*\n)+", TEXT, re.MULTILINE)


@pytest.mark.curl
def test_the_requests_of_the_guide() -> None:
    """Every curl line of the guide gets a token, each as it stands, in one shell, as a reader would try them."""
    first, *requests = BLOCKS
    assert 5 == len(requests)
    shown = re.sub(r'S="[^\n]*', "", first)  # this agent is not at the default place
    with shared_agent() as agent:
        lines = [f"S='{agent.socket}'", shown]
        for request in requests:
            lines += [request, "sleep 0.3", "echo" if request.startswith("    curl") else 'echo "$ANSWER"']
        environment = {**agent.environment, "PATH": f"{Path(COMMAND[0]).parent}:/usr/bin:/bin"}
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert 0 == done.returncode, done.stderr
    assert [True] * 5 == ["access_token" in each for each in answers], answers
    assert answers[3]["task_id"] == answers[4]["task_id"]
