"""Tests that need a part which not every machine has."""

import os
import shutil
from typing import NoReturn

import pytest

PROGRAMS = ("curl",)  # what users have on a line of the guides: a mark of a test that is about that line


def lacking(needed: str) -> NoReturn:
    """Skip the test, which needs what is said ("needs Envoy: install ..."); in CI, which has everything, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must not skip this: {needed}")
    pytest.skip(needed)


def lacking_program(name: str) -> None:
    """Skip the test if a program that it is about, and whose Debian package has its name, is not installed."""
    if shutil.which(name) is None:
        lacking(f"needs {name}: install the package {name}")
