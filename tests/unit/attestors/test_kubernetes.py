"""kubernetes.py: processes in real cgroups and namespaces, and a stand-in for the kubelet that answers as one did."""

import asyncio
import datetime as dt
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.inmates import inmate
from harness.kubeletstandin import Kubelet, pod_of
from harness.kubernetesfiles import USELESS_TOKEN
from harness.looking import until
from harness.podlike import ALONE, CGROUP_ROOT, SHAPES, PodContainer
from harness.subjects import subject_of
from harness.tlsplace import TlsPlace
from sojourn.errors import AttestationFailed, InvalidConfig
from sojourn_attestors import kubernetes
from sojourn_attestors.kubernetes import KubernetesAttestor
from sojourn_attestors.pods.kubelet import FAILED_SECONDS

pytestmark = pytest.mark.root


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def kubelet(tmp_path):
    with Kubelet(tmp_path) as kubelet:
        yield kubelet


@pytest.fixture
async def make(kubelet, pool, tmp_path):
    """Makes an attestor that asks the stand-in; closes all in the end."""
    made = []

    def one(**settings):
        made.append(KubernetesAttestor(kubelet.settings(tmp_path, cgroup_root=CGROUP_ROOT, **settings), pool))
        return made[-1]

    yield one
    for each in made:
        await each.close()


async def ask(attestor, pid):
    with subject_of(pid) as subject:
        return await attestor.attest(subject)


async def reason(attestor, pid):
    """Why it cannot tell."""
    with pytest.raises(AttestationFailed) as raised:
        await ask(attestor, pid)
    return raised.value.public.removeprefix("workload attestation failed: ")


class TestAnswers:
    @pytest.mark.parametrize("shape", SHAPES)
    async def test_in_each_shape_of_cgroup(self, cgroups, kubelet, make, shape):
        """The pod is told for each driver of cgroups, runtime and quality of service."""
        container = PodContainer(cgroups, kubelet, shape=shape)
        container.list()
        with container.process() as process:
            answer = await ask(make(), process.pid)
        assert {"ns:default", "sa:web", f"pod-uid:{container.uid}", "container-name:main"} <= answer.values

    @pytest.mark.parametrize("name", ["main", "second", "first", "side", "debug"])
    async def test_of_each_kind_of_container(self, cgroups, kubelet, make, name):
        """Regular, init, sidecar and ephemeral containers are told, each by its name."""
        container = PodContainer(cgroups, kubelet, name)
        container.list()
        with container.process() as process:
            answer = await ask(make(), process.pid)
        assert {f"container-name:{name}"} == {each for each in answer.values if each.startswith("container-name:")}
        assert "pod-name:web" in answer.values

    async def test_a_check(self, kubelet, make):
        """A check is fine while the kubelet lists its pods, and says why where it does not."""
        await make().check()
        kubelet.token = "another"
        with pytest.raises(AttestationFailed, match="401"):
            await make().check()

    async def test_in_a_cgroup_of_a_users_own(self, cgroups, kubelet, make):
        """A container of a user's own engine is in no pod, whatever its name: nothing is so, with the reason."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        for folder in container.folders:
            os.chown(folder.parent, 4711, 4711)
        with container.process() as process:
            answer = await ask(make(), process.pid)
        assert (frozenset(), 0) == (answer.values, kubelet.asked)
        assert "of user 4711" in answer.withheld["pod-name"]

    async def test_outside_of_pods(self, cgroups, kubelet, make):
        """Of a process outside of pods nothing is so, and the kubelet is not asked, nor if it is in another container."""
        attestor = make()
        with inmate() as plain, inmate(cgroups.make(f"/sojourn-test-{os.getpid()}/docker-{'a' * 64}.scope")) as docker:
            for process in (plain, docker):
                assert frozenset() == (await ask(attestor, process.pid)).values
        assert 0 == kubelet.asked

    async def test_further_processes(self, cgroups, kubelet, make):
        """Every process of the container is told, also one that was started in it later."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        attestor = make()
        with container.process() as first:
            join = ["-t", str(first.pid), "--mount", "--ipc", "--uts"]
            with inmate(container.folders, join=join) as second:
                assert (await ask(attestor, first.pid)).values == (await ask(attestor, second.pid)).values

    async def test_a_container_in_a_pods_container(self, cgroups, kubelet, make):
        """What runs in a container that was started within a pod's is not the pod's: it cannot be told."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        with container.process(), inmate(cgroups.make(f"{container.path}/docker/{'b' * 64}"), *ALONE) as nested:
            assert "the container's" in await reason(make(), nested.pid)

    async def test_a_pod_of_the_same_name(self, cgroups, kubelet, make):
        """A pod that takes another's name is another pod, as is its container."""
        attestor = make(max_age="0s")
        old = PodContainer(cgroups, kubelet)
        old.list()
        with old.process() as before:
            await ask(attestor, before.pid)
            pod_of(kubelet.pods, "web")["metadata"]["uid"] = uid = "11111111-2222-4333-8444-555555555555"
            new = PodContainer(cgroups, kubelet)
            new.list()
            with new.process() as after:
                assert f"pod-uid:{uid}" in (await ask(attestor, after.pid)).values
            kubernetes_reason = await reason(attestor, before.pid)
        assert "does not list the process's pod" in kubernetes_reason


