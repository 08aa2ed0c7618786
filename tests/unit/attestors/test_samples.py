"""deploy/samples/attestors: each sample is taken as it is, and each attestor that comes with Sojourn has one."""

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points

import pytest
from harness.agent import SAMPLES
from sojourn.attestation.attestor import Closing
from sojourn.attestation.loader import load_attestors
from sojourn.config.load import load
from sojourn.runtime.clock import SystemClock
from sojourn.settings.plugin_loader import is_ours

FILES = sorted((SAMPLES / "attestors").glob("*.toml"))
OURS = sorted(point.name for point in entry_points(group="sojourn.attestors") if is_ours(point))


@pytest.mark.parametrize("file", FILES, ids=[each.stem for each in FILES])
async def test_is_taken(file):
    """The agent starts with it: its tables are read, and its attestors made, without asking anybody."""
    tables = load(file, {}, {}).config.attestors
    assert {"unix", file.stem} <= tables.keys()
    with ThreadPoolExecutor(1) as pool:
        made = await load_attestors(tables, pool, SystemClock())
        for each in made.values():
            if isinstance(each, Closing):
                await each.close()
    assert tables.keys() == made.keys()


@pytest.mark.parametrize("name", OURS)
def test_is_there(name):
    """Each attestor has a sample with its name."""
    assert name in [each.stem for each in FILES]
