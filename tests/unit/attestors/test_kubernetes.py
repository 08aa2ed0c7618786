"""kubernetes.py: processes in real cgroups and namespaces, and a stand-in for the kubelet that answers as one did."""

import asyncio
import os

import pytest
from harness.inmates import inmate
from harness.kubeletstandin import pod_of
from harness.podasking import ask, kubelet_fixture, make_fixture, pool_fixture, reason  # noqa: F401 - fixtures
from harness.podlike import ALONE, CGROUP_ROOT, SHAPES, PodContainer
from sojourn.errors import AttestationFailed
from sojourn_attestors.containers import processes

pytestmark = [pytest.mark.full, pytest.mark.root]


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

    @pytest.mark.full
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

    async def test_cgroups_without_end(self, cgroups, kubelet, make, monkeypatch):
        """A container that made more cgroups than can be looked through in a moment is not told, and it alone."""
        monkeypatch.setattr(processes, "CONTAINER_CGROUPS_MAX", 8)
        many, other = PodContainer(cgroups, kubelet), PodContainer(cgroups, kubelet, "second")
        other.list()
        for number in range(8):
            cgroups.make(f"{many.path}/{number % 2}/{number}")
        attestor = make()
        with many.process() as process, other.process() as good:
            assert "more than 8 cgroups" in await reason(attestor, process.pid)
            assert "container-name:second" in (await ask(attestor, good.pid)).values

    async def test_many_that_ask_at_once(self, cgroups, kubelet, make):
        """While a container's first process is looked for, others of it wait for the same look: none takes a thread."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        attestor = make()
        looks = []
        look = attestor._containers.first_process

        async def first_process(place):
            looks.append(place)
            await asyncio.sleep(0.1)
            return await look(place)

        attestor._containers.first_process = first_process
        with container.process() as process:
            given_up = asyncio.ensure_future(ask(attestor, process.pid))
            asking = [asyncio.ensure_future(ask(attestor, process.pid)) for _ in range(10)]
            await asyncio.sleep(0.01)
            given_up.cancel()
            answers = await asyncio.gather(*asking)
        assert ([True] * 10, 1) == (["pod-name:web" in each.values for each in answers], len(looks))

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
