"""Transparency logs: RFC 6962 trees in C2SP tiles, signed notes, checkpoints and proofs. Values."""
