"""localauthority.py: what operators do to the keys that sign has its records, whatever the disk takes."""

from types import SimpleNamespace

import pytest
from fakes.granting_room import Room
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.endpoints.spire.localauthority import LocalAuthorityApi
from sojourn.errors import FailedPrecondition, InvalidInput, StoreFull
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


class UpstreamRoots:
    """Those of an upstream authority, in the place of the real ones."""

    def __init__(self, *ids):
        self.ids = ids
        self.done = []

    def has(self, root_id):
        return root_id in self.ids

    def taint(self, root_id):
        self.done.append(("taint", root_id))

    def revoke(self, root_id):
        self.done.append(("revoke", root_id))


@pytest.mark.parametrize("step", ["taint", "revoke"])
async def test_a_root_of_the_upstream_authority(room, monkeypatch, step):
    """SPIRE's command and ours taint and revoke such a root, and each has its record."""
    root = "ab" * 20
    roots = UpstreamRoots(root)
    monkeypatch.setattr(type(room.authority), "upstream_roots", roots, raising=False)
    api = LocalAuthorityApi(room.authority, room.issuing, room.audit)
    done = f"{step.capitalize()}X509UpstreamAuthority"
    method = api.methods()[done]
    told = await method.handler(CALL, method.request(subject_key_id=root.upper()))
    assert root == told.upstream_authority_subject_key_id
    await api.change(CALL, pb.ChangeAuthorityKeyRequest(kind="x509", step=step, authority_id=root))
    assert [(step, root)] * 2 == roots.done
    records = room.store.fields("authority_tainted" if step == "taint" else "authority_revoked")
    assert [("upstream", root)] * 2 == [(each["kind"], each["authority_id"]) for each in records]
    with pytest.raises(InvalidInput):
        await method.handler(CALL, method.request())
    with pytest.raises(FailedPrecondition):
        await api.change(CALL, pb.ChangeAuthorityKeyRequest(kind="x509", step="activate", authority_id=root))
