"""docs/operate/spire-node.md: each of its commands works as it stands, with a real SPIRE server."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from harness import pagelines
from harness.federating import SpireServer
from harness.spirecli import binary

pytestmark = [pytest.mark.full, pytest.mark.timeout(500)]

PAGE = "operate/spire-node.md"


def test_the_page(tmp_path: Path) -> None:
    """Who follows the page from a server to a node, and back again, has what it says."""
    place = tmp_path / "here"
    place.mkdir()
    programs = [str(Path(sys.executable).parent), str(Path(binary("spire-server")).parent)]
    environment = {
        "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
        "SOJOURN_SOCKET": str(place / "run" / "agent.sock"),
        "SOJOURN_ADMIN_SOCKET": str(place / "run" / "admin.sock"),
        "SOJOURN_DATA_DIR": str(place / "data"),
    }
    parts = pagelines.sections(PAGE)
    with SpireServer(binary("spire-server"), tmp_path / "server", "example.org") as server:

        def follow(heading: str) -> str:
            typed = parts[heading].replace("/tmp/spire-server/private/api.sock", server.socket)
            typed = typed.replace("spire-server.example.org:8081", f"127.0.0.1:{server.node_port}")
            return pagelines.run(typed, place, environment)

        joined = follow("Join")
        shutil.rmtree(place / "data")  # the machine is lost
        assert "joined as spiffe://example.org/spire/agent/join_token/" in follow("When a machine is lost")
        assert "spire-server entry create -parentID spiffe://example.org/spire/agent/join_token/" in joined
        assert "spiffe://example.org/first\n  serial" in joined
        assert "detached spiffe://example.org/spire/agent/join_token/" in follow("Back again")


def test_every_section_is_followed() -> None:
    """No section of the page has a command that is not typed here."""
    assert {"Join", "When a machine is lost", "Back again"} == set(pagelines.sections(PAGE))
