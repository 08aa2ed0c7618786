"""Systemd, asked about units."""
