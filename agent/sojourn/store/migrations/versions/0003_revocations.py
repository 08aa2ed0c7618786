"""Revoked SVIDs, and an index by which the journal finds what was issued."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "revocations",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_index("audit_by_event", "audit", ["event", "at_ms"])
