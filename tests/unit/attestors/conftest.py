"""What the tests of attestors share."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from sojourn_attestors.containers.place import Containers


@pytest.fixture
def rootless():
    with ThreadPoolExecutor(2) as pool:
        yield Containers(pool, rootless=True)


@pytest.fixture
def base():
    """A folder of this test's own for its cgroups."""
    return f"/sojourn-test-{secrets.token_hex(8)}"


@pytest.fixture
def name():
    """An id such as engines give."""
    return secrets.token_hex(32)
