"""Configurations, and what is wrong with them."""

import pytest
from sojourn.config.load import load
from sojourn.errors import InvalidConfig


def faults(path, flags=None, environment=None):
    with pytest.raises(InvalidConfig) as caught:
        load(path, flags or {}, environment or {})
    return caught.value.faults
