"""Tests that need a part which not every machine has."""

import os
from typing import NoReturn

import pytest


def lacking(needed: str) -> NoReturn:
    """Skip the test, which needs what is said ("needs Envoy: install ..."); in CI, which has everything, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must not skip this: {needed}")
    pytest.skip(needed)
