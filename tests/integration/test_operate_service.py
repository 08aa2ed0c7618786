"""docs/operate/service.md: every command of it, as it stands there, by root of a booted machine without the unit."""

import re
from collections.abc import Iterator

import pytest
from harness.agent import ROOT
from harness.nspawn import booted
from harness.unitinstall import UnitAgent

pytestmark = [pytest.mark.full, pytest.mark.root]
PAGE = ROOT / "docs" / "operate" / "service.md"
PROMPT = "    # "


def steps() -> Iterator[tuple[str, str]]:
    """Each command of the page with what it prints there."""
    shown = re.findall(r"^ {4}# .+\n(?: {4}(?!# ).*\n)*", PAGE.read_text("utf-8"), re.MULTILINE)
    for block in shown:
        command, *said = block.removesuffix("\n").split("\n")
        yield command.removeprefix(PROMPT), "\n".join(line[4:] for line in said)


def fits(shown: str, said: str) -> bool:
    """Whether a command said what the page shows, where … is anything."""
    pattern = ".*".join(re.escape(part) for part in shown.split("…"))
    return re.fullmatch(pattern, said, re.DOTALL) is not None


def test_the_page_is_so() -> None:
    """Every command of the page works in its order, and says what the page shows."""
    with booted() as machine:
        UnitAgent(machine)
        count = 0
        for command, shown in steps():
            script = f'cd "{ROOT}"; PATH="$PATH:/opt/sojourn/bin"; {command}'
            said = machine.run("sh", "-ec", script, seconds=60).strip()
            while "ActiveState=reloading" == said:  # `systemctl reload` returns when the agent has been told
                said = machine.run("sh", "-ec", script, seconds=60).strip()
            assert fits(shown, said), f"{command}\nshown: {shown}\nsaid:  {said}"
            count += 1
        assert count > 20
