"""kubeconfig.py: how Kubernetes' API is reached, as a kubeconfig or a pod says."""

import json
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidInput
from sojourn.server.kubeconfig import access_of_file, access_of_pod


def document(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "there", "context": {"cluster": "c", "user": "nobody"}},
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": {"token": "t"} if user is None else user}],
    }


def written(folder: Path, told: object) -> Path:
    file = folder / "kubeconfig"
    file.write_text(told if isinstance(told, str) else json.dumps(told))
    file.chmod(0o600)
    return file


def test_yaml(tmp_path: Path) -> None:
    """YAML is read as kubectl writes it, by its current context."""
    file = written(
        tmp_path,
        """
apiVersion: v1
kind: Config
current-context: prod
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://api.example.org:6443/prefix
    tls-server-name: kubernetes
  name: prod
contexts:
- context: {cluster: prod, user: sojourn}
  name: prod
preferences: {}
users:
- name: sojourn
  user:
    token: abc
""",
    )
    access = access_of_file(file)
    assert ("api.example.org", 6443, "/prefix") == (access.url.host, access.url.port, access.url.target)
    assert ("CA", "kubernetes", "abc", "") == (access.authority, access.server_name, access.token, access.certificate)
    assert "abc" not in repr(access)


def test_files_beside_it(tmp_path: Path) -> None:
    """Files that it names are found from its own folder, and a token in a file goes before one that stands in it."""
    for name in ("ca.pem", "machine.pem", "machine.key", "token"):
        (tmp_path / name).write_text(f"of {name}\n".replace(" ", "-") if name == "token" else f"of {name}")
        (tmp_path / name).chmod(0o600)
    user = {"tokenFile": "token", "token": "t", "client-certificate": "machine.pem", "client-key": "machine.key"}
    access = access_of_file(written(tmp_path, document({"certificate-authority": "ca.pem"}, user)))
    assert ("of ca.pem", "of-token") == (access.authority, access.token)
    assert ("of machine.pem", "of machine.key") == (access.certificate, access.key)
    assert "of machine.key" not in repr(access)


def test_data_go_before_files(tmp_path: Path) -> None:
    """What stands in it goes before a file that it names."""
    held = {"certificate-authority": "nowhere", "certificate-authority-data": b64encode(b"CA").decode()}
    assert "CA" == access_of_file(written(tmp_path, document(held))).authority


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("", "no kubeconfig"),
        ("[]", "no kubeconfig"),
        ("{", "neither YAML nor JSON"),
        ("!!python/object/apply:os.system ['true']", "neither YAML nor JSON"),
        ({}, "has no current-context"),
        ({**document(), "current-context": "nowhere"}, "contexts have no 'nowhere'"),
        ({**document(), "clusters": None}, "clusters have no 'c'"),
        ({**document(), "users": [{"name": "u"}]}, "users have no 'u'"),
        (document({"server": "http://10.0.0.1:6443"}), "not an https URL"),
        (document({"server": "https://user@10.0.0.1"}), "not a plain http or https URL"),
        (document({"server": ""}), "has no server|server is no text"),
        (document({"insecure-skip-tls-verify": True}), "always verified"),
        (document({"proxy-url": "http://proxy"}), "without a proxy"),
        (document({"certificate-authority-data": "*"}), "is not base64"),
        (document({"certificate-authority": "nowhere.pem"}), "certificate-authority: cannot be read"),
        (document({"tls-server-name": 7}), "tls-server-name is no text"),
        (document(user={}), "neither a token nor a client certificate"),
        (document(user={"exec": {"command": "aws"}}), "no program is run"),
        (document(user={"auth-provider": {"name": "gcp"}}), "auth-provider"),
        (document(user={"username": "a", "password": "b"}), "username"),
        (document(user={"token": "t", "as": "admin"}), "acts for nobody else"),
        (document(user={"token": "a\nb"}), "token is no token"),
        (document(user={"tokenFile": "nowhere"}), "tokenFile: cannot be read"),
        (document(user={"client-certificate-data": "QQ=="}), "go together"),
    ],
)
def test_what_is_refused(tmp_path: Path, told: object, said: str) -> None:
    """What is no kubeconfig, or would have the API asked unsafely, is refused with its file and why."""
    file = written(tmp_path, told)
    with pytest.raises(InvalidInput, match=said) as caught:
        access_of_file(file)
    assert str(file) in caught.value.public


def test_one_that_others_can_write(tmp_path: Path) -> None:
    """A kubeconfig that others could have written is not believed."""
    file = written(tmp_path, document())
    file.chmod(0o666)
    with pytest.raises(InvalidInput, match="can be written by others"):
        access_of_file(file)


VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "cluster", "user", "context", "server", "token"]), inner, max_size=4)
    ),
    max_leaves=10,
)
KEYS = st.sampled_from(["current-context", "contexts", "clusters", "users"])


@given(told=st.dictionaries(KEYS, VALUES))
def test_whatever_it_has(tmp_path_factory: pytest.TempPathFactory, told: dict[str, object]) -> None:
    """Whatever stands in it, it is read or refused by an error of ours."""
    file = written(tmp_path_factory.mktemp("kube"), {**document(), **told})
    with suppress(InvalidInput):
        assert access_of_file(file).url


class TestOfAPod:
    def account(self, folder: Path) -> Path:
        for name in ("ca.crt", "token"):
            (folder / name).write_text(f"of-{name}")
            (folder / name).chmod(0o644)
        return folder

    @pytest.mark.parametrize(("host", "found"), [("10.96.0.1", "10.96.0.1"), ("fd00::1", "fd00::1")])
    def test_it_is_told(self, tmp_path: Path, host: str, found: str) -> None:
        """A server in a pod asks the API of its cluster, as the service account of its pod."""
        environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
        access = access_of_pod(environment, self.account(tmp_path))
        assert (found, 443, "of-ca.crt", "of-token") == (
            access.url.host, access.url.port, access.authority, access.token,
        )  # fmt: skip

    def test_outside_of_one(self, tmp_path: Path) -> None:
        """A server in no pod is told to be given a kubeconfig."""
        with pytest.raises(InvalidInput, match=r"in no pod of Kubernetes.*kube_config_file"):
            access_of_pod({}, self.account(tmp_path))

    def test_without_an_account(self, tmp_path: Path) -> None:
        """A pod into which no token is mounted cannot ask."""
        environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        with pytest.raises(InvalidInput, match="cannot be read"):
            access_of_pod(environment, tmp_path)
