"""The egress proxy of a task."""
