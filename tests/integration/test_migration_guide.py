"""docs/migrate-from-spire.md: each of its commands works as it stands, from a real SPIRE to Sojourn and back."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import pagelines
from harness.federating import SpireServer
from harness.looking import until
from harness.ports import free_port
from harness.spireagent import SpireAgent
from harness.spirecli import binary

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

PAGE = "migrate-from-spire.md"
TITLE, LOOK, BESIDE, PLACE, BACK = (
    "Migrate from SPIRE, and back",
    "Look at what there is",
    "Beside, as a trust domain of its own",
    "In its place",
    "Back again",
)


@dataclass
class Machine:
    """A machine with SPIRE's server and agent, and a folder in which the page is followed."""

    folder: Path
    server: SpireServer
    agent: SpireAgent
    port: int

    def follow(self, *headings: str, first: str = "") -> str:
        """Type what the page has under these headings, with this machine's paths and port."""
        typed = first + "".join(pagelines.sections(PAGE)[each] for each in headings)
        typed = typed.replace("/tmp/spire-server/private/api.sock", self.server.socket)
        typed = typed.replace("/tmp/spire-agent/public/api.sock", self.agent.socket).replace(":8444", f":{self.port}")
        return pagelines.run(typed, self.folder, self.environment)

    @property
    def environment(self) -> dict[str, str]:
        programs = [
            str(Path(sys.executable).parent),
            *{str(Path(binary(each)).parent) for each in ("spire-server", "spire-agent")},
        ]
        return {
            "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
            "SOJOURN_SOCKET": str(self.folder / "run" / "agent.sock"),
            "SOJOURN_ADMIN_SOCKET": str(self.folder / "run" / "admin.sock"),
            "SOJOURN_DATA_DIR": str(self.folder / "data"),
        }

    def register(self, path: str, selector: str) -> None:
        self.server.run(
            "entry", "create", "-spiffeID", f"spiffe://spire.example{path}", "-parentID", self.agent.spiffe_id,
            "-selector", selector, "-x509SVIDTTL", "600",
        )  # fmt: skip

    def entries(self) -> dict[str, dict[str, object]]:
        """SPIRE's entries by the path of their SPIFFE ID."""
        shown = json.loads(self.server.run("entry", "show", "-output", "json").stdout)
        return {each["spiffe_id"]["path"]: each for each in shown["entries"]}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    server = SpireServer(binary("spire-server"), tmp_path / "server", "spire.example")
    with server, SpireAgent(binary("spire-agent"), server, tmp_path / "agent") as agent:
        made = Machine(tmp_path, server, agent, free_port())
        made.register("/web", f"unix:uid:{os.getuid()}")
        made.register("/other", "unix:uid:54399")
        until(lambda: "/web" in pagelines.run(fetched(agent), tmp_path, made.environment), "SPIRE serves the entry", 60)
        yield made


def fetched(agent: SpireAgent) -> str:
    return f"spire-agent api fetch x509 -socketPath {agent.socket} || true\n"


def test_beside_and_back(machine: Machine) -> None:
    """Beside SPIRE each side trusts the other, the same process has an identity of either, and the way back leads to where it began."""
    printed = machine.follow(TITLE, LOOK, BESIDE)
    assert "spiffe://spire.example/web" in printed
    assert "spiffe://next.example/web" in printed
    assert 3 <= printed.count("spiffe://next.example/web")
    assert any("next.example" in str(each["federates_with"]) for each in machine.entries().values())
    for each in machine.entries().values():
        machine.server.run("entry", "delete", "-entryID", str(each["id"]))
    machine.follow(TITLE, BACK, first="sojourn agent run --config agent.toml\n")
    back = machine.entries()
    assert {"/web", "/other"} == set(back)
    path = machine.agent.spiffe_id.removeprefix("spiffe://spire.example")
    assert [{"trust_domain": "spire.example", "path": path}] * 2 == [each["parent_id"] for each in back.values()]
    assert 600 == back["/web"]["x509_svid_ttl"]


def test_in_its_place(machine: Machine) -> None:
    """In SPIRE's place the same process has the same SPIFFE ID, by the same tool."""
    machine.follow(TITLE, LOOK)
    machine.agent.__exit__()
    shutil.rmtree(machine.folder / "agent" / "data")
    printed = machine.follow(TITLE, PLACE)
    assert "spiffe://spire.example/web" in printed
    assert "2 changed" in printed
