"""What the kernel says of any process: which one it is, and whether it has ended."""

import select

from sojourn.plugins.attestor import parent_and_birth


def birth_of(pid: int) -> int | None:
    """What with its pid names one process; None if there is none. Raise AttestationFailed if it cannot be told now."""
    try:
        return parent_and_birth(pid)[1]
    except OSError:
        return None


def has_ended(pidfd: int) -> bool:
    """Whether the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
