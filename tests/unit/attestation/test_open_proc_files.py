"""open_proc_files.py: files of those that call again and again stay open, of so many."""

from contextlib import ExitStack

import pytest
from fakes.attestations import FakeAttestor
from fakes.children import child, holder_of, peer_of
from fakes.clock import FakeClock
from harness.looking import OpenFiles
from sojourn.attestation import open_proc_files
from sojourn.attestation.open_proc_files import KeptOpen
from sojourn.attestation.service import Attestation


@pytest.fixture
def handles():
    with child() as process, ExitStack() as closing:
        made = [holder_of(process) for _ in range(3)]
        for handle in made:
            closing.callback(handle.close)
        yield made


def test_once_for_each(handles):
    """Two files of each are open, however often it comes."""
    before, kept = OpenFiles(), KeptOpen()
    for handle in (*handles, *handles):
        kept.note(handle)
    assert 6 == len(before.opened_since("/proc/"))


def test_of_so_many(handles, monkeypatch):
    """The files of the process that did not come for longest are closed; when it comes again they are opened again."""
    monkeypatch.setattr(open_proc_files, "PROCESSES_KEPT_OPEN", 2)
    before, kept = OpenFiles(), KeptOpen()
    first, second, third = handles
    for handle in (first, second, first, third):
        kept.note(handle)
        assert len(before.opened_since("/proc/")) <= 4
    assert [True, False, True] == [each._open >= 0 for each in handles]
    kept.note(second)
    assert [False, True, True] == [each._open >= 0 for each in handles]


async def test_of_callers_that_come_again():
    """A caller that comes once costs no descriptors; one that comes again does, until its connection ends."""
    attestation = Attestation({"unix": FakeAttestor({"uid:1"})}, FakeClock())
    with child() as process:
        before = OpenFiles()
        peer = peer_of(process)
        await attestation.attest(peer)
        assert [] == before.opened_since("/proc/")
        await attestation.attest(peer)
        assert 2 == len(before.opened_since("/proc/"))
        peer.close()
        assert [] == before.opened_since()
