"""What holds for all tests."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need root are skipped without it, but never in CI."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            if os.environ.get("CI"):
                item.add_marker(pytest.mark.xfail(reason="CI must run as root", run=False, strict=True))
            else:
                item.add_marker(pytest.mark.skip(reason="needs root: acts as other users or in namespaces"))
