"""The sets of task types that records name."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "policy_sets",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("from_seq", sa.BigInteger, nullable=False),
        sa.Column("until_seq", sa.BigInteger, nullable=False),
        sa.Column("files", sa.Text, nullable=False),
    )
    op.create_table(
        "policy_texts",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
    )
