"""A real Prometheus that scrapes agents and judges their alerts."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import urlopen

from harness.agent import ROOT
from harness.keeper import keep
from harness.lacking import lacking_program
from harness.looking import until
from harness.ports import free_port

FOLDER = ROOT / "deploy" / "prometheus"
INTERVAL = "2s"  # between scrapes, each of which may take as long on a busy machine
LOOK = "1s"  # between looks at the rules: those that are rehearsed have windows of some seconds


def rules(factor: float, *names: str) -> str:
    """The alerts with their windows and waits divided, as an operator has them to try them out."""
    made = subprocess.run(
        [sys.executable, str(FOLDER / "rehearse.py"), str(factor), *names], capture_output=True, text=True, check=True
    )
    return made.stdout


class Prometheus:
    """Scrapes one agent at a port of this machine. Use as a context manager."""

    def __init__(self, folder: Path, scraped: int, files: Mapping[str, str], interval: str = INTERVAL) -> None:
        """`scraped`: the port that the agent has its metrics at. `files`: rules, by names without their end."""
        lacking_program("prometheus")
        self._folder = folder / "prometheus"
        self._folder.mkdir()
        for name, text in files.items():
            (self._folder / f"{name}.rules.yaml").write_text(text)
        text = (FOLDER / "prometheus.yaml").read_text("utf-8")
        text = text.replace("127.0.0.1:9464", f"127.0.0.1:{scraped}")
        text = text.replace("scrape_interval: 15s", f"scrape_interval: {interval}")
        text = text.replace(
            "evaluation_interval: 15s", f"evaluation_interval: {LOOK if interval == INTERVAL else interval}"
        )
        assert "alerts.yaml" in text
        (self._folder / "prometheus.yaml").write_text(text.replace("alerts.yaml", "'*.rules.yaml'"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
            )
        keep(self._process)
        until(self._scraped, "Prometheus has metrics of the agent", seconds=60)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _scraped(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            return bool(self.query("sojourn_ready"))
        except OSError:
            return False

    def _ask(self, path: str, **parameters: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self._port}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now: each with `metric` and `value`. Raise urllib's HTTPError if it is none."""
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float:
        """The value of an expression that has one series."""
        [found] = self.query(expression)
        return float(found["value"][1])

    def alerts(self, state: str = "firing") -> list[dict[str, str]]:
        """The labels of each alert that fires, or is pending."""
        return [each["labels"] for each in self._ask("alerts")["alerts"] if each["state"] == state]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {each["alertname"] for each in self.alerts()}

    def ever(self, span: str) -> set[str]:
        """The names of the alerts that have fired within a span such as `10m`."""
        found = self.query(f'max_over_time(ALERTS{{alertstate="firing"}}[{span}])')
        return {each["metric"]["alertname"] for each in found}

    def fires(self, *names: str, seconds: float = 60) -> None:
        """Wait until all of these fire. Raise AssertionError if they do not."""
        until(lambda: {*names} <= self.firing(), f"{', '.join(names)} to fire", seconds=seconds)

    def is_so(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression with a condition has a series."""
        until(lambda: self.query(expression), expression, seconds=seconds)

    def ends(self, *names: str, seconds: float = 60) -> None:
        """Wait until none of these fires any more."""
        until(lambda: self.firing().isdisjoint(names), f"{', '.join(names)} to end", seconds=seconds)


@contextmanager
def watched(folder: Path, scraped: int, factors: Mapping[str, float]) -> Iterator[Prometheus]:
    """A Prometheus with some alerts, each of them so many times faster. None of them fires at first."""
    made = {name: rules(factor, name) for name, factor in factors.items()}
    with Prometheus(folder, scraped, made) as running:
        running.ends(*factors)  # before the first scrape there was nobody
        yield running
