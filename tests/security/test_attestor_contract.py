"""What sojourn.testing asks of anyone's attestor, asked of `unix`; the others have it tried beside what they ask."""

import os

import pytest
from sojourn.testing.attestors import AttestorCase, AttestorContract
from sojourn_attestors.unix import UnixAttestor

pytestmark = pytest.mark.full

IDS = {"uid", "gid", "user", "group", "supplementary_gid", "supplementary_group"}


def unix(**settings):
    return AttestorCase(
        plugin=UnixAttestor,
        kinds=IDS | {"path", "sha256", "cgroup", "script_path", "script_sha256"},
        settings=settings,
        expected=lambda subject: {f"uid:{os.getuid()}", f"path:{os.readlink(f'/proc/{subject.pid}/exe')}"},
    )


CASES = {
    "unix": unix(),
    "unix, all said": unix(path=True, sha256=True, sha256_max_bytes=2**28, names=True, cgroup=True),
}


def promises():
    for name, case in CASES.items():
        for promise in AttestorContract(case).promises:
            yield pytest.param(promise, id=f"{name}: {promise}")


@pytest.mark.parametrize("promise", list(promises()))
def test_contract(promise):
    """An attestor keeps the promise, whatever process it is asked about."""
    promise.run()
