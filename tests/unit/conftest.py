"""What the unit tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.ca import FakeCa
from fakes.clock import FakeClock
from fakes.searched_records import watching


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


@pytest.fixture(scope="session", autouse=True)
def _watched() -> Iterator[list[str]]:
    """What is wrong with records that are made in any of these tests, for whoever searches the journal."""
    with watching() as faults:
        yield faults


@pytest.fixture(autouse=True)
def _searchable(_watched: list[str]) -> Iterator[None]:
    """Each record that a test has made is found by whom and what it names."""
    yield
    found, _watched[:] = list(_watched), []
    assert [] == found, "see FIELDS of audit/searchable.py and DENIALS of audit/events.py"
