"""tasks.py: no request leaves a handle on its caller open."""

import pytest
from fakes.children import child, peer_of
from harness.looking import OpenFiles
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.endpoints.api.tasks import TasksApi
from sojourn.errors import InvalidInput
from sojourn.tasks.people import PeopleService


class Nobody:
    """Identities by which every caller has none, which nobody asks for here."""

    async def of(self, _peer):
        return ()


async def test_a_malformed_begin():
    """A request to begin a stream's task that is malformed leaves nothing open: it costs its sender nothing."""
    api = TasksApi.__new__(TasksApi)
    api._identities = Nobody()
    api._people = PeopleService.__new__(PeopleService)  # nobody is asked before the request is read
    with child() as process:
        peer = peer_of(process)
        before = OpenFiles()
        with pytest.raises(InvalidInput):
            await api._begin_stream(peer, pb.BeginTaskRequest())
        assert [] == before.opened_since()
        peer.close()
