"""deploy/prometheus: alerts, their runbooks, the page of metrics and the dashboard fit each other and the code."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from harness.lacking import lacking_program
from sojourn.cli import root

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
PAGE = (ROOT / "docs" / "operate" / "alerts.md").read_text("utf-8")
RULES = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text("utf-8"))["groups"] for rule in group["rules"]
]
NAMES = sorted({rule["alert"] for rule in RULES})


def loaded(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


codes = loaded("codes", ROOT / ".ci" / "codes.py")
metrics = loaded("metrics", ROOT / ".ci" / "metrics.py")
rehearse = loaded("rehearse", FOLDER / "rehearse.py")


def listed() -> set[str]:
    """The names of all metrics: not as the file is imported, since it takes reading all the code."""
    return {each.name for each in codes.metrics()}


class TestRules:
    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
    def test_each_says_what_and_where_to_read_on(self, rule: dict[str, object]) -> None:
        """Each alert has a severity, a sentence with the machine's name, another of what it means, and its runbook."""
        said = rule["annotations"]
        assert isinstance(said, dict)
        assert {"severity": "critical"} == rule["labels"] or {"severity": "warning"} == rule["labels"]
        assert "$labels.instance" in said["summary"]
        assert {"."} == {said["summary"][-1], said["description"][-1]}
        assert f"docs/operate/alerts.md#{str(rule['alert']).lower()}" == said["runbook"]

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
    def test_each_is_about_metrics_that_there_are(self, rule: dict[str, object]) -> None:
        """What an alert looks at is a metric of the agent, or whether it was scraped at all."""
        named = {metrics.family(each) for each in metrics.names_in(str(rule["expr"]))}
        assert named <= listed()
        assert named or "up{" in str(rule["expr"])

    def test_each_has_a_runbook_and_a_test(self) -> None:
        """Each alert has its section, with what it means, what to look at and what to do; and a test of its rule."""
        sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
        assert NAMES == sorted(name for name, text in sections.items() if "**Means.**" in text)
        assert all("**Look.**" in sections[name] and "**Do.**" in sections[name] for name in NAMES)
        tested = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text("utf-8"))["tests"]
        assert NAMES == sorted({each["name"] for each in tested})

    @pytest.mark.full
    def test_the_lines_of_the_page(self, tmp_path: Path) -> None:
        """Prometheus' own tool takes configuration, rules and a rehearsal by the lines of the page; and each alert fires
        where its test says, and nowhere else.
        """
        lacking_program("promtool")
        (tmp_path / "deploy").symlink_to(ROOT / "deploy")
        lines = re.findall(r"^    (\S.*)$", PAGE, re.MULTILINE)
        assert 4 == len(lines)
        for line in [*lines, "promtool check rules rehearsal.yaml"]:
            done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
            assert 0 == done.returncode, f"{line}: {done.stdout}{done.stderr}"

    def test_commands_of_the_runbooks(self) -> None:
        """Each command of Sojourn that a runbook names is one that there is, with the options that it has."""
        lines = sorted(set(re.findall(r"`sojourn ([a-z][^`]*)`", PAGE)))
        assert len(lines) > 15
        for line in lines:
            noun, *rest = line.split()
            command = root.load(noun)
            verbs = getattr(command, "commands", None)
            command = command if verbs is None else verbs[rest[0]]
            options = {option for each in command.params for option in each.opts}
            assert {word for word in rest if word.startswith("-")} <= options, line


class TestRehearsal:
    def test_windows_and_waits_alone_are_shorter(self) -> None:
        """Every window and every wait is divided, down to a second; conditions and thresholds stay as they are."""
        text = (FOLDER / "alerts.yaml").read_text("utf-8")
        shorter = yaml.safe_load(rehearse.divided(text, 60))["groups"][0]["rules"]
        assert len(shorter) == len(RULES)
        for before, after in zip(RULES, shorter, strict=True):
            waits = [each.get("for", "0s") for each in (before, after)]
            assert waits[0] == "0s" or waits[0] != waits[1]
            bare = [re.sub(r"\[\w+\]", "[]", each.pop("expr")) for each in (dict(before), dict(after))]
            assert bare[0] == bare[1]
        assert "2s" == next(each["for"] for each in shorter if each["alert"] == "AgentDown")
        assert "[5s]" in next(each["expr"] for each in shorter if each["alert"] == "LoopLag")

    def test_some(self) -> None:
        """By their names some alerts are printed, whole, and a name that there is not is told."""
        text = (FOLDER / "alerts.yaml").read_text("utf-8")
        found = yaml.safe_load(rehearse.only(text, {"NotReady", "AuthorityEnds"}))["groups"][0]["rules"]
        assert ["NotReady", "AuthorityEnds", "AuthorityEnds"] == [each["alert"] for each in found]
        assert found[0] == next(each for each in RULES if each["alert"] == "NotReady")
        with pytest.raises(ValueError, match="no alert Nonesuch"):
            rehearse.only(text, {"Nonesuch"})


class TestPageAndDashboard:
    @pytest.mark.full
    def test_they_are_what_the_code_says(self) -> None:
        """docs/operate/metrics.md and the dashboard are what `make metrics` makes of the code."""
        assert metrics.page() == metrics.PAGE.read_text("utf-8")
        assert metrics.board() == metrics.BOARD.read_text("utf-8")

    @pytest.mark.full
    @pytest.mark.full
    def test_every_metric_is_on_both(self) -> None:
        """No metric is left out of the page, and none of the dashboard, which asks for none that there is not."""
        rows = re.findall(r"^\| `(sojourn_\w+)`", metrics.PAGE.read_text("utf-8"), re.MULTILINE)
        assert [] == sorted(listed() - set(rows))
        asked = {
            metrics.family(name)
            for panel in json.loads(metrics.board())["panels"]
            for target in panel.get("targets", [])
            for name in metrics.names_in(target["expr"])
        }
        assert asked == listed()

    def test_each_panel_has_its_place(self) -> None:
        """No two panels lie over each other, and none has the number of another."""
        panels = json.loads(metrics.board())["panels"]
        taken = [
            (x, y)
            for panel in panels
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(taken) == len(set(taken))
        assert len({panel["id"] for panel in panels}) == len(panels)

    def test_alerts_link_to_what_they_look_at(self) -> None:
        """The page names each alert beside the metrics that it looks at."""
        told = {name for names in metrics.alerts().values() for name in names}
        assert told == {*NAMES} - {"AgentDown"}
        assert ["StoreFails"] == metrics.alerts()["sojourn_store_failed"]

    def test_a_metric_without_an_area(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A new metric that belongs nowhere keeps page and dashboard from being written."""
        stray = codes.Metric("sojourn_stray_total", "counter", (), "Strays.")
        monkeypatch.setattr(metrics, "metrics", lambda: [stray])
        with pytest.raises(SystemExit, match="of no area: sojourn_stray_total"):
            metrics.page()
