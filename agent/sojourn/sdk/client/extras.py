"""Libraries that only a part of the SDK needs, and what to install when they are not there."""

from collections.abc import Iterator
from contextlib import contextmanager

from sojourn.errors import FailedPrecondition
from sojourn.extras import how_to_install


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what the extra `name` brings. Raise FailedPrecondition, which says what to install."""
    try:
        yield
    except ImportError as error:
        raise FailedPrecondition(f"this needs {error.name}, which is not installed: {how_to_install(name)}") from error
