"""What the kernel says of any process: its parent, when it began, whether it has ended."""

import select


def parent_and_birth(pid: int) -> tuple[int, int]:
    """The parent's pid and the moment of birth in clock ticks since boot, from /proc/PID/task/PID/stat.

    It has these as /proc/PID/stat has them (proc_pid_stat(5)), without adding up the process's threads, of which there
    may be tens of thousands. Raise OSError if there is no such process.
    """
    with open(f"/proc/{pid}/task/{pid}/stat", "rb") as file:
        text = file.read()
    fields = text[text.rfind(b")") + 2 :].split()
    return int(fields[1]), int(fields[19])


def birth_of(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None if there is none. With the pid it names one process."""
    try:
        return parent_and_birth(pid)[1]
    except OSError:
        return None


def has_ended(pidfd: int) -> bool:
    """Whether the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
