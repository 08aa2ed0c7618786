"""docs/fleet.md: each of its commands works as it stands, on a server's machine and on a node's."""

import os
import sys
from pathlib import Path

import pytest
from harness import pagelines
from harness.ports import free_port

pytestmark = [pytest.mark.full, pytest.mark.timeout(500)]

PAGE = "fleet.md"
# Two machines of the page are two users' folders of one here: what tells them apart is said between its lines.
MACHINES = ("On the server's machine", "On the node's machine", "At the server again", "on the node's machine")


def test_the_page(tmp_path: Path) -> None:
    """Who follows the page from nothing has a server, a node, and a workload with its identity."""
    port, place = free_port(), tmp_path / "here"
    place.mkdir()
    server = str(place / "server" / "admin.sock")
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "SERVER": server,
        "SOJOURN_SOCKET": str(place / "run" / "agent.sock"),
        "SOJOURN_ADMIN_SOCKET": str(place / "run" / "admin.sock"),
        "SOJOURN_DATA_DIR": str(place / "data"),
    }
    parts = pagelines.sections(PAGE)
    at_server = f"SOJOURN_DATA_DIR={place}/server-data SOJOURN_ADMIN_SOCKET={server}"
    first, rest = parts["Start"].split("JOIN=", 1)
    first = first.replace("sojourn server run", f"sojourn server run --nodes 127.0.0.1:{port}")
    first = "\n".join(f"export {each}" for each in at_server.split()) + "\n" + first
    back = "\n".join(f"export {name}={environment[name]}" for name in ("SOJOURN_DATA_DIR", "SOJOURN_ADMIN_SOCKET"))
    rest = ("JOIN=" + rest).replace("server.example.org:8081", f"127.0.0.1:{port}")
    rest = rest.replace(
        "run --config agent.toml &", "run --config agent.toml"
    )  # what runs the page has it go on behind it
    others = "".join(parts[heading] for heading in parts if heading != "Start")
    printed = pagelines.run(f"{first}\n{back}\n{rest}\n{others}", place, environment)
    assert "spiffe://example.org/first" in printed
    assert "banned spiffe://example.org/spire/agent/join_token/" in printed


def test_every_section_is_followed() -> None:
    """No section of the page has a command that is not typed here."""
    headings = {"Start", "Who joins, and how", "A key that is bound to the node's name", "What a node may have"}
    assert headings == set(pagelines.sections(PAGE))
    text = (Path(__file__).parents[2] / "docs" / PAGE).read_text()
    assert all(each in text for each in MACHINES)
