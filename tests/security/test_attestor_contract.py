"""Every attestor that comes with Sojourn keeps what sojourn.contracts asks of anyone's."""

import os

import pytest
from sojourn.contracts.attestors import AttestorCase, AttestorContract
from sojourn_attestors.unix import UnixAttestor

UNIX = {"uid", "gid", "user", "group", "supplementary_gid", "supplementary_group", "path", "sha256"}
UNIX |= {"cgroup", "script_path", "script_sha256"}


def unix():
    return AttestorCase(
        plugin=UnixAttestor,
        kinds=UNIX,
        settings={"path": True, "sha256": True},
        expected=lambda subject: {f"uid:{os.getuid()}", f"path:{os.readlink(f'/proc/{subject.pid}/exe')}"},
    )


CASES = {"unix": unix}


def promises():
    for name, case in CASES.items():
        for promise in AttestorContract(case()).promises:
            yield pytest.param(promise, id=f"{name}: {promise}")


@pytest.mark.parametrize("promise", list(promises()))
def test_contract(promise):
    """An attestor keeps the promise, whatever process it is asked about."""
    promise.run()
