"""docs/tasks.md: the type that it writes is sound, answers its cases, and is what the page's output is of."""

import re
import shlex
from pathlib import Path

import pytest
from sojourn.cli.root import app
from sojourn.policy import cases, lint
from sojourn.policy.cedar_schema import some_task
from sojourn.policy.questions import Question, ask
from sojourn.policy.task_types import load
from sojourn.spiffe.ids import TrustDomain

PAGE = Path(__file__).parents[3] / "docs" / "tasks.md"


def section(number):
    """The blocks of a section of the page."""
    _, _, rest = PAGE.read_text().partition(f"\n## {number}. ")
    text = rest.partition("\n## ")[0]
    blocks = re.findall(r"(?:^(?:    .*)?\n)*^    .*\n", text, re.MULTILINE)
    return [
        "".join(line.removeprefix("    ") for line in block.lstrip("\n").splitlines(keepends=True)) for block in blocks
    ]


@pytest.fixture
def folder(tmp_path):
    """What a reader of sections 1 to 3 has written."""
    tmp_path.chmod(0o755)
    (tmp_path / "give-refund.toml").write_text(section(1)[0])
    (tmp_path / "give-refund.cedar").write_text(section(2)[0])
    first, _, more = section(3)
    (tmp_path / "give-refund.test.toml").write_text(first + more)
    return tmp_path


def test_the_type(folder):
    """It has no fault and no warning, and its digest is the one that the page shows."""
    kind = load(folder)["give-refund"]
    assert ([], []) == (lint.faults(kind, TrustDomain("example.org")), lint.warnings(kind))
    assert f"give-refund  {kind.digest[:12]}  " in section(2)[1]


def test_the_cases(folder):
    """Every case is answered as it says, and none of its policies is left without one."""
    kind = load(folder)["give-refund"]
    outcomes = cases.run(kind, cases.load(folder, kind))
    assert 4 == len(outcomes)
    assert [] == [each.differences for each in outcomes if each.differences]
    assert [] == cases.undecided(kind, outcomes)


def test_once(folder):
    """After its refund a task may look, and refund no more; looks before it change nothing."""
    kind = load(folder)["give-refund"]
    workload, shop = "spiffe://example.org/agent/support", "https://shop.example.org"
    params = {"order": "O-1001", "cents": "2500"}

    def may(action, **done):
        return bool(ask(kind, Question(some_task(kind.name, workload, **done), action, shop, params)))

    assert may("refund:create", reported_calls=9, tokens_issued=9)
    assert not may("refund:create", uses=(("refund:create", 1),))
    assert may("order:read", uses=(("refund:create", 1),))


class TestForAPerson:
    SAMPLES = PAGE.parents[1] / "deploy" / "samples" / "task-types"

    def test_quotes(self):
        """What the page quotes of the sample type and its cases stands there."""
        written = "".join((self.SAMPLES / f"refund-for.{kind}").read_text() for kind in ("toml", "cedar", "test.toml"))
        blocks = section(12)
        assert len(blocks) >= 5
        for block in blocks[:4]:
            assert block in written

    def test_explained(self, capsys):
        """The command of the page prints what the page says."""
        command, *told = section(12)[4].replace("\\\n", "").splitlines()
        arguments = shlex.split(command.removeprefix("$ sojourn "))
        arguments[arguments.index("--folder") + 1] = str(self.SAMPLES)
        app(arguments, standalone_mode=False)
        assert capsys.readouterr().out.startswith("\n".join(told).removesuffix("…"))
