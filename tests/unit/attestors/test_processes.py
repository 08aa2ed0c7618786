"""kernel/processes.py: what the kernel says of any process. All of them are real."""

from fakes.children import child
from sojourn_attestors.kernel.processes import birth_of


def test_birth():
    """It is the same each time, another one for each process, and none of nobody."""
    with child() as one, child() as other:
        assert birth_of(one.pid) == birth_of(one.pid) != birth_of(other.pid)
    assert birth_of(one.pid) is birth_of(2**22 + 1) is None
