"""kernel/processes.py: what the kernel says of any process. All of them are real."""

import os
import threading
from pathlib import Path

import pytest
from fakes.children import child
from sojourn_attestors.kernel.processes import birth_of, parent_and_birth


def test_it_is_that_of_the_process():
    """Parent and birth are those that the kernel tells of the whole process, also of one with threads."""
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(20)]
    for each in threads:
        each.start()
    with child() as other:
        for pid in (other.pid, os.getpid()):
            text = Path(f"/proc/{pid}/stat").read_text("ascii")
            fields = text[text.rfind(")") + 2 :].split()
            assert (int(fields[1]), int(fields[19])) == parent_and_birth(pid)
            assert int(fields[19]) == birth_of(pid)
    over.set()
    for each in threads:
        each.join()


def test_nobody():
    """Of a pid that is nobody's there is nothing."""
    with pytest.raises(OSError, match="No such file"):
        parent_and_birth(2**22 + 1)
    assert birth_of(2**22 + 1) is None
