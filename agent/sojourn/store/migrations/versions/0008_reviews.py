"""Reviews for assurance: the dates and decisions of items, and the evidence that was shown of them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "review_items",
        sa.Column("item", sa.String(2200), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "review_shown",
        sa.Column("item", sa.String(2200), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("shown_ms", sa.BigInteger, nullable=False),
        sa.Column("decided_ms", sa.BigInteger, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
    )
    op.create_index("review_shown_by_time", "review_shown", ["shown_ms"])
