"""Declared entries: what must change, all or nothing."""

from dataclasses import replace

import pytest
from fakes.clock import FakeClock
from fakes.registrations import NODE, OTHER_NODE, TRUST_DOMAIN, FakeEntryStore, entry
from sojourn.errors import AlreadyExists, InvalidEntry, StoreFull
from sojourn.identity.reconciliation import make
from sojourn.identity.registry import Registry
from sojourn.runtime.clock import Alarms

WEB, DB = entry("/web"), entry("/db", "unix:uid:2")


def wanted(of, **changes):
    """What somebody declares who wants `of`: without what the registry sets."""
    return replace(of, id="", revision=0, created_at=0, **changes)


def steps(plan):
    return [(step.action, (step.new or step.old).spiffe_id.path, step.changed) for step in plan.steps]


def test_nothing_to_do():
    """An entry that is as wanted is left alone."""
    plan = make([WEB, DB], [wanted(DB), wanted(WEB)], TRUST_DOMAIN, prune=lambda _: True)
    assert ([], 2) == (steps(plan), plan.unchanged)


def test_create_update_delete():
    """New entries are created, changed ones updated with the names of the fields, others go only with prune."""
    asked = [wanted(WEB, hint="h", x509_svid_ttl=60), entry("/new", "unix:uid:3", id="")]
    expected = [("update", "/web", ("x509_svid_ttl", "hint")), ("create", "/new", ())]
    assert expected == steps(make([WEB, DB], asked, TRUST_DOMAIN, prune=None))
    expected.append(("delete", "/db", ()))
    assert expected == steps(make([WEB, DB], asked, TRUST_DOMAIN, prune=lambda _: True))


def test_prune_is_asked():
    """What is not wanted goes only if prune says so of it."""
    plan = make([WEB, DB], [], TRUST_DOMAIN, prune=lambda each: each is DB)
    assert [("delete", "/db", ())] == steps(plan)


def test_by_id():
    """A wanted entry with an ID is that one, even with another SPIFFE ID and other selectors."""
    asked = replace(entry("/moved", "unix:uid:9"), id=WEB.id, revision=0, created_at=0)
    [step] = make([WEB], [asked], TRUST_DOMAIN, prune=None).steps
    assert ("update", WEB.id, ("spiffe_id", "selectors")) == (step.action, step.new.id, step.changed)


def test_all_faults_at_once():
    """Every wrong entry is named by its place, and twins among the wanted are faults."""
    asked = [wanted(WEB, x509_svid_ttl=1), wanted(DB), wanted(DB)]
    with pytest.raises(InvalidEntry) as caught:
        make([], asked, TRUST_DOMAIN, prune=None)
    assert "entry 1 (spiffe://example.org/web): x509_svid_ttl is 1 s" in caught.value.public
    assert "entry 3 (spiffe://example.org/db): is the same as entry 2" in caught.value.public


@pytest.fixture
def store():
    return FakeEntryStore([WEB, DB, entry("/far", "unix:uid:8", parent_id=OTHER_NODE)])


@pytest.fixture
def registry(store):
    clock = FakeClock()
    return Registry(store, TRUST_DOMAIN, [NODE], clock, Alarms(clock))


async def test_apply(registry, store):
    """Applying is on disk and in force when it returns, tells all changes at once, and spares other nodes' entries."""
    heard = []
    registry.on_change(heard.append)
    plan = await registry.apply([wanted(WEB, hint="h")], prune=True, dry_run=False)
    assert [("update", "/web", ("hint",)), ("delete", "/db", ())] == steps(plan)
    assert {"/web", "/far"} == {each.spiffe_id.path for each in store.load()}
    assert (1, 2) == (len(heard), len(heard[0]))
    assert (1, "h") == (registry.get(WEB.id).revision, registry.get(WEB.id).hint)
    again = await registry.apply([wanted(WEB, hint="h")], prune=True, dry_run=False)
    assert ([], 1) == (steps(again), again.unchanged)


async def test_dry_run(registry, store):
    """A dry run says what would change and changes nothing."""
    before = store.load()
    plan = await registry.apply([], prune=True, dry_run=True)
    assert 2 == len(plan.steps)
    assert before == store.load()


async def test_all_or_nothing(registry, store):
    """If the store does not take it, nothing has changed."""
    store.failure = StoreFull("no room")
    with pytest.raises(StoreFull):
        await registry.apply([], prune=True, dry_run=False)
    assert 3 == len(registry)


async def test_twins(registry):
    """A wanted entry whose twin has another ID and stays is refused; two entries may change places."""
    with pytest.raises(AlreadyExists):
        await registry.apply([replace(wanted(DB), id=WEB.id), wanted(DB)][:1], prune=False, dry_run=False)
    swapped = [replace(wanted(DB), id=WEB.id), replace(wanted(WEB), id=DB.id)]
    plan = await registry.apply(swapped, prune=False, dry_run=False)
    assert ["update", "update"] == [step.action for step in plan.steps]
    assert "/db" == registry.get(WEB.id).spiffe_id.path
