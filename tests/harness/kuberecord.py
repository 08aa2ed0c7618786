"""Records what a real kubelet answers: `PYTHONPATH=tests SOJOURN_TEST_KUBERNETES=$(bash .ci/kubernetes) python -m harness.kuberecord`.

What it writes is what `kubeletstandin` answers in every run. Nothing in it is of any machine but the test's own node.
"""

import json
from pathlib import Path
from typing import Any

from harness.kubernetes import Cluster, find_kubernetes
from harness.kubernetesfiles import NODE, USELESS_TOKEN, container
from harness.looking import until

FOLDER = Path(__file__).resolve().parent.parent / "recorded" / "kubelet"
_PODS = {"web", "waiting", "done", f"static-{NODE}"}


def record() -> None:
    with Cluster(find_kubernetes()) as cluster:
        first, side = container("first", "true"), container("side", restartPolicy="Always")
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "1f0c-test"}
        labels = {"app.kubernetes.io/name": "web", "team": "blue", "empty": ""}
        both = [container("main"), container("second")]
        cluster.run_pod("web", labels=labels, owners=[owner], initContainers=[first, side], containers=both)
        debug = {"spec": {"ephemeralContainers": [container("debug")]}}
        cluster.send("PATCH", "/api/v1/namespaces/default/pods/web/ephemeralcontainers", debug)
        cluster.start_pod("waiting", containers=[container("main", image="localhost/none:1")])
        cluster.start_pod("done", containers=[container("main", "true")])
        spec = {"hostNetwork": True, "terminationGracePeriodSeconds": 1, "containers": [container("main")]}
        metadata = {"name": "static", "namespace": "kube-system"}
        static = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        (cluster.static_pods / "static.json").write_text(json.dumps(static))
        pods = until(lambda: _complete(cluster.pods_of_kubelet()), "all pods are as they stay", 60)
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "pods.json").write_text(json.dumps(pods, indent=1) + "\n")
        for name, token in (("unauthorized", "none"), ("forbidden", USELESS_TOKEN)):
            status, text = cluster.ask_kubelet(token)
            (FOLDER / f"{name}.json").write_text(json.dumps({"status": status, "body": text}) + "\n")


def _complete(pods: dict[str, Any]) -> dict[str, Any] | None:
    """The list without what the API server alone needs, once every pod has come as far as it comes."""
    by_name = {each["metadata"]["name"]: each for each in pods["items"]}
    if by_name.keys() != _PODS:
        return None
    phases = {name: each["status"].get("phase") for name, each in by_name.items()}
    waiting = by_name["waiting"]["status"].get("containerStatuses", [{}])[0]
    debug = by_name["web"]["status"].get("ephemeralContainerStatuses", [{}])[0]
    if phases["done"] != "Succeeded" or phases[f"static-{NODE}"] != "Running":
        return None
    if "ErrImageNeverPull" not in json.dumps(waiting) or "containerID" not in debug:
        return None
    for each in pods["items"]:
        each["metadata"].pop("managedFields", None)
    return pods


if __name__ == "__main__":
    record()
