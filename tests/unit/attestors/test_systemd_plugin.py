"""systemd.py: the attestor keeps what every attestor keeps, and says which of its settings is wrong."""

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from fakes.systembus import SILENT, FakeSystemBus
from fakes.systemd_room import CGROUP, UNITS, VALUES, Folders
from sojourn.errors import InvalidConfig
from sojourn.testing.attestors import AttestorCase, AttestorContract
from sojourn.testing.attestors import child as contract_child
from sojourn.testing.promises import promises_of
from sojourn_attestors.systemd import SystemdAttestor


class Contract:
    """The bus that the contract's attestor asks, and the cgroups that it sees."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="sojourn-bus-"))
        self.bus = FakeSystemBus(self.folder)

    @contextmanager
    def known(self):
        with self.bus, contract_child() as subject:
            self.bus.unit("web.service", subject.pid, CGROUP)
            yield replace(subject, cgroup=f"0::{CGROUP}\n")

    @contextmanager
    def broken(self, **changes):
        before = {name: getattr(self.bus, name) for name in changes}
        for name, value in changes.items():
            setattr(self.bus, name, value)
        yield
        for name, value in before.items():
            setattr(self.bus, name, value)

    @contextmanager
    def stopped(self):
        self.bus.stop()
        yield
        self.bus.start()

    def attestor(self, settings, pool):
        attestor = SystemdAttestor(settings, pool)
        attestor._folders = Folders(self.folder / "cgroups")
        return attestor

    @property
    def promises(self):
        silent = {**self.bus.answers, "Get": lambda *_: SILENT}
        broken = {
            "no bus": self.stopped,
            "a bus without systemd": partial(self.broken, owner=None),
            "a user for systemd": partial(self.broken, uid=4711),
            "a systemd that is silent": partial(self.broken, answers=silent),
            "a bus that takes nobody": partial(self.broken, authentication=(b"REJECTED EXTERNAL\r\n",)),
        }
        settings = {"socket": self.bus.socket, "user_units": True, "delegated": False}
        kinds = {*UNITS, "user"}
        case = AttestorCase(
            plugin=self.attestor,
            kinds=kinds,
            settings=settings,
            known=self.known,
            expected=VALUES,
            broken=broken,
        )
        return AttestorContract(case).promises


@pytest.fixture
def contract():
    contract = Contract()
    yield {str(each): each for each in contract.promises}
    shutil.rmtree(contract.folder)


@pytest.mark.full
@pytest.mark.root
@pytest.mark.parametrize("name", [str(each) for each in promises_of(AttestorContract(None))])
def test_contract(contract, name):
    """The attestor `systemd` keeps what every attestor keeps."""
    contract[name].run()


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "key"),
        [
            ({"socket": "relative"}, "socket"),
            ({"socket": ""}, "socket"),
            ({"socket": "/" + "x" * 108}, "socket"),
            ({"socket": 7}, "socket"),
            ({"user_units": "yes"}, "user_units"),
            ({"delegated": 1}, "delegated"),
            ({"bus": "x"}, "bus"),
        ],
    )
    def test_wrong_ones(self, settings, key):
        """A setting that is wrong is named."""
        with ThreadPoolExecutor(1) as pool, pytest.raises(InvalidConfig) as refused:
            SystemdAttestor(settings, pool)
        assert refused.value.faults[0].startswith(f"{key}: ")

    def test_none(self):
        """The attestor `systemd` takes no settings."""
        with ThreadPoolExecutor(1) as pool:
            assert isinstance(SystemdAttestor({}, pool), SystemdAttestor)
