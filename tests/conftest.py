"""What holds for all tests."""

import os

import pytest
from harness.clients import BUILD_SECONDS, TOOLS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need root are skipped without it, but never in CI. The first test with a built client builds it."""
    for item in items:
        if any(item.get_closest_marker(language) for language in TOOLS):
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            if os.environ.get("CI"):
                item.add_marker(pytest.mark.xfail(reason="CI must run as root", run=False, strict=True))
            else:
                item.add_marker(pytest.mark.skip(reason="needs root: acts as other users or in namespaces"))
