"""cli/evidence.py: what the agent sends is compared with its own manifest."""

from types import SimpleNamespace

import pytest
from fakes.signed_journals import started
from sojourn.cli.evidence import Heard
from sojourn.evidence.manifest import MANIFEST, RECORDS
from sojourn.oversight.controls import frameworks


class TestHeard:
    async def sent(self, tmp_path, lines=slice(None)):
        """What comes of an export of which some lines arrive."""
        async with started(tmp_path) as here:
            await here.record(20)
            folder = await here.export(tmp_path / "out")
        heard = Heard([frameworks.load("maestro")])
        records = (folder / RECORDS).read_bytes().splitlines(keepends=True)[lines]
        for name, content in ((RECORDS, b"".join(records)), (MANIFEST, (folder / MANIFEST).read_bytes())):
            heard.add(SimpleNamespace(file=name, content=content, done=1, total=1))
        return heard.value()

    async def test_all(self, tmp_path):
        """All that the manifest names is a whole journal."""
        found = await self.sent(tmp_path)
        assert {"looked_at": True, "whole": True, "first_bad_seq": None} == found["journal"]

    @pytest.mark.parametrize(("lines", "bad"), [(slice(None, -3), -2), (slice(2, None), 1)])
    async def test_not_all(self, tmp_path, lines, bad):
        """Where the first or the last records do not come the journal is not whole, from the first that is missing on."""
        found = await self.sent(tmp_path, lines)
        assert not found["journal"]["whole"]
        assert (found["last_seq"] + 1 if bad < 0 else bad) == found["journal"]["first_bad_seq"]
