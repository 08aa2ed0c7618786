"""Entries may have placeholders and custom claims in their documents: an agent that cannot fill them must not try."""

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """No table changes: documents without placeholders and claims are as they were."""
