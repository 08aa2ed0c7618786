"""The nodes of a server, and the join tokens that are not used yet."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(2048), primary_key=True),
        sa.Column("attestor", sa.String(64), nullable=False),
        sa.Column("banned", sa.Boolean, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "join_tokens",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
    )
