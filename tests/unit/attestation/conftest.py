"""What the tests of attestation share."""

import pytest
from fakes.attestations import FakeAttestor
from fakes.children import child, peer_of
from sojourn.attestation.service import Attestation


@pytest.fixture
def running():
    """A process of its own, until the test is over."""
    with child() as process:
        yield process


@pytest.fixture
def peer(running):
    peer = peer_of(running)
    yield peer
    peer.close()


@pytest.fixture
def unix():
    return FakeAttestor({"uid:1", "gid:1"}, {"path": "no capability"})


@pytest.fixture
def docker():
    return FakeAttestor({"label:a"})


@pytest.fixture
def attestation(unix, docker, clock):
    return Attestation({"unix": unix, "docker": docker}, clock)
