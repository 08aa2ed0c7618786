"""A task as its holder uses it."""
