"""What records of the journal are searched by. It is filled behind: an upgrade does not wait for it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "audit_blocks",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("first_ms", sa.BigInteger, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "audit_terms",
        sa.Column("block", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("term", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("places", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.drop_index("audit_by_event", table_name="audit")
