"""What the tests of the store share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.databases import opened
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sojourn.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with opened(path) as database:
        yield database


@pytest.fixture
def journal(database: Database) -> AuditTable:
    return AuditTable(database)
