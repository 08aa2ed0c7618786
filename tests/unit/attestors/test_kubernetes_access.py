"""kubernetes.py: what a kubelet is shown, by what it is known, and the settings that say so."""

import asyncio
import datetime as dt
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.kubeletstandin import Kubelet
from harness.kubernetesfiles import USELESS_TOKEN
from harness.podasking import ask, kubelet_fixture, make_fixture, pool_fixture, reason  # noqa: F401 - fixtures
from harness.podlike import CGROUP_ROOT, PodContainer
from harness.tlsplace import TlsPlace
from sojourn.errors import AttestationFailed, InvalidConfig
from sojourn_attestors import kubernetes
from sojourn_attestors.kubernetes import KubernetesAttestor
from sojourn_attestors.pods.kubelet import FAILED_SECONDS

pytestmark = pytest.mark.root


@pytest.mark.full
class TestAccess:
    @pytest.fixture
    def process(self, cgroups, kubelet):
        container = PodContainer(cgroups, kubelet)
        container.list()
        with container.process() as process:
            yield process

    async def test_a_token_that_is_renewed(self, kubelet, make, process, tmp_path):
        """The token's file is read for each request: the next one shows what is in it now."""
        attestor = make(max_age="0s")
        await ask(attestor, process.pid)
        (tmp_path / "new").write_text("another\n")
        (tmp_path / "new").rename(tmp_path / "token")
        kubelet.token = "another"
        await ask(attestor, process.pid)
        assert "Bearer another" == kubelet.shown[-1]

    @pytest.mark.parametrize(
        ("token", "said"),
        [("none", "(401): it does not know"), (USELESS_TOKEN, "(403): it takes the right to `get` `nodes/pods`")],
        ids=["unknown", "without rights"],
    )
    async def test_tokens_that_are_refused(self, kubelet, make, process, tmp_path, token, said):
        """A refusal is told with what it takes, and the token is in no text."""
        attestor = make()
        (tmp_path / "token").write_text(token)
        with pytest.raises(AttestationFailed) as raised:
            await ask(attestor, process.pid)
        assert said in raised.value.public
        assert token not in raised.value.public + raised.value.detail or token == "none"

    @pytest.mark.parametrize("what", ["missing", "empty", "folder", "two lines", "huge", "FIFO"])
    async def test_tokens_that_are_none(self, kubelet, make, process, tmp_path, what):
        """A file that holds no token is told, and nothing waits for it; the kubelet is not asked."""
        attestor = make()
        path = tmp_path / "token"
        path.unlink()
        if what == "folder":
            path.mkdir()
        elif what == "FIFO":
            os.mkfifo(path)
        elif what != "missing":
            path.write_bytes({"empty": b"\n", "two lines": b"a\r\nX-Y: z", "huge": b"a" * 70_000}[what])
        assert str(path) in await reason(attestor, process.pid)
        assert 0 == kubelet.asked

    async def test_a_client_certificate(self, kubelet, make, process):
        """A certificate is shown in the place of a token."""
        clients = kubelet.clients
        attestor = make(certificate_path=str(clients.chain), private_key_path=str(clients.key))
        kubelet.token = "not that in the file"
        assert "ns:default" in (await ask(attestor, process.pid)).values

    async def test_a_certificate_alone(self, kubelet, pool, process):
        """With a certificate the account's token is not shown unless that is said."""
        clients = kubelet.clients
        settings = {
            "kubelet_secure_port": kubelet.port,
            "kubelet_ca_path": str(kubelet.tls.ca),
            "kubelet_name": "node1",
        }
        attestor = KubernetesAttestor(
            {
                **settings,
                "cgroup_root": CGROUP_ROOT,
                "certificate_path": str(clients.chain),
                "private_key_path": str(clients.key),
            },
            pool,
        )
        await ask(attestor, process.pid)
        await attestor.close()
        assert [""] == kubelet.shown

    async def test_a_certificate_that_is_renewed(self, kubelet, make, process, tmp_path):
        """Another authority or certificate in the files is used for the next request, by a new connection."""
        foreign = TlsPlace(tmp_path / "foreign", name="sojourn", common_name="sojourn")
        certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
        certificate.write_bytes(foreign.chain.read_bytes())
        key.write_bytes(foreign.key.read_bytes())
        attestor = make(certificate_path=str(certificate), private_key_path=str(key), max_age="0s")
        assert "cannot be asked" in await reason(attestor, process.pid)
        certificate.write_bytes(kubelet.clients.chain.read_bytes())
        key.write_bytes(kubelet.clients.key.read_bytes())
        await asyncio.sleep(FAILED_SECONDS)
        assert "ns:default" in (await ask(attestor, process.pid)).values

    @pytest.mark.parametrize("wrong", ["authority", "name", "over"])
    async def test_a_server_that_is_not_the_kubelet(self, kubelet, pool, process, tmp_path, wrong):
        """Who shows a certificate of another authority, another name or another time is not asked, and sees no token."""
        settings = kubelet.settings(tmp_path, cgroup_root=CGROUP_ROOT)
        if wrong == "authority":
            settings["kubelet_ca_path"] = str(kubelet.clients.ca)
        elif wrong == "name":
            settings["kubelet_name"] = "node2"
        else:
            with Kubelet(tmp_path / "late", ends_in=-dt.timedelta(hours=1)) as late:
                attestor = KubernetesAttestor(late.settings(tmp_path, cgroup_root=CGROUP_ROOT), pool)
                told = await reason(attestor, process.pid)
                await attestor.close()
                assert "cannot be asked: its certificate is not accepted: certificate has expired" in told
                assert [] == late.shown
            return
        attestor = KubernetesAttestor(settings, pool)
        told = await reason(attestor, process.pid)
        await attestor.close()
        assert "cannot be asked: its certificate is not accepted: " in told
        assert (wrong == "name") == ("not valid for 'node2'" in told)
        assert [] == kubelet.shown

    async def test_the_kubelets_own_certificate(self, kubelet, make, process):
        """The certificate itself may be named instead of an authority, as a kubelet that signs its own has none."""
        assert "ns:default" in (await ask(make(kubelet_ca_path=str(kubelet.tls.chain)), process.pid)).values

    async def test_the_read_only_port(self, pool, process, kubelet, tmp_path):
        """A kubelet's read-only port is asked by plain HTTP, and is shown no token."""
        with Kubelet(tmp_path, plain=True) as plain:
            plain.pods = kubelet.pods
            attestor = KubernetesAttestor({"kubelet_read_only_port": plain.port, "cgroup_root": CGROUP_ROOT}, pool)
            assert "ns:default" in (await ask(attestor, process.pid)).values
            await attestor.close()
            assert [""] == plain.shown

    async def test_a_kubelet_that_comes_back(self, pool, process, kubelet, tmp_path):
        """When it was started again it is asked again, without the agent being touched."""
        pods, port = kubelet.pods, kubelet.port
        attestor = KubernetesAttestor(
            {"kubelet_read_only_port": port, "max_age": "0s", "cgroup_root": CGROUP_ROOT}, pool
        )
        kubelet.close()
        assert f"cannot be asked: nobody listens at 127.0.0.1:{port}" in await reason(attestor, process.pid)
        with Kubelet(tmp_path, plain=True, port=port) as back:
            back.pods = pods
            await asyncio.sleep(FAILED_SECONDS)
            assert "ns:default" in (await ask(attestor, process.pid)).values
            await attestor.close()


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "fault"),
        [
            ({"kubelet_read_only_port": 0}, "kubelet_read_only_port: "),
            ({"kubelet_secure_port": "10250"}, "kubelet_secure_port: "),
            ({"kubelet_address": "a/b"}, "kubelet_address: is neither an IP address nor a host's name"),
            ({"kubelet_address": "user@host"}, "kubelet_address: is neither"),
            ({"token_path": "token"}, "token_path: is not an absolute path"),
            ({"max_age": "2m"}, "max_age: is 2m: the most is 1m"),
            ({"skip_kubelet_verification": True}, "skip_kubelet_verification: unknown key"),
            ({"certificate_path": "/a"}, "certificate_path and private_key_path go together"),
            ({"node_name": "a", "node_name_env": "B"}, "one of them is enough"),
            ({"node_name_env": "NO_SUCH_VARIABLE"}, "node_name_env: the environment has no NO_SUCH_VARIABLE"),
            ({"kubelet_address": "a", "kubelet_address_env": "B"}, "one of them is enough"),
            (
                {"kubelet_address_env": "NO_SUCH_VARIABLE"},
                "kubelet_address_env: the environment has no NO_SUCH_VARIABLE",
            ),
            ({"kubelet_address_env": "PATH"}, "kubelet_address_env: PATH is neither an IP address nor a host's name"),
            ({"kubelet_read_only_port": 10255, "token_path": "/t"}, "is plain HTTP, so token_path cannot be used"),
        ],
    )
    def test_faults(self, pool, settings, fault):
        """What is wrong is told with its key."""
        with pytest.raises(InvalidConfig) as raised:
            KubernetesAttestor(settings, pool)
        assert any(fault in each for each in raised.value.faults), raised.value.faults

    def test_defaults(self):
        """In a pod it takes nothing: what Kubernetes gives to pods is used."""
        access = kubernetes.KubernetesSettings().access("")
        account = "/var/run/secrets/kubernetes.io/serviceaccount"
        assert ("127.0.0.1", 10250, "127.0.0.1") == (access.address, access.port, access.name)
        assert (f"{account}/ca.crt", f"{account}/token", "") == (access.ca, access.token, access.certificate)

    def test_the_node_of_the_environment(self, monkeypatch):
        """A DaemonSet tells the node's name in a variable; the kubelet's certificate must be of it."""
        monkeypatch.setenv("MY_NODE_NAME", "node7")
        with ThreadPoolExecutor(1) as pool:
            attestor = KubernetesAttestor({"node_name_env": "MY_NODE_NAME"}, pool)
        assert "node7" == attestor._node
        assert "node7" == kubernetes.KubernetesSettings().access("node7").name

    def test_the_address_of_the_environment(self, monkeypatch):
        """A pod without the host's network is told the node's address in a variable (`status.hostIP`)."""
        monkeypatch.setenv("HOST_IP", "192.0.2.7")
        access = kubernetes.KubernetesSettings(kubelet_address_env="HOST_IP").access("node7")
        assert ("192.0.2.7", "node7") == (access.address, access.name)
