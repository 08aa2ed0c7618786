"""attestation/loader.py and plugins.py: which attestors there are, where they run, and what is wrong with them."""

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint, distribution

import pytest
from sojourn.attestation.loader import load_attestors
from sojourn.attestation.plugin_attestor import HostedAttestor
from sojourn.errors import InvalidConfig
from sojourn.runtime.clock import SystemClock
from sojourn.settings import plugin_loader
from sojourn.testing.processes import child
from sojourn_attestors.unix import UnixAttestor

HOSTILE = "fakes.hostile_attestor:HostileAttestor"
UNIX = "sojourn_attestors.unix:UnixAttestor"


@pytest.fixture
async def load():
    """Loads attestors of these tables, and closes them when the test is over."""
    made = []

    async def load(tables):
        with ThreadPoolExecutor(1) as pool:
            attestors = await load_attestors(tables, pool, SystemClock())
        made.extend(attestors.values())
        return attestors

    yield load
    for each in made:
        if isinstance(each, HostedAttestor):
            await each.close()


@pytest.fixture
def installed(monkeypatch):
    """Has other entry points be there: name, value and package of each."""

    def installed(*points):
        made = [EntryPoint(name, value, "sojourn.attestors") for name, value, _ in points]
        for point, (_, _, package) in zip(made, points, strict=True):
            vars(point).update(dist=package and distribution(package))
        monkeypatch.setattr(plugin_loader, "entry_points", lambda group: made)

    return installed


async def test_by_name(load):
    """Attestors are found by their entry point, with their table of the configuration, and ours run here."""
    assert {"unix": UnixAttestor} == {
        name: type(made) for name, made in (await load({"unix": {"path": False}})).items()
    }
    assert {} == await load({})


@pytest.mark.parametrize("package", ["pytest", None])
async def test_others_have_their_own_process(load, installed, package):
    """An attestor that does not come with Sojourn runs in a process of its own, whoever's it is."""
    installed(("unix", UNIX, "sojourn"), ("other", HOSTILE, package))
    made = await load({"other": {}, "unix": {}})
    assert ["other", "unix"] == list(made)
    assert (HostedAttestor, UnixAttestor) == (type(made["other"]), type(made["unix"]))
    with child() as subject:
        assert {f"pid:{subject.pid}"} == (await made["other"].attest(subject)).values


async def test_one_name_of_two_packages(load, installed):
    """If two packages have an attestor of the same name, neither is it; the others are not touched."""
    installed(("unix", UNIX, "sojourn"), ("unix", HOSTILE, "pytest"), ("other", UNIX, "sojourn"))
    with pytest.raises(InvalidConfig) as caught:
        await load({"unix": {}})
    assert ["attestors.unix: is in several packages, pytest and sojourn: uninstall all but one"] == caught.value.faults
    assert {"other"} == set(await load({"other": {}}))


async def test_all_faults(load, installed):
    """All that is wrong with any of them, wherever it runs, is told at once under its key."""
    installed(("unix", UNIX, "sojourn"), ("other", HOSTILE, None), ("good", HOSTILE, None))
    with pytest.raises(InvalidConfig) as caught:
        await load({"unix": {"colour": True, "path": "yes"}, "nowhere": {}, "other": {"deed": "fault"}, "good": {}})
    keys = [fault.partition(": ")[0] for fault in caught.value.faults]
    ours = ["attestors.nowhere", "attestors.unix.colour", "attestors.unix.path"]
    assert sorted([*ours, "attestors.other", "attestors.other.colour"]) == sorted(keys)
    assert "there are: good, other, unix" in str(caught.value)


async def test_one_that_cannot_be_loaded(load, installed):
    """A plugin that cannot be imported is a fault of the configuration, wherever it would run."""
    installed(("ours", "sojourn_attestors.nothing:X", "sojourn"), ("broken", "nothing_at_all:X", None))
    with pytest.raises(InvalidConfig) as caught:
        await load({"ours": {}, "broken": {}})
    assert [f"attestors.{name}: cannot be loaded: ModuleNotFoundError" for name in ("ours", "broken")] == (
        caught.value.faults
    )