class TestTime:
    async def test_one_list_for_many(self, cgroups, kubelet, make):
        """Many that ask at once share one request, and those who ask within `max_age` take the same list, whose age is told."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        attestor = make(max_age="1m")
        with container.process() as process:
            kubelet.gate.clear()
            asking = [asyncio.ensure_future(ask(attestor, process.pid)) for _ in range(30)]
            await asyncio.to_thread(until, lambda: kubelet.asked, "it is asked")
            kubelet.gate.set()
            answers = await asyncio.gather(*asking)
            again = await ask(attestor, process.pid)
        assert {again.values} == {each.values for each in answers}
        assert (1, 1) == (kubelet.asked, kubelet.at_once)
        assert 0 < again.age < 60

    async def test_no_older_than_it_may_be(self, cgroups, kubelet, make):
        """A list that is older than `max_age` is not used: what changed is seen."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        attestor = make(max_age="0s")
        with container.process() as process:
            await ask(attestor, process.pid)
            pod_of(kubelet.pods, "web")["metadata"]["labels"]["team"] = "red"
            answer = await ask(attestor, process.pid)
        assert ("pod-label:team:red" in answer.values, "pod-label:team:blue" in answer.values) == (True, False)

    async def test_a_container_that_is_not_listed_yet(self, cgroups, kubelet, make):
        """It is waited for, by one request at a time, however many wait; and is told as soon as it is listed."""
        containers = [PodContainer(cgroups, kubelet, name) for name in ("main", "second")]
        attestor = make()
        with containers[0].process() as one, containers[1].process() as two:
            asking = [asyncio.ensure_future(ask(attestor, pid)) for pid in (one.pid, two.pid) * 5]
            await asyncio.to_thread(until, lambda: kubelet.asked >= 3, "it is asked again")
            assert not any(each.done() for each in asking)
            for container in containers:
                container.list()
            answers = await asyncio.gather(*asking)
        names = [{each for each in answer.values if each.startswith("container-name:")} for answer in answers]
        assert [{"container-name:main"}, {"container-name:second"}] * 5 == names
        assert 1 == kubelet.at_once

    @pytest.mark.parametrize("known", [True, False])
    async def test_a_container_that_is_never_listed(self, cgroups, kubelet, make, monkeypatch, known):
        """When the time is over the reason is told: the pod is not listed, or not with that container."""
        monkeypatch.setattr(kubernetes, "WAIT_SECONDS", 0.4)
        container = PodContainer(cgroups, kubelet)
        if not known:
            pod_of(kubelet.pods, "web")["metadata"]["uid"] = "another"
        with container.process() as process:
            said = await reason(make(), process.pid)
        assert ("without its container" if known else "does not list the process's pod") in said

    async def test_a_kubelet_that_hangs(self, cgroups, kubelet, make, monkeypatch):
        """One who waits for it is told in time; whoever comes while it is known to fail does not wait at all."""
        monkeypatch.setattr(kubernetes, "WAIT_SECONDS", 0.3)
        container = PodContainer(cgroups, kubelet)
        container.list()
        kubelet.gate.clear()
        attestor = make()
        with container.process() as process:
            assert "did not answer within" in await reason(attestor, process.pid)
            kubelet.gate.set()
            assert "ns:default" in (await ask(attestor, process.pid)).values

    async def test_cancelled(self, cgroups, kubelet, make):
        """If the last who waits is cancelled its request is too, and the next one is served."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        kubelet.gate.clear()
        attestor = make()
        with container.process() as process:
            before = asyncio.all_tasks()
            asking = [asyncio.ensure_future(ask(attestor, process.pid)) for _ in range(2)]
            await asyncio.to_thread(until, lambda: kubelet.asked, "it is asked")
            for each in asking:
                each.cancel()
            await asyncio.wait(asking)
            assert asyncio.all_tasks() <= before
            kubelet.gate.set()
            assert "ns:default" in (await ask(attestor, process.pid)).values


class TestLies:
    async def test_another_pods_container(self, cgroups, kubelet, make):
        """A container that the kubelet has in another pod than its cgroup is of is not told."""
        container = PodContainer(cgroups, kubelet)
        container.list("done")
        with container.process() as process:
            assert "in another pod than its cgroup" in await reason(make(), process.pid)

    async def test_a_container_in_two_pods(self, cgroups, kubelet, make):
        """A container that the kubelet lists twice is not told."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        container.list("done")
        with container.process() as process:
            assert "in two pods" in await reason(make(), process.pid)

    async def test_another_nodes_pods(self, cgroups, kubelet, make):
        """Where the node is known, another one's list is not believed."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        with container.process() as process:
            said = await reason(make(node_name="node2", kubelet_name="node1"), process.pid)
        assert "not of node 'node2'" in said

    async def test_a_pod_that_cannot_be_read(self, cgroups, kubelet, make, monkeypatch):
        """That pods were passed over is told to whoever may be in one."""
        monkeypatch.setattr(kubernetes, "WAIT_SECONDS", 0.3)
        container = PodContainer(cgroups, kubelet)
        container.list()
        pod_of(kubelet.pods, "web")["metadata"]["labels"] = ["odd"]
        with container.process() as process:
            assert "1 pods of its list cannot be read" in await reason(make(), process.pid)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"answer": b"<html>"}, "no list of pods"),
            ({"answer": b"{}"}, "no list of pods"),
            ({"answer": b"[" * 100_000}, "no list of pods"),
            ({"answer": b""}, "no list of pods"),
            ({"status": 500}, "answered 500"),
            ({"status": 302}, "answered 302"),
            ({"status": 404}, "knows nothing of it"),
            ({"short": True}, "nobody speaks HTTP, or they hung up"),
            ({"answer": b" " * (33 * 1024 * 1024)}, "answered more than"),
        ],
        ids=["HTML", "empty", "nested", "nothing", "500", "302", "404", "short", "huge"],
    )
    async def test_answers_that_are_wrong(self, cgroups, kubelet, make, changes, said):
        """Whatever else the kubelet answers is a failure that says what it was; nobody else is harmed."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        for name, value in changes.items():
            setattr(kubelet, name, value)
        attestor = make()
        with container.process() as process, inmate() as plain:
            assert said in await reason(attestor, process.pid)
            assert frozenset() == (await ask(attestor, plain.pid)).values


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


