"""What the unit tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.ca import FakeCa
from fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a configuration, and says where."""

    def write(text: str) -> Path:
        path = tmp_path / "sojourn.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def ca() -> FakeCa:
    return FakeCa.make("example.org")


@pytest.fixture(scope="session")
def other_ca() -> FakeCa:
    return FakeCa.make("other.example")
