"""What attests the nodes of a server, made of its configuration."""

import os
from collections.abc import Callable
from functools import partial

from sojourn.config.server import K8sCluster, K8sPsatServerConfig
from sojourn.errors import InvalidConfig, InvalidInput, Unavailable
from sojourn.server.k8s_psat import K8sPsat
from sojourn.server.kube_api import KubeApi, tls_of
from sojourn.server.kubeconfig import KubeAccess, access_of_file, access_of_pod
from sojourn.spiffe.ids import TrustDomain


def pods_of(config: K8sPsatServerConfig, trust_domain: TrustDomain) -> K8sPsat:
    """Raise InvalidConfig for a cluster whose API cannot be asked as things are now; none is asked."""
    clusters = {}
    for name, cluster in config.clusters.items():
        access = _access(cluster)
        try:
            tls_of(access())
        except (InvalidInput, Unavailable) as error:
            why = error.public if isinstance(error, InvalidInput) else error.detail
            raise InvalidConfig([f"node_attestors.k8s_psat.clusters.{name}: {why}"]) from error
        clusters[name] = (cluster, KubeApi(access))
    return K8sPsat(clusters, trust_domain)


def _access(cluster: K8sCluster) -> Callable[[], KubeAccess]:
    if cluster.kube_config_file is None:
        return partial(access_of_pod, os.environ)
    return partial(access_of_file, cluster.kube_config_file)
