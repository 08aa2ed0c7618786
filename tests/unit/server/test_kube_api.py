"""kube_api.py: Kubernetes' API is asked over TLS that is verified, and what it answers is bounded."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.kubeapistandin import ADMIN, NAMESPACE, NODE, NODE_UID, POD
from harness.kubeapistandin import KubeApi as StandIn
from sojourn.errors import InvalidInput, NotFound, SojournError, Unavailable
from sojourn.limits import K8S_ANSWER_MAX_BYTES
from sojourn.server.kube_api import KubeApi
from sojourn.server.kubeconfig import KubeAccess, access_of_file


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(tmp_path) as running:
        running.tokens = {"eyJh.one.sig": f"{NAMESPACE}:agent"}
        yield running


@pytest.fixture
def access(kubernetes: StandIn) -> KubeAccess:
    return access_of_file(kubernetes.kubeconfig())


def asked(access: KubeAccess, *calls: tuple[str, ...]) -> list[Any]:
    """What each call gives: a method's name and its arguments."""

    async def all_of() -> list[Any]:
        api = KubeApi(lambda: access)
        try:
            return [await getattr(api, name)(*rest) for name, *rest in calls]
        finally:
            await api.close()

    return asyncio.run(all_of())


def refusal(access: KubeAccess) -> SojournError:
    with pytest.raises(SojournError) as caught:
        asked(access, ("node", NODE))
    return caught.value


def test_what_it_is_asked(kubernetes: StandIn, access: KubeAccess) -> None:
    """A review of a token for an audience, a pod and a node are what the API has."""
    review, pod, node = asked(
        access, ("review", "eyJh.one.sig", ("spire-server",)), ("pod", NAMESPACE, POD), ("node", NODE)
    )
    assert f"system:serviceaccount:{NAMESPACE}:agent" == review["status"]["user"]["username"]
    assert NODE == pod["spec"]["nodeName"]
    assert NODE_UID == node["metadata"]["uid"]
    assert ["eyJh.one.sig"] == kubernetes.reviewed


def test_what_there_is_not(access: KubeAccess) -> None:
    """An object that is gone is told apart from an API that gives no answer."""
    with pytest.raises(NotFound):
        asked(access, ("pod", NAMESPACE, "other"))


def test_by_whose_authority(kubernetes: StandIn, access: KubeAccess, tmp_path: Path) -> None:
    """An API whose certificate is of another authority, or of another name, is not asked: it hears no token."""
    with StandIn(tmp_path / "other") as other:
        foreign = refusal(replace(access, authority=other.tls.ca.read_text()))
    assert "gives no answer" in foreign.public
    assert "certificate" in foreign.detail
    assert "certificate" in refusal(replace(access, server_name="kubernetes.example")).detail
    assert [] == kubernetes.reviewed


@pytest.mark.parametrize(
    ("status", "body", "said", "detail"),
    [
        (401, b"{}", "refuses this server", "401"),
        (403, b"{}", "refuses this server", "tokenreviews"),
        (500, b"{}", "gives no answer", "HTTP 500"),
        (429, b"{}", "gives no answer", "HTTP 429"),
        (204, b"", "gives no answer", "HTTP 204"),
        (302, b"", "gives no answer", "redirect"),
        (200, b"<html>", "answers no JSON", ""),
        (200, b'{"a": 1, "a": 2}', "answers no JSON", ""),
        (200, b"\xff", "answers no JSON", ""),
        (200, b"[" * 10_000, "answers no JSON", ""),
        (200, b"[]", "answers no object", ""),
        (200, b'"' + b"x" * K8S_ANSWER_MAX_BYTES + b'"', "gives no answer", "too_large"),
    ],
)
def test_odd_answers(kubernetes: StandIn, access: KubeAccess, status: int, body: bytes, said: str, detail: str) -> None:
    """Whatever it answers that is no object is told as that, with the rights that it takes where they lack."""
    kubernetes.raw = (status, body)
    error = refusal(access)
    assert isinstance(error, Unavailable)
    assert said in error.public
    assert detail in error.detail


def test_a_token_that_is_renewed(kubernetes: StandIn, access: KubeAccess) -> None:
    """What is shown is read for each call anew."""
    shown = iter([replace(access, token="old"), access])

    async def twice() -> dict[str, Any]:
        api = KubeApi(lambda: next(shown))
        with pytest.raises(Unavailable, match="refuses this server"):
            await api.node(NODE)
        found = await api.node(NODE)
        await api.close()
        return found

    assert ADMIN == access.token
    assert NODE_UID == asyncio.run(twice())["metadata"]["uid"]


def test_a_file_that_is_gone() -> None:
    """Where it cannot be told how the API is reached, nobody is asked, and the operator hears why."""

    def gone() -> KubeAccess:
        raise InvalidInput("/etc/kubeconfig: cannot be read")

    async def tried() -> None:
        with pytest.raises(Unavailable, match="cannot be asked") as caught:
            await KubeApi(gone).node(NODE)
        assert "cannot be read" in caught.value.detail

    asyncio.run(tried())


@pytest.mark.parametrize("wrong", ["authority", "certificate"])
def test_what_is_no_certificate(access: KubeAccess, wrong: str) -> None:
    """An authority or a client certificate that is none in PEM is told to the operator."""
    error = refusal(replace(access, **{wrong: "no PEM"}))  # type: ignore[arg-type]
    assert "none in PEM" in error.detail


def test_a_client_certificate(kubernetes: StandIn, access: KubeAccess) -> None:
    """A client certificate with its key is shown in the place of a token, without a file of it."""
    kubernetes.demand_client_certificate()
    shown = replace(access, token="", certificate=kubernetes.tls.chain.read_text(), key=kubernetes.tls.key.read_text())
    assert NODE_UID == asked(shown, ("node", NODE))[0]["metadata"]["uid"]
    assert "gives no answer" in refusal(access).public
    assert json.dumps(kubernetes.reviewed) == "[]"
