"""Attestors of somebody's own, installed beside an agent as pip would install them."""

import shutil
from pathlib import Path

from harness.agent import AgentProcess
from harness.looking import until


def install(agent: AgentProcess, name: str, module: Path, plugin: str) -> None:
    """Have `agent`, not started yet, find the attestor `name`: the class `plugin` of a file."""
    folder = agent.folder / "plugins"
    about = folder / f"{name}_attestor-1.0.dist-info"
    about.mkdir(parents=True)
    shutil.copy(module, folder)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-attestor\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[sojourn.attestors]\n{name} = {module.stem}:{plugin}\n")
    agent.extra_environment["PYTHONPATH"] = str(folder)


def hosts(agent: AgentProcess) -> list[int]:
    """The processes of the agent's attestors."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            attestor = b"plugin_host" in (folder / "cmdline").read_bytes()  # a zombie has no command line
        except OSError:
            continue
        if fields[1] == b"%d" % agent.pid and attestor:
            found.append(int(folder.name))
    return found


def host_of(agent: AgentProcess, *, other_than: int = 0) -> int:
    """The one process of its one attestor, as soon as it is there and is another."""
    return until(lambda: [each for each in hosts(agent) if each != other_than], "its process is there")[0]
