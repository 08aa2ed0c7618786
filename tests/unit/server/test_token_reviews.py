"""token_reviews.py: what Kubernetes says of a token is read strictly, and anything odd makes no node."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from fakes.kubernetes import AUDIENCES, EXTRA, NODE, POD, REVIEW, changed
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import Refused
from sojourn.server.token_reviews import read_node, read_pod, read_review

_REVIEWED = read_review(REVIEW, AUDIENCES)


def test_a_good_token() -> None:
    """A token of a pod is told with its service account, its pod and its node."""
    told = _REVIEWED
    assert ("agents", "sojourn", "sojourn-x2k9p", "pod-1") == (
        told.namespace,
        told.account,
        told.pod_name,
        told.pod_uid,
    )
    assert ("node1", "node-1") == (told.node_name, told.node_uid)
    pod = read_pod(POD, told)
    assert ("node1", "10.0.0.7", {"app": "sojourn"}) == (pod.node_name, pod.host_ip, pod.labels)
    node = read_node(NODE, "node1", told)
    assert ("node-1", {"zone": "a"}) == (node.uid, node.labels)


def test_of_an_older_kubernetes() -> None:
    """Before 1.32 a review does not tell the node: it is then what the pod says."""
    older = changed(
        changed(REVIEW, "status.user.extra", REVIEW["status"]["user"]["extra"].copy()), "kind", "TokenReview"
    )
    for key in ("node-name", "node-uid"):
        del older["status"]["user"]["extra"][f"{EXTRA}{key}"]
    told = read_review(older, AUDIENCES)
    assert ("", "") == (told.node_name, told.node_uid)
    assert "node1" == read_pod(POD, told).node_name
    assert "node-1" == read_node(NODE, "node1", told).uid


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("status.authenticated", False, "token not authenticated"),
        ("status.authenticated", None, "token not authenticated"),
        ("status.authenticated", "true", "token not authenticated"),
        ("status.authenticated", 1, "token not authenticated"),
        ("status.error", "[invalid bearer token]", "token not authenticated"),
        ("status.error", {"odd": 1}, "token not authenticated"),
        ("status.audiences", ["vault"], "did not validate the audience"),
        ("status.audiences", [], "did not validate the audience"),
        ("status.audiences", None, "did not validate the audience"),
        ("status.audiences", "spire-server", "did not validate the audience"),
        ("status.user.username", "admin", "not one of a service account"),
        ("status.user.username", "system:node:node1", "not one of a service account"),
        ("status.user.username", "a:b:agents:sojourn", "not one of a service account"),
        ("status.user.username", "system:serviceaccount:agents:sojourn:x", "not one of a service account"),
        ("status.user.username", "system:serviceaccount:../x:sojourn", "no name"),
        ("status.user.username", "system:serviceaccount::sojourn", "no name"),
        ("status.user.username", "system:serviceaccount:agents:", "no name"),
        ("status.user.username", None, "without username"),
        ("status.user", None, "without user"),
        ("status.user", [], "without user"),
        ("status", None, "without status"),
        ("status.user.extra", None, "without extra"),
        ("status.user.extra.@pod-name", None, "not bound to a pod"),
        ("status.user.extra.@pod-name", [], "not bound to a pod"),
        ("status.user.extra.@pod-name", ["a", "b"], "not bound to a pod"),
        ("status.user.extra.@pod-name", "a", "not bound to a pod"),
        ("status.user.extra.@pod-name", ["a/../b"], "no name"),
        ("status.user.extra.@pod-name", ["a?x=1"], "no name"),
        ("status.user.extra.@pod-name", ["a" * 254], "no name"),
        ("status.user.extra.@pod-uid", [""], "not bound to a pod"),
        ("status.user.extra.@pod-uid", ["a/b"], "no uid"),
        ("status.user.extra.@pod-uid", None, "not bound to a pod"),
        ("status.user.extra.@node-name", [1], "not bound to a pod"),
    ],
)
def test_what_is_no_good_token(path: str, value: object, said: str) -> None:
    """A review that says no, or that is not as Kubernetes makes it, is a refusal that names no token."""
    with pytest.raises(Refused, match=said):
        read_review(changed(REVIEW, path, value), AUDIENCES)


def test_the_audience_of_the_api() -> None:
    """Where no audience is demanded, none has to be told."""
    assert _REVIEWED == read_review(changed(REVIEW, "status.audiences", None), ())


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("metadata.uid", "pod-2", "another pod"),
        ("metadata.name", "other", "another pod"),
        ("metadata.namespace", "other", "another pod"),
        ("metadata", None, "without metadata"),
        ("spec.nodeName", None, "without nodeName"),
        ("spec.nodeName", "", "without nodeName"),
        ("spec.nodeName", "../x", "no name"),
        ("spec.nodeName", "node2", "another node"),
        ("spec", None, "without spec"),
    ],
)
def test_another_pod(path: str, value: object, said: str) -> None:
    """A pod that took the name of the token's later, or that is on another node than the token says, is none."""
    with pytest.raises(Refused, match=said):
        read_pod(changed(POD, path, value), _REVIEWED)


def test_a_pod_without_an_address() -> None:
    """A pod whose node's address is not known yet has an empty one, as at SPIRE."""
    assert "" == read_pod(changed(POD, "status", None), _REVIEWED).host_ip


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("metadata.uid", "node-2", "another node"),
        ("metadata.name", "node2", "another node"),
        ("metadata.uid", None, "without uid"),
        ("metadata.uid", "a/b", "no uid"),
        ("metadata.uid", "", "without uid"),
    ],
)
def test_another_node(path: str, value: object, said: str) -> None:
    """A machine that took the name of the token's later is another node."""
    with pytest.raises(Refused, match=said):
        read_node(changed(NODE, path, value), "node1", _REVIEWED)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["status", "user", "extra", "metadata", "spec", "authenticated", "username", f"{EXTRA}pod-uid", "uid", "labels"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["status", "metadata", "spec"]), JSON))
def test_whatever_is_answered(document: dict[str, Any]) -> None:
    """Whatever Kubernetes answers, it is read or refused, and nothing else comes of it."""
    readers: list[Callable[[], object]] = [
        lambda: read_review(document, AUDIENCES),
        lambda: read_pod(document, _REVIEWED),
        lambda: read_node(document, "node1", _REVIEWED),
    ]
    for each in readers:
        with suppress(Refused):
            assert each()
