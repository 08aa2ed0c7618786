"""deploy/samples/entries: each sample is a set of entries that may be registered."""

from pathlib import Path

import pytest
from fakes.registrations import NODE, TRUST_DOMAIN
from sojourn.identity import entry_documents
from sojourn.identity.entries import Registration, registration
from sojourn.identity.reconciliation import make

SAMPLES = Path(__file__).parents[3] / "deploy" / "samples" / "entries"


@pytest.mark.parametrize("sample", sorted(SAMPLES.iterdir()), ids=lambda path: path.name)
def test_sample(sample):
    """What the sample says is read, checked and planned as it is."""
    found = entry_documents.collect([(sample.name, sample.read_text)])
    entries = [registration({"id": "", "parent_id": NODE, **each.fields}) for each in found]
    plan = make([], entries, TRUST_DOMAIN, prune=None)
    assert len(entries) == len(plan.steps) > 0
    assert all(type(each) is Registration and each.placeholders for each in entries)
