"""The next release of Sojourn: this one, with a migration more."""

import os
import shutil
from pathlib import Path

import sojourn
from sojourn.store.tables import SCHEMA

from harness.agent import ROOT

NEXT = f"{int(SCHEMA) + 1:04}"
TABLE = "next_things"
_MIGRATION = f"""
import sqlalchemy as sa
from alembic import op

revision = "{NEXT}"
down_revision = "{SCHEMA}"


def upgrade() -> None:
    op.create_table("{TABLE}", sa.Column("id", sa.String(64), primary_key=True))
    op.execute("INSERT INTO {TABLE} SELECT id FROM entries")
    op.create_index("{TABLE}_by_id", "{TABLE}", ["id"])
"""
_TABLE = f"""

next_things = Table("{TABLE}", metadata, Column("id", String(64), primary_key=True), Index("{TABLE}_by_id", "id"))
"""


def next_release(folder: Path) -> Path:
    """Make it in a folder, and return what is to be first among the places of Python's modules."""
    made = folder / "sojourn"
    shutil.copytree(Path(sojourn.__file__).parent, made, ignore=shutil.ignore_patterns("__pycache__"))
    (made / f"store/migrations/versions/{NEXT}_next.py").write_text(_MIGRATION)
    tables = made / "store/tables.py"
    text = tables.read_text().replace(f'SCHEMA = "{SCHEMA}"', f'SCHEMA = "{NEXT}"')
    at = text.index("\n\ndef create(")
    tables.write_text(text[:at] + _TABLE + text[at:])
    return folder


def modules_of(following: Path) -> dict[str, str]:
    """By what a process finds the next release's modules, and the attestors of this one, which it has too."""
    return {"PYTHONPATH": os.pathsep.join([str(following), str(ROOT / "attestors")])}
