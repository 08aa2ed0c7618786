"""What the tests of attestation share."""

from collections.abc import Iterator
from subprocess import Popen

import pytest
from fakes.children import child


@pytest.fixture
def running() -> "Iterator[Popen[bytes]]":
    """A process of its own, until the test is over."""
    with child() as process:
        yield process
