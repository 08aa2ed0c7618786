"""An attestor of one's own: of which job of a Slurm cluster a process is, as in `slurm:job:4711` and `slurm:step:0`.

`slurmstepd` runs as root and puts the processes of a step into cgroups below its own scope. A user can make no cgroup
there but below those of their own job, so the beginning of the path is the cluster's word.
"""

import re
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

from sojourn.plugins.attestor import Answer, AttestationFailed, Subject, Table, parse_cgroups, read_settings


class SlurmTable(Table):
    scope: str = "/system.slice/slurmstepd.scope"  # the keys of [attestors.slurm]


class SlurmAttestor:
    def __init__(self, settings: Mapping[str, Any], pool: Executor) -> None:  # noqa: ARG002  # nothing here blocks
        scope = read_settings(SlurmTable, settings).scope
        self._job = re.compile(re.escape(scope) + r"/job_([0-9]{1,10})/step_([0-9a-z]{1,10})(/.*)?", re.DOTALL)

    async def attest(self, subject: Subject) -> Answer:
        try:
            lines = parse_cgroups(subject.cgroup)
        except ValueError as error:
            raise AttestationFailed("its cgroups cannot be read", detail=str(error)) from error
        found = {match.group(1, 2) for line in lines if (match := self._job.fullmatch(line.path))}
        if len(found) > 1:
            raise AttestationFailed("its cgroups are of several jobs")
        return Answer(frozenset(value for job, step in found for value in (f"job:{job}", f"step:{step}")))
