"""Identities that are revoked, each by one row."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "revoked_identities",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(2048), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
