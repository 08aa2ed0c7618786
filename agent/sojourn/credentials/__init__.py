"""Credentials of providers outside, for tasks: obtained, handed out while the task lives, and taken back at its end."""
