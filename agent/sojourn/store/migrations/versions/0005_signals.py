"""Signed events that were taken, so that none has an effect twice."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "signals",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("issuer", sa.String(2048), nullable=False),
        sa.Column("iat_ms", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
    )
    op.create_index("signals_by_age", "signals", ["issuer", "iat_ms"])
