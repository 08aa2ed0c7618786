"""signing.py: what signs is what the configuration says, and not silently something else than before."""

from pathlib import Path

import pytest
from sojourn.agent.signing import refuse_node
from sojourn.errors import CannotStart


class TestWithoutUpstream:
    def test_what_a_node_keeps(self, tmp_path: Path) -> None:
        """An agent that is a node does not become its own authority because a table of its configuration is gone."""
        (tmp_path / "node").mkdir()
        refuse_node(tmp_path)
        (tmp_path / "node" / "node.sealed").write_bytes(b"")
        with pytest.raises(CannotStart, match="sojourn agent detach"):
            refuse_node(tmp_path)
