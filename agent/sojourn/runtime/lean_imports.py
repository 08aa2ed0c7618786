"""Imports libraries without what they would bring along for uses that are not ours."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Have these packages seem not to be installed, to what is imported within. Those that are loaded stay."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # so Python is told that an import is to fail
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def import_structlog() -> None:
    """Import structlog without rich and all that it brings: tracebacks in colour, and logs here are JSON."""
    with without("rich", "twisted"):
        import structlog

    del structlog
