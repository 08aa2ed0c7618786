"""Foreign bundles and the relationships that they come by."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for name in ("bundles", "relationships"):
        op.create_table(
            name,
            sa.Column("trust_domain", sa.String(255), primary_key=True),
            sa.Column("document", sa.Text, nullable=False),
        )
