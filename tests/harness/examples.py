"""How many examples a property test tries: what it asks for, and a tenth of that in the everyday loop.

A busy machine is no fault of what is tested: how long an example takes, or the first of them for the tables of all
characters, fails no test. What hangs ends by the time that a test has.
"""

import os

from hypothesis import HealthCheck, settings

QUICK = bool(os.environ.get("SOJOURN_TEST_QUICK"))  # set by `make test-quick`
USUAL = 100


def examples(number: int, *suppressed: HealthCheck) -> settings:
    """Settings of a test that tries so many examples, without those of hypothesis' checks on it."""
    return settings(
        max_examples=max(10, number // 10) if QUICK else number,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, *suppressed],
    )


def by_default() -> None:
    """Have tests that ask for nothing try the usual number."""
    settings.register_profile("sojourn", examples(USUAL))
    settings.load_profile("sojourn")
