"""What one of several may take of what is there for all."""


def may_take(own: int, total: int, most: int) -> bool:
    """Whether one who has `own` of `total` may take one more, where there is room for `most`.

    Nobody has more than half of what others leave. So each further one who takes all they may has half of what the one
    before had, and as long as anything is left, whoever comes has some of it.
    """
    return 2 * own < most - (total - own)
