"""Write docs/operate/metrics.md and deploy/prometheus/dashboard.json from the metrics in the code, or, with `--check`,
fail if one of them is stale.

A metric has its place on both by the first area whose names it begins with. One that has no area keeps both from being
written, so that none is left out.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codes import Metric, metrics, table
from sojourn.endpoints.listener.refusals import Refusal

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "operate" / "metrics.md"
BOARD = ROOT / "deploy" / "prometheus" / "dashboard.json"
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
PREFIX = "sojourn_"
COLUMNS, WIDTH, HEIGHT = 3, 8, 7  # of panels on the dashboard, in Grafana's units
BUILD = "build_info"


@dataclass(frozen=True, slots=True)
class Area:
    """What belongs together on page and dashboard: `names` are beginnings of metrics' names."""

    title: str
    names: tuple[str, ...]


AREAS = (
    Area("The run", (BUILD, "ready", "condition_", "restarts_", "clock_", "config_", "loop_")),
    Area("Doors and calls", ("connections", "callers_", "calls_", "streams", "no_identity")),
    Area("Attestation", ("attest",)),
    Area(
        "Identity and authority",
        ("entries", "authority_", "svid", "x509_svids", "listener_certificate_", "sds_", "upstream_"),
    ),
    Area("Other trust domains", ("federation_", "foreign_")),
    Area("A node and its server", ("node_",)),
    Area("A server and its nodes", ("nodes",)),
    Area("Policy and approval", ("decision", "policy_", "task_types", "approval", "reviews_", "break_glass_")),
    Area("Tasks", ("task_", "tasks_", "end_to_feed_", "validators", "requests_refused_")),
    Area(
        "Token service and services",
        ("token_requests_", "introspections_", "revocations_", "signals_", "signal_poll", "envoy_"),
    ),
    Area("Providers outside", ("provider_", "external_")),
    Area(
        "Store and journal",
        ("store_", "journal_", "audit_log_", "audit_sink_", "audit_witness_", "audit_timestamp_", "backup_"),
    ),
)
# What every Python program that Prometheus scrapes tells, and what it is good for here.
PROCESS = (
    Metric("process_resident_memory_bytes", "gauge", (), "Memory of the agent's process; attestors' own are apart."),
    Metric("process_cpu_seconds_total", "counter", (), "Processor time of the agent: one is what its loop can use."),
    Metric("process_open_fds", "gauge", (), "Open files: about one a connection and task, beside those of the agent."),
    Metric("process_max_fds", "gauge", (), "So many files it may open."),
    Metric("process_start_time_seconds", "gauge", (), "When the run began, as Unix time."),
)
INTRO = """\
# Metrics

For whoever watches the agent. With `metrics.listen = "127.0.0.1:9464"` it serves them to Prometheus over HTTP at
`/metrics`, beside `/livez` and `/readyz`. `make metrics` writes this page and the dashboard from the code.
[alerts.md](alerts.md) has what to be woken by, and [capacity.md](capacity.md) how much is normal.

No label has an ID, a user, a path or a SPIFFE ID. What labels say:

- `type` is a task type of the configuration, of which 1,000 are told apart; the others are `other`.
- `door` is `workload` or `admin` for the two sockets, or `tcp`, `https`, `trust` as in `[listen]`.
- `kind` is `x509`, `jwt`, `jwt-rs256` or `wit`; `intermediate` is the certificate between the root and SVIDs.
- `reason` of a refused connection is one of {reasons}.
- `reason` of the end of a task, and `code`, are the words of [codes.md](../codes.md); `condition` those of
  `sojourn agent health`.

Times of the clock are Unix time in seconds. Counters begin at 0 with each run, but for `sojourn_restarts_total` and
`sojourn_journal_pruned_total`, which the database keeps. An agent with nothing to do has less than 400 time series, and
one in full use less than 1,500.

What belongs to parts that do not exist yet has no metric: keys that lie elsewhere. `sojourn_node_…` are those of a
[node of a SPIRE server](spire-node.md) alone.
"""


def names_in(text: str) -> set[str]:
    """The metrics of ours that a query or a rule names."""
    return set(re.findall(rf"\b{PREFIX}\w+", text))


