"""The sample task types: each is sound, and answers every one of its cases as it should."""

from pathlib import Path

import pytest
from sojourn.policy import cases, lint
from sojourn.policy.task_types import load
from sojourn.spiffe.ids import TrustDomain

SAMPLES = Path(__file__).parent.parent.parent.parent / "deploy" / "samples" / "task-types"
TYPES = load(SAMPLES)
HIGH = {"break-glass", "deploy", "migrate-database", "pay", "refund-for"}


def test_all_are_there():
    """There are nine, with the class that fits what they can do."""
    normal = {"triage-ticket", "look-at-status-page", "call-infrastructure-api", "send-mail"}
    assert HIGH | normal == set(TYPES)
    assert HIGH == {kind.name for kind in TYPES.values() if kind.consequence == "high"}
    assert HIGH | {"call-infrastructure-api"} == {kind.name for kind in TYPES.values() if kind.bound}


@pytest.mark.parametrize("name", sorted(TYPES))
class TestEach:
    def test_nothing_to_remark(self, name):
        """No lint has anything to say, within the samples' trust domain."""
        assert ([], []) == (lint.faults(TYPES[name], TrustDomain("example.org")), lint.warnings(TYPES[name]))

    def test_answers_its_cases(self, name):
        """Every case gets the answer that it expects, some are allowed and some denied, and every policy decides one."""
        found = cases.load(SAMPLES, TYPES[name])
        outcomes = cases.run(TYPES[name], found)
        assert {} == {each.case.name: each.differences for each in outcomes if each.differences}
        assert {True, False} == {case.allow for case in found}
        assert [] == cases.undecided(TYPES[name], outcomes)

    def test_no_case_is_allowed_when_the_task_is_over(self, name):
        """What is allowed in a case is denied as soon as the task is not active."""
        from sojourn.policy.questions import ask

        for case in cases.load(SAMPLES, TYPES[name]):
            for state in ("suspended", "completed", "revoked", "expired"):
                assert not ask(TYPES[name], case.question.of_another(state=state))
