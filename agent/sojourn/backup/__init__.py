"""Backups, restoring them, and noticing that a data folder was put back."""
