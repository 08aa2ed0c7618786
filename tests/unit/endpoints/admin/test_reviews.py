"""endpoints/admin/reviews.py: what was shown of an item is there after it, too."""

from types import SimpleNamespace
from typing import Any

import pytest
from fakes.databases import opened
from fakes.task_types import task_type
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit
from sojourn.endpoints.admin.reviews import ReviewsApi
from sojourn.errors import InvalidInput, ReviewNotShown
from sojourn.jose.canonical_json import canonical
from sojourn.store.audit import AuditTable
from sojourn.store.reviews import ReviewTable
from sojourn.tasks.recertification import Recertification

CALL: Any = SimpleNamespace()
ITEM = "type:triage"
EVIDENCE = canonical({"owners": ["support"], "sponsors": ["oidc:x"], "used": True})


@pytest.fixture
async def room(tmp_path, clock):
    """The calls on reviews of one type, over a real store."""
    types = {"triage": task_type("triage", owner='"support"')}
    with opened(tmp_path / "reviews.db") as database:
        journal = AuditTable(database)
        made = Recertification(ReviewTable(database, journal), lambda: types, Audit(journal, clock), clock)
        await made.types_changed(types, {})
        (shown,) = await made.show([(ITEM, EVIDENCE)])
        nothing: Any = SimpleNamespace(residual=list, all=list)
        policies: Any = SimpleNamespace(in_force=types)
        empty: Any = None
        api = ReviewsApi(made, policies, empty or [], nothing, nothing, empty, empty)
        yield SimpleNamespace(api=api, types=types, digest=shown.digest)


async def shown(room, *items, digest=""):
    request = pb.ShowReviewItemsRequest(items=items or [ITEM], digest=digest or room.digest)
    return [each async for part in room.api.show(CALL, request) for each in part.shown]


async def test_evidence_of_what_is_gone(room):
    """What was shown of an item is shown again by its digest when the item is gone: with its owner of then, and with
    what is known of its review.
    """
    (there,) = await shown(room)
    room.types.clear()
    (gone,) = await shown(room)
    for each in there, gone:
        assert (ITEM, EVIDENCE, room.digest) == (each.item.item, each.evidence, each.digest)
        assert (["support"], True) == ([*each.item.owners], each.item.known_at > 0)
    assert ["oidc:x"] == [*gone.item.sponsors]


async def test_what_was_not_shown(room):
    """What was never shown of an item is refused, and so is a digest for several items."""
    for items, digest in ([ITEM], "0" * 64), (["type:none"], ""), (["nothing"], ""):
        with pytest.raises(ReviewNotShown):
            await shown(room, *items, digest=digest)
    with pytest.raises(InvalidInput):
        await shown(room, ITEM, ITEM)
