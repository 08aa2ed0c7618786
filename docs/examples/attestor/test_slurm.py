"""The promises that every attestor keeps, tried on this one: `pytest test_slurm.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sojourn.plugins.attestor import PinnedSubject
from sojourn.testing import AttestorCase, AttestorContract, Promise, child
from sojourn_slurm import SlurmAttestor


@contextmanager
def job() -> Iterator[PinnedSubject]:
    """A process that is in job 4711."""
    with child() as subject:
        yield replace(subject, cgroup="0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0\n")


CONTRACT = AttestorContract(
    AttestorCase(
        plugin=SlurmAttestor,
        kinds={"job", "step"},
        settings={"scope": "/system.slice/slurmstepd.scope"},
        known=job,
        expected={"job:4711", "step:0"},
        quiet=True,
    )
)


@pytest.mark.parametrize("promise", CONTRACT.promises, ids=str)
def test_contract(promise: Promise) -> None:
    promise.run()
