"""How long something that failed is left alone."""

_DOUBLINGS = 16  # more than any pause is bounded by


def pause_after(failures: int, first: float, most: float, chance: float) -> float:
    """Seconds: `first` after none before, twice as long after each, and up to half more by `chance` (0 to 1), so that
    many do not come back as one. `most` at the most.
    """
    return min(first * float(1 << min(failures, _DOUBLINGS)) * (1 + chance / 2), most)
