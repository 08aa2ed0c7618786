"""localauthority.py: what operators do to the keys that sign has its records, whatever the disk takes."""

from types import SimpleNamespace

import pytest
from fakes.granting_room import Room
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.endpoints.spire.localauthority import LocalAuthorityApi
from sojourn.errors import StoreFull
from sojourn.errors.oauth import NotOnDisk

CALL = SimpleNamespace(by={"by_uid": 0, "by_pid": 1})


@pytest.fixture
def room(tmp_path):
    made = Room(tmp_path / "keys")
    yield made
    made.close()


@pytest.mark.parametrize("full", [False, True])
async def test_a_taint_of_the_key_that_signs(room, full):
    """It has two records, of the key that is tainted and of the one that signs from then on, also if the disk was full."""
    api = LocalAuthorityApi(room.authority, room.issuing, room.audit)
    before = room.authority.slots("jwt").active.id
    request = pb.ChangeAuthorityKeyRequest(kind="jwt", step="taint", authority_id=before)
    if full:
        room.store.failure = StoreFull("no room")
        with pytest.raises(NotOnDisk):
            await api.change(CALL, request)
        room.store.failure = None
        await room.audit.flush()
    else:
        await api.change(CALL, request)
    after = room.authority.slots("jwt").active.id
    assert before != after
    assert ([before], [after]) == tuple(
        [each["authority_id"] for each in room.store.fields(f"authority_{done}")] for done in ("tainted", "activated")
    )
