"""Every table of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _identity()
    _tasks()
    _heard()
    op.create_table(
        "settings",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def _identity() -> None:
    op.create_table(
        "entries",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("identity_digest", sa.String(64), nullable=False, unique=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    for name in ("bundles", "relationships"):
        op.create_table(
            name,
            sa.Column("trust_domain", sa.String(255), primary_key=True),
            sa.Column("document", sa.Text, nullable=False),
        )
    op.create_table(
        "revocations",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "revoked_identities",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(2048), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )


def _tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_index("tasks_by_state", "tasks", ["state"])
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    op.create_index("audit_by_event", "audit", ["event", "at_ms"])
    op.create_table(
        "external_credentials",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_index("external_credentials_by_task", "external_credentials", ["task_id"])
    op.create_table(
        "approval_notices",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "used_tokens",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("used_tokens_by_end", "used_tokens", ["expires_at"])


def _heard() -> None:
    op.create_table(
        "facts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("subject", sa.String(2048), primary_key=True),
        sa.Column("source", sa.String(2048), primary_key=True),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "signals",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("issuer", sa.String(2048), nullable=False),
        sa.Column("iat_ms", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
    )
    op.create_index("signals_by_age", "signals", ["issuer", "iat_ms"])