def family(name: str) -> str:
    """The metric that a time series is of."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def alerts() -> dict[str, list[str]]:
    """The alerts that look at a metric, by its name."""
    found: dict[str, list[str]] = {}
    for rule in RULES.read_text("utf-8").split("- alert: ")[1:]:
        alert = rule.split("\n", 1)[0].strip()
        said = rule.partition("annotations:")[0].partition("expr:")[2]
        for name in sorted({family(each) for each in names_in(said)}):
            if alert not in found.setdefault(name, []):
                found[name].append(alert)
    return found


def by_area() -> list[tuple[Area, list[Metric]]]:
    """Every metric in its area. Raise SystemExit if one has none."""
    left = metrics()
    found = []
    for area in AREAS:
        mine = [each for each in left if each.name.removeprefix(PREFIX).startswith(area.names)]
        found.append((area, mine))
        left = [each for each in left if each not in mine]
    if left:
        names = ", ".join(each.name for each in left)
        raise SystemExit(f"of no area: {names}: name it in AREAS of .ci/metrics.py")
    return found


# --- the page ---------------------------------------------------------------------------------------------------------


def page() -> str:
    """docs/operate/metrics.md, whole."""
    lines = [INTRO.format(reasons=", ".join(f"`{each}`" for each in Refusal))]
    told = alerts()
    for area, mine in (*by_area(), (Area("The process", ()), list(PROCESS))):
        rows = [
            (f"`{each.name}`", each.kind, _labels(each), each.text, _links(told.get(each.name, []))) for each in mine
        ]
        lines += [f"## {area.title}", "", *table(("Metric", "Kind", "Labels", "What it tells", "Alerts"), rows), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels)


def _links(names: list[str]) -> str:
    return ", ".join(f"[{name}](alerts.md#{name.lower()})" for name in names)


# --- the dashboard ----------------------------------------------------------------------------------------------------


def queries(metric: Metric) -> list[tuple[str, str]]:
    """What a panel asks of a metric, each with its legend."""
    mine = '{instance=~"$instance"}'
    labels = ["instance", *metric.labels]
    by, legend = ", ".join(labels), " ".join(f"{{{{{label}}}}}" for label in labels)
    rate = "[$__rate_interval]"
    if metric.kind == "counter":
        return [(f"sum by ({by}) (rate({metric.name}{mine}{rate}))", legend)]
    if metric.kind == "histogram":
        buckets = f"{metric.name}_bucket{mine}{rate}"
        return [
            (f"histogram_quantile({share}, sum by (le, {by}) (rate({buckets})))", f"{legend} {name}")
            for share, name in ((0.5, "p50"), (0.99, "p99"))
        ]
    if metric.kind == "summary":
        total = f"sum by ({by}) (rate({metric.name}_sum{mine}{rate}))"
        return [(f"{total} / sum by ({by}) (rate({metric.name}_count{mine}{rate}))", f"{legend} mean")]
    return [(f"{metric.name}{mine}", legend)]


def _unit(metric: Metric) -> str:
    if metric.name.endswith("timestamp_seconds") or "not_after" in metric.name or "start_time" in metric.name:
        return "dateTimeAsIso"
    units = {"_seconds": "s", "_seconds_max": "s", "_bytes": "bytes", "_share": "percentunit", "_total": "cps"}
    return next((unit for end, unit in units.items() if metric.name.endswith(end)), "none")


def _panel(number: int, metric: Metric, x: int, y: int) -> dict[str, Any]:
    value = 1000 if _unit(metric) == "dateTimeAsIso" else 1  # Grafana's times are in milliseconds
    return {
        "id": number,
        "type": "timeseries",
        "title": metric.name.removeprefix(PREFIX),
        "description": metric.text,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": _unit(metric)}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": f"{query} * 1000" if value > 1 else query, "legendFormat": legend}
            for place, (query, legend) in enumerate(queries(metric))
        ],
    }


def _row(number: int, title: str, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
    }


def _overview() -> list[Metric]:
    firing = 'ALERTS{alertstate="firing",job="sojourn",instance=~"$instance"}'
    return [Metric(firing, "query", ("alertname",), "Alerts that fire."), *PROCESS]


def _panels() -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for title, mine in (("Alerts and the process", _overview()), *((area.title, mine) for area, mine in by_area())):
        number += 1
        yield _row(number, title, y)
        y += 1
        for place, metric in enumerate(mine):
            number += 1
            panel = _panel(number, metric, place % COLUMNS * WIDTH, y + place // COLUMNS * HEIGHT)
            if metric.kind == "query":
                panel["title"] = metric.text.rstrip(".")
                panel["targets"][0] |= {"expr": metric.name, "legendFormat": "{{instance}} {{alertname}}"}
            yield panel
        y += -(-len(mine) // COLUMNS) * HEIGHT


def board() -> str:
    """deploy/prometheus/dashboard.json, whole."""
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    instance = {
        "name": "instance",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": {"query": f"label_values({PREFIX}{BUILD}, instance)", "refId": "instance"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    made = {
        "title": "Sojourn",
        "uid": "sojourn",
        "tags": ["sojourn"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source, instance]},
        "panels": list(_panels()),
    }
    return json.dumps(made, indent=1) + "\n"


def main() -> None:
    made = {PAGE: page(), BOARD: board()}
    if "--check" not in sys.argv:
        for path, text in made.items():
            path.write_text(text, "utf-8")
        return
    stale = [path for path, text in made.items() if not path.exists() or path.read_text("utf-8") != text]
    if stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        raise SystemExit(f"not what the code says: {names}: run `make metrics`")
    print("docs/operate/metrics.md and deploy/prometheus/dashboard.json are up to date")


if __name__ == "__main__":
    main()
