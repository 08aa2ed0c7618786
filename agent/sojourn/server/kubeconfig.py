"""How Kubernetes' API is reached: as a kubeconfig says, or as Kubernetes tells the pods of a cluster.

The format is described at https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. What would have a program
run, or what is shown without a check of who asks for it, is refused.
"""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sojourn.errors import InvalidInput, told_as
from sojourn.extras import how_to_install
from sojourn.files import trusted
from sojourn.files.token_file import token_in
from sojourn.limits import K8S_FILE_MAX_BYTES
from sojourn.net.urls import Url, parse_url

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where Kubernetes gives pods what is theirs
_HOST, _PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
_REFUSED_OF_CLUSTER: Final = {
    "insecure-skip-tls-verify": "the API's certificate is always verified: give its certificate-authority",
    "proxy-url": "the API is asked without a proxy",
}
_REFUSED_OF_USER: Final = {
    "exec": "no program is run for a token: give a token, a tokenFile or a client certificate",
    "auth-provider": "give a token, a tokenFile or a client certificate",
    "username": "give a token, a tokenFile or a client certificate",
    "as": "this server acts for nobody else",
}


@dataclass(frozen=True, slots=True)
class KubeAccess:
    """`authority`: in PEM, who may have signed the API's certificate; empty: whom the system trusts. `server_name`:
    whose that must be; empty: the URL's host. What is shown is a token, or a certificate and its key in PEM.
    """

    url: Url
    authority: str = ""
    server_name: str = ""
    token: str = field(default="", repr=False)
    certificate: str = ""
    key: str = field(default="", repr=False)


def access_of_pod(environment: Mapping[str, str], account: Path = ACCOUNT) -> KubeAccess:
    """As Kubernetes tells a pod, by its environment and the files of its service account. Raise InvalidInput."""
    host, port = environment.get(_HOST, ""), environment.get(_PORT, "")
    if not host or not port:
        raise InvalidInput(
            f"this server is in no pod of Kubernetes: its environment has no {_HOST} and {_PORT}. Name a kubeconfig in"
            " kube_config_file"
        )
    with told_as(InvalidInput, str(account)):
        authority = trusted.read(account / "ca.crt", K8S_FILE_MAX_BYTES)
        token = token_in(account / "token")
    named = f"[{host}]" if ":" in host else host
    return KubeAccess(_url(f"https://{named}:{port}"), authority, token=token)


def access_of_file(file: Path) -> KubeAccess:
    """As the current context of a kubeconfig says. Raise InvalidInput, also if others could have written it."""
    with told_as(InvalidInput, str(file)):
        document = _parsed(trusted.read(file, K8S_FILE_MAX_BYTES))
        context = _named(document, "contexts", "context", _text(document, "current-context", needed=True))
        cluster = _named(document, "clusters", "cluster", _text(context, "cluster", needed=True))
        user = _named(document, "users", "user", _text(context, "user", needed=True))
        _refuse(cluster, _REFUSED_OF_CLUSTER)
        _refuse(user, _REFUSED_OF_USER)
        certificate, key = (_content(user, name, file.parent) for name in ("client-certificate", "client-key"))
        token = _token(user, file.parent)
        if bool(certificate) != bool(key):
            raise InvalidInput("a client-certificate and a client-key go together")
        if not token and not certificate:
            raise InvalidInput("the user of its current context has neither a token nor a client certificate")
        return KubeAccess(
            _url(_text(cluster, "server", needed=True)),
            _content(cluster, "certificate-authority", file.parent),
            _text(cluster, "tls-server-name"),
            token,
            certificate,
            key,
        )


def _parsed(text: str) -> dict[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError:
        raise InvalidInput(f"reading a kubeconfig needs PyYAML: {how_to_install('agent')}") from None
    try:
        found = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are safe loaders
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidInput(f"it is neither YAML nor JSON: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, dict):
        raise InvalidInput("it is no kubeconfig")
    return found


def _named(document: Mapping[str, Any], lists: str, kind: str, name: str) -> dict[str, Any]:
    """What a list of named things has by a name."""
    listed = document.get(lists)
    for each in listed if isinstance(listed, list) else []:
        if isinstance(each, dict) and each.get("name") == name and isinstance(each.get(kind), dict):
            found: dict[str, Any] = each[kind]
            return found
    raise InvalidInput(f"its {lists} have no {name!r}")


def _refuse(table: Mapping[str, Any], refused: Mapping[str, str]) -> None:
    for key, instead in refused.items():
        if table.get(key):
            raise InvalidInput(f"it has {key}: {instead}")


def _text(table: Mapping[str, Any], key: str, *, needed: bool = False) -> str:
    value = table.get(key)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value):
        raise InvalidInput(f"{key} is no text" if value is not None else f"it has no {key}")
    return value


def _content(table: Mapping[str, Any], key: str, folder: Path) -> str:
    """PEM that stands in the file as base64, or in a file that it names."""
    held = _text(table, f"{key}-data")
    if held:
        try:
            return b64decode(held, validate=True).decode()
        except ValueError as error:
            raise InvalidInput(f"{key}-data is not base64") from error
    named = _text(table, key)
    if not named:
        return ""
    with told_as(InvalidInput, key):
        return trusted.read(folder / named, K8S_FILE_MAX_BYTES)


def _token(user: Mapping[str, Any], folder: Path) -> str:
    named = _text(user, "tokenFile")
    if named:
        with told_as(InvalidInput, "tokenFile"):
            return token_in(folder / named)
    token = _text(user, "token")
    if not all("!" <= letter <= "~" for letter in token):
        raise InvalidInput("token is no token")
    return token


def _url(text: str) -> Url:
    try:
        url = parse_url(text)
    except ValueError as error:
        raise InvalidInput(f"server {error}") from error
    if url.scheme != "https":
        raise InvalidInput("server is not an https URL: tokens are not sent in clear")
    return url
