"""Facts: what task types read of the world."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "facts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("subject", sa.String(2048), primary_key=True),
        sa.Column("source", sa.String(2048), primary_key=True),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
