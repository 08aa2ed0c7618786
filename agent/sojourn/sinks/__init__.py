"""Sinks: where the journal's records go beside the database, each at its own pace."""
