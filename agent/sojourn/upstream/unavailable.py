"""What an upstream authority's outside answered, or did not, as the error that operators are told."""

from typing import NoReturn

from sojourn.errors import SojournError, UpstreamUnavailable


def unavailable(error: SojournError, hint: str = "") -> UpstreamUnavailable:
    """What was asked of it failed, in its own words and ours."""
    if isinstance(error, UpstreamUnavailable):
        return error
    hint = hint or getattr(error, "hint", "")
    return UpstreamUnavailable(error.public + (f"; {hint}" if hint else ""), detail=error.detail)


def raise_unavailable(error: SojournError, hint: str = "") -> NoReturn:
    """Raise it, in the place of an error that was caught."""
    if isinstance(error, UpstreamUnavailable):
        raise error
    raise unavailable(error, hint) from error
