"""kubernetes.py: a kubelet's list is shared, as old as it may be, waited for, and believed only if it can be so."""

import asyncio

import pytest
from harness.inmates import inmate
from harness.kubeletstandin import Kubelet, pod_of
from harness.looking import until
from harness.podasking import ask, kubelet_fixture, make_fixture, pool_fixture, reason  # noqa: F401 - fixtures
from harness.podlike import PodContainer
from sojourn_attestors import kubernetes

pytestmark = [pytest.mark.full, pytest.mark.root]


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
            assert "lists the process's container twice" in await reason(make(), process.pid)

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    async def test_an_answer_that_leads_elsewhere(self, cgroups, kubelet, make, tmp_path, status):
        """Nobody is asked in the kubelet's place, and no token is taken there, though they show a good certificate."""
        container = PodContainer(cgroups, kubelet)
        container.list()
        with Kubelet(tmp_path / "other") as other, container.process() as process:
            kubelet.status, kubelet.location = status, f"https://127.0.0.1:{other.port}/pods"
            authorities = tmp_path / "authorities.pem"
            authorities.write_bytes(kubelet.tls.ca.read_bytes() + other.tls.ca.read_bytes())
            said = await reason(make(kubelet_ca_path=str(authorities)), process.pid)
        assert (True, []) == (f"answered {status}" in said, other.shown)

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
