"""What the tests of polling share."""

import pytest
from fakes.polling import Polling
from harness.transmitter import Transmitter


@pytest.fixture
def polling(tmp_path):
    with Transmitter() as transmitter:
        yield Polling(tmp_path, transmitter)
