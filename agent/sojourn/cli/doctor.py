"""`sojourn doctor`: what is wrong with the agent and its machine, whether or not it runs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sojourn.cli import remote
from sojourn.cli.agent import ConfigOption
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, printable
from sojourn.config.paths import default_config_file
from sojourn.doctor.findings import EXIT_STATUS, Finding, Verdict, link, worst
from sojourn.doctor.scene import SILENT, Scene
from sojourn.errors import InvalidConfig, InvalidInput, SojournError

BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        metavar="FILE",
        help="Write an archive for whoever is to help: this, the status and the configuration, without keys, tokens,"
        " parameters of tasks and secrets. FILE must not exist.",
    ),
]
_LOUD: Final = {Verdict.OK: "ok", Verdict.UNKNOWN: "unknown", Verdict.WARN: "WARN", Verdict.FAIL: "FAIL"}


def doctor(
    config: ConfigOption = None,
    bundle: BundleOption = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Look for what is wrong with the agent and its machine, and say what to do about it.

    Root sees most. Without a running agent, and for other users, what cannot be looked at is `unknown`. --config is the
    running agent's if it is left out. Exit status by the worst: 0 ok, 1 something fails, 4 a warning, 5 unknown.
    """
    from sojourn.doctor.checks import examine

    scene = _scene(config, admin_socket)
    findings = examine(scene)
    verdict = worst(findings.values())
    value: dict[str, Any] = {
        "verdict": str(verdict),
        "checks": [
            {"id": name, "verdict": str(each.verdict), "found": each.found, "do": each.do, "link": link(name)}
            for name, each in findings.items()
        ],
        "bundle": None,
    }
    lines = list(_lines(findings))
    if bundle is not None:
        from sojourn.cli.support_archive import write

        write(bundle, scene, value, admin_socket)
        value["bundle"] = str(bundle)
        lines.append(f"the archive is {bundle}: look through it before you give it away")
    emit(output, value, lines)
    raise typer.Exit(EXIT_STATUS[verdict])


def _scene(config: Path | None, admin_socket: str | None) -> Scene:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb
    from sojourn.config.load import load

    try:
        status, silent = remote.admin(admin_socket, pb.GetStatusRequest()), ""
    except SojournError as error:
        status, silent = None, error.public
    told = Path(status.config.file) if status is not None and status.config.file else None
    file = config or (told if status is not None else default_config_file())
    try:
        return Scene(status, silent, load(file, {}).config, config_file=file)
    except (InvalidConfig, InvalidInput) as error:
        return Scene(status, silent, None, config_fault=error.public, config_file=file)


def _lines(findings: Mapping[str, Finding]) -> Iterator[str]:
    width = max(map(len, findings))
    silent = [name for name, each in findings.items() if each.found == SILENT]
    for name, each in findings.items():
        if each.found == SILENT:
            continue
        yield f"{_LOUD[each.verdict]:<8} {name:<{width}}  {printable(each.found)}"
        if each.verdict is not Verdict.OK:
            yield from (f"{'':<{width + 9}}  {text}" for text in _cure(name, each))
    if silent:
        yield f"{_LOUD[Verdict.UNKNOWN]:<8} {SILENT}, and cannot be asked about: {', '.join(silent)}"
    yield _sum(findings.values())


def _cure(name: str, finding: Finding) -> Iterable[str]:
    return [f"do: {printable(finding.do)}"] * bool(finding.do) + [link(name)]


def _sum(findings: Iterable[Finding]) -> str:
    counts = Counter(each.verdict for each in findings)
    return (
        f"{counts[Verdict.FAIL]} failed, {counts[Verdict.WARN]} warnings, {counts[Verdict.UNKNOWN]} unknown,"
        f" {counts[Verdict.OK]} ok"
    )
