"""What Kubernetes says of a token, of the pod that it is of and of that pod's node, read strictly.

The objects are described at https://kubernetes.io/docs/reference/kubernetes-api/. A service account's token is bound
to a pod, whose name and uid are in the review (`status.user.extra`), and from Kubernetes 1.32 on those of its node.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sojourn.errors import Refused
from sojourn.limits import K8S_NAME_MAX

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")  # RFC 1123: what stands in a path
_UID: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_EXTRA: Final = "authentication.kubernetes.io/"
_NOT_AUTHENTICATED: Final = "token not authenticated according to TokenReview API"


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Whose token it is. `node_name` and `node_uid` are empty where Kubernetes does not tell them with a token."""

    namespace: str
    account: str
    pod_name: str
    pod_uid: str
    node_name: str
    node_uid: str


@dataclass(frozen=True, slots=True)
class Pod:
    node_name: str
    host_ip: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KubeNode:
    uid: str
    labels: Mapping[str, str]


def read_review(document: Mapping[str, Any], audiences: Sequence[str]) -> Reviewed:
    """What a review says of a token for one of these audiences. Raise Refused unless it is a pod's, and is good."""
    status = _table(document, "status")
    error = status.get("error")
    if error or status.get("authenticated") is not True:
        raise Refused(_NOT_AUTHENTICATED, detail=str(error)[:500])
    taken = status.get("audiences")
    if audiences and not (isinstance(taken, list) and any(each in taken for each in audiences)):
        raise Refused("the TokenReview API did not validate the audience of the token")
    user = _table(status, "user")
    parts = _text(user, "username").split(":")
    if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"]:
        raise Refused("the token is not one of a service account")
    extra = _table(user, "extra")
    return Reviewed(
        namespace=_name(parts[2], "namespace"),
        account=_name(parts[3], "service account"),
        pod_name=_name(_one(extra, "pod-name"), "pod"),
        pod_uid=_uid(_one(extra, "pod-uid"), "pod"),
        node_name=_one(extra, "node-name", needed=False),
        node_uid=_one(extra, "node-uid", needed=False),
    )


def read_pod(document: Mapping[str, Any], reviewed: Reviewed) -> Pod:
    """The pod that a token is of. Raise Refused for another one of its name, or one that has no node."""
    metadata = _table(document, "metadata")
    if (metadata.get("namespace"), metadata.get("name"), metadata.get("uid")) != (
        reviewed.namespace,
        reviewed.pod_name,
        reviewed.pod_uid,
    ):
        raise Refused("the token is of another pod than the one that has its name now")
    node = _name(_text(_table(document, "spec"), "nodeName"), "node")
    if reviewed.node_name and reviewed.node_name != node:
        raise Refused("the token is of a pod of another node")
    status = document.get("status")
    ip = status.get("hostIP") if isinstance(status, dict) else None
    return Pod(node, ip if isinstance(ip, str) else "", _labels(metadata))


def read_node(document: Mapping[str, Any], name: str, reviewed: Reviewed) -> KubeNode:
    """The node of this name. Raise Refused for another one than the token is bound to."""
    metadata = _table(document, "metadata")
    uid = _uid(_text(metadata, "uid"), "node")
    if metadata.get("name") != name or (reviewed.node_uid and reviewed.node_uid != uid):
        raise Refused("the token is of a pod of another node")
    return KubeNode(uid, _labels(metadata))


def _labels(metadata: Mapping[str, Any]) -> dict[str, str]:
    found = metadata.get("labels")
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in pairs if isinstance(value, str)}


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    if not isinstance(found, dict):
        raise Refused(f"Kubernetes' API answers without {key}")
    return found


def _text(table: Mapping[str, Any], key: str) -> str:
    found = table.get(key)
    if not isinstance(found, str) or not found:
        raise Refused(f"Kubernetes' API answers without {key}")
    return found


def _one(extra: Mapping[str, Any], key: str, *, needed: bool = True) -> str:
    """The only value of a key of what a review has beside; empty: there is none."""
    found = extra.get(f"{_EXTRA}{key}")
    if found is None and not needed:
        return ""
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], str) or not found[0]:
        raise Refused(f"the token is not bound to a pod: the TokenReview API tells no {key}")
    return found[0]


def _name(value: str, what: str) -> str:
    if len(value) > K8S_NAME_MAX or _NAME.fullmatch(value) is None:
        raise Refused(f"Kubernetes' API tells a {what} by what is no name")
    return value


def _uid(value: str, what: str) -> str:
    if _UID.fullmatch(value) is None:
        raise Refused(f"Kubernetes' API tells a {what} by what is no uid")
    return value
