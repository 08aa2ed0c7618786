"""The command `sojourn`."""


def run() -> None:
    """Run it."""
