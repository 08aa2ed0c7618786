"""What oversight sees: the audit journal."""
