"""sds.py: what a stream keeps of its requests."""

import pytest
from sojourn._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from sojourn.endpoints.envoy.sds import _Delta, _World
from sojourn.errors import InvalidInput
from sojourn.limits import SECRET_NAME_BYTES, SECRETS_PER_STREAM, SPIFFE_ID_MAX_BYTES

VERSION = "0123456789abcdef"
LONG = "x" * (SPIFFE_ID_MAX_BYTES + 1)


def delta(*requests):
    state = _Delta(print)
    for request in requests:
        state.take(pb.DeltaDiscoveryRequest(**request))
    return state


class TestDelta:
    def test_initial_versions(self):
        """A version that the client says it has counts if the client subscribes to that name."""
        state = delta({"resource_names_subscribe": ["a", "b"], "initial_resource_versions": {"a": VERSION}})
        assert ({"a", "b"}, {"a": VERSION}) == (state.names, state.sent)

    def test_initial_versions_of_other_names_are_not_kept(self):
        """A client cannot fill the agent's memory with versions of names that it does not subscribe to."""
        state = delta(*({"initial_resource_versions": {f"{batch}-{n}": VERSION for n in range(10)}} for batch in "abc"))
        assert {} == state.sent

    @pytest.mark.parametrize("version", ["", "1", VERSION + "0", "x" * 100_000])
    def test_versions_that_are_not_ours_are_not_kept(self, version):
        """A version that this agent cannot have given is not kept: the secret is sent anew."""
        state = delta({"resource_names_subscribe": ["a"], "initial_resource_versions": {"a": version}})
        assert ({"a"}, {}) == (state.names, state.sent)

    def test_subscribing_again(self):
        """Who subscribes to a name again is sent it again."""
        state = delta({"resource_names_subscribe": ["a", "b"]})
        state.sent.update(a="1", b="2")
        state.take(pb.DeltaDiscoveryRequest(resource_names_subscribe=["a"]))
        assert ({"a", "b"}, {"b": "2"}) == (state.names, state.sent)

    def test_unsubscribing(self):
        """What is unsubscribed is forgotten, one that never was subscribed to is ignored."""
        state = delta({"resource_names_subscribe": ["a", "b"]})
        state.sent.update(a="1", b="2")
        state.take(pb.DeltaDiscoveryRequest(resource_names_unsubscribe=["a", "c"]))
        assert ({"b"}, {"b": "2"}) == (state.names, state.sent)

    def test_names_add_up(self):
        """The limit is on the names of all requests of a stream."""
        half = SECRETS_PER_STREAM // 2
        parts = [{"resource_names_subscribe": [f"{batch}-{n}" for n in range(half)]} for batch in "ab"]
        assert SECRETS_PER_STREAM == len(delta(*parts, parts[0]).names)
        with pytest.raises(InvalidInput):
            delta(*parts, {"resource_names_subscribe": ["c"]})

    def test_what_a_request_asks_for(self):
        """A request is answered on what it subscribes to, and not on all that the stream has: so none costs more than
        it is long.
        """
        state = delta({"resource_names_subscribe": ["a", "b"]})
        for request, asked in (
            ({}, set()),
            ({"resource_names_subscribe": ["b", "c"]}, {"b", "c"}),
            ({"resource_names_subscribe": ["d"], "resource_names_unsubscribe": ["d"]}, set()),
            ({"resource_names_unsubscribe": ["a"]}, set()),
        ):
            assert asked == state.take(pb.DeltaDiscoveryRequest(**request))
        assert {"b", "c"} == state.names

    def test_what_it_keeps(self):
        """What names take is counted as they come and go, each once."""
        state = delta({"resource_names_subscribe": ["aa", "b"]}, {"resource_names_subscribe": ["aa"]})
        assert 2 * SECRET_NAME_BYTES + 3 == state.weight
        state.take(pb.DeltaDiscoveryRequest(resource_names_unsubscribe=["aa", "c", "aa"]))
        assert SECRET_NAME_BYTES + 1 == state.weight

    @pytest.mark.parametrize("request_", [{"resource_names_subscribe": [LONG]}, {"type_url": LONG}])
    def test_long_texts(self, request_):
        """A name or type longer than a SPIFFE ID is refused."""
        with pytest.raises(InvalidInput, match="longer than 2048"):
            delta(request_)


class TestWorld:
    @pytest.mark.parametrize("request_", [{"resource_names": [LONG]}, {"type_url": LONG}])
    def test_long_texts(self, request_):
        """A name or type longer than a SPIFFE ID is refused in a request for the state of the world, too."""
        with pytest.raises(InvalidInput, match="longer than 2048"):
            _World(print).take(pb.DiscoveryRequest(**request_))

    def test_the_same_names(self):
        """Names are a set: order, repetition and empty names do not change it."""
        state = _World(print)
        assert state.take(pb.DiscoveryRequest(resource_names=["a", "b"]))
        assert not state.take(pb.DiscoveryRequest(resource_names=["b", "a", "b", ""]))

    def test_no_names_at_first(self):
        """A first request without names asks for something: for all."""
        assert _World(print).take(pb.DiscoveryRequest())