class TestAttacks:
    async def test_joining_a_containers_cgroup(self, cgroups, kubelet, make):
        """A process of the machine in a container's cgroups is not in the container, whether that is known or not."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        attestor = make()
        with container.process() as first:
            for namespaces in ((), ("--mount",), ALONE, ("--user",), ("--user", "--map-root-user", "--mount")):
                with inmate(container.folders, *namespaces) as stranger:
                    for _ in range(2):
                        assert "container" in await reason(attestor, stranger.pid)
                assert "ns:default" in (await ask(attestor, first.pid)).values

    async def test_a_cgroup_of_ones_own(self, cgroups, kubelet, make):
        """A cgroup that looks like a running container's, made elsewhere by root or by a user, lends nothing."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        elsewhere = f"/sojourn-test-{container.id[:8]}"
        folders = cgroups.make(f"{elsewhere}{container.shape}")
        with container.process(), inmate(folders, *ALONE) as forged:
            assert "not where a kubelet makes" in await reason(make(), forged.pid)
            for folder in folders:
                for each in folder.parents:
                    if each.name == elsewhere[1:]:
                        os.chown(each, 61_234, 61_234)
            answer = await ask(make(), forged.pid)
        assert (frozenset(), True) == (answer.values, "of user 61234" in answer.withheld["ns"])

    @pytest.mark.parametrize("apart", [True, False])
    async def test_a_container_that_names_another_pod(self, cgroups, kubelet, make, apart):
        """A container that makes cgroups below its own, named like another pod's container, stays what it is."""
        own, other = (PodContainer(cgroups, kubelet, pod=pod) for pod in ("web", "done"))
        own.list()
        other.list()
        forged = cgroups.make(f"{own.path}{other.shape}")
        attestor = make()
        with own.process() as first, other.process():
            join = ["-t", str(first.pid), "--mount", "--ipc", "--uts"]
            with inmate(forged, *(ALONE if apart else ()), join=() if apart else join) as forger:
                if apart:
                    assert "the container's" in await reason(attestor, forger.pid)
                else:
                    values = (await ask(attestor, forger.pid)).values
                    assert (True, False) == ("pod-name:web" in values, "pod-name:done" in values)

    @pytest.mark.parametrize("outer", ["docker/{0}", "libpod_parent/libpod-{0}", "machine.slice/libpod-{0}.scope"])
    async def test_another_engines_container_that_names_a_pod(self, cgroups, kubelet, make, outer):
        """The same within a container of Docker or Podman is no pod's: nothing is so."""
        pod = PodContainer(cgroups, kubelet)
        pod.list()
        folders = cgroups.make(f"{CGROUP_ROOT}/{outer.format('c' * 64)}{pod.shape}")
        with pod.process(), inmate(folders, *ALONE) as forger:
            assert frozenset() == (await ask(make(), forger.pid)).values
        assert 0 == kubelet.asked
