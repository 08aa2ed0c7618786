"""The attestor `docker` before real engines: Docker Engine and Podman, cgroup v1 and v2, and engines that fail."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.asking import ask, attestor
from harness.callers import Caller
from harness.engineproxy import EngineProxy, on_the_wire
from harness.engines import IMAGE, Container, Engine
from harness.looking import until
from harness.podman import RootlessPodman
from harness.raw import Admin
from harness.registry import Registry
from harness.subjects import subject_of
from sojourn.attestation.attestor import Answer
from sojourn.errors import AttestationFailed
from sojourn_attestors.docker import DockerAttestor

pytestmark = [pytest.mark.full, pytest.mark.root]
UID = 4_611  # of a user who has an engine


@pytest.fixture
def proxy(engine: Engine) -> Iterator[EngineProxy]:
    with EngineProxy(engine.folder / "proxy.sock", engine.socket) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="module")
def rootless() -> Iterator[Engine]:
    with RootlessPodman(UID) as engine:
        yield engine


class TestAnswers:
    async def test_what_the_container_is(self, engine, pool):
        """Labels of the image and of the container, the name that it was asked for by, and its content's digest."""
        container = engine.run(flags=["--label", "team=blue", "--env", "TOKEN=s3cret"])
        image = engine.command("image", "inspect", "--format", "{{.Id}}", IMAGE).removeprefix("sha256:")
        answer = await ask(attestor(engine, pool), container.pid)
        digests = {value for value in answer.values if value.startswith("image_digest:")}
        assert {
            "label:app:web",
            "label:team:blue",
            f"image_id:{IMAGE}",
            f"image_config_digest:sha256:{image}",
        } == answer.values - digests
        assert bool(digests) != ("image_digest" in answer.withheld)  # Podman makes one for what it imports
        assert "s3cret" not in str(answer)
        assert 0.0 == answer.age

    async def test_variables(self, podman_v2, pool):
        """Those that are named, if any are; all of them, if that is said."""
        container = podman_v2.run(flags=["--env", "TOKEN=s3cret", "--env", "APP=web"])
        named = await ask(attestor(podman_v2, pool, env=["APP"]), container.pid)
        assert {"env:APP=web"} == {value for value in named.values if value.startswith("env:")}
        every = await ask(attestor(podman_v2, pool, env=True), container.pid)
        assert {"env:APP=web", "env:TOKEN=s3cret", "env:FOO=bar"} < every.values

    async def test_asked_once(self, engine, pool, proxy):
        """The engine is asked once for a container, whoever of it calls and how often; and how old that is is told."""
        container = engine.run()
        asked = attestor(engine, pool, path=proxy.path)
        first = await ask(asked, container.pid)
        begun = time.monotonic()
        pids = [container.pid, container.start_process("sleep", "100"), container.start_process("sleep", "100")]
        answers = await asyncio.gather(*(ask(asked, pid) for pid in pids * 5))
        assert {first.values} == {answer.values for answer in answers}
        assert all(answer.age >= time.monotonic() - begun - 5 for answer in answers)
        assert all(answer.age > 0 for answer in answers)
        paths = [path.rpartition("/containers/")[2] for path in proxy.asked if "/containers/" in path]
        assert [f"{container.id}/json"] == paths
        assert 2 == len(proxy.asked)

    async def test_new_callers_at_once(self, docker, pool, docker_proxy):
        """Callers who come while the engine is being asked wait for the same answer."""
        container = docker.run()
        pids = [container.pid, *(container.start_process("sleep", "100") for _ in range(4))]
        docker_proxy.fault = lambda connection, answer: (time.sleep(0.2), connection.sendall(answer))
        asked = attestor(docker, pool, path=docker_proxy.path)
        answers = await asyncio.gather(*(ask(asked, pid) for pid in pids))
        assert 1 == len({answer.values for answer in answers})
        assert 2 == len(docker_proxy.asked)

    async def test_started_again(self, engine, pool, proxy):
        """A container that was started again is asked about again."""
        container = engine.run(flags=["--name", "again"])
        asked = attestor(engine, pool, path=proxy.path)
        first = await ask(asked, container.pid)
        engine.command("restart", "--time", "0", "again")
        pid = engine.pid_of("again")
        assert pid != container.pid
        again = await ask(asked, pid)
        assert (first.values, 0.0) == (again.values, again.age)
        assert 2 == sum(container.id in path for path in proxy.asked)

    @pytest.mark.parametrize("kind", ["docker", "podman_v2"])
    def test_the_engine_is_started_again(self, kind, request, pool):
        """Meanwhile, containers that are known are told as before, and others when it answers."""
        engine = request.getfixturevalue(kind)
        known, other = engine.run(), engine.run()
        asked = attestor(engine, pool)
        first = asyncio.run(ask(asked, known.pid))
        engine.stop()
        assert first.values == asyncio.run(ask(asked, known.pid)).values
        waiting = pool.submit(asyncio.run, ask(asked, other.pid))
        engine.start()
        assert first.values == waiting.result().values

    async def test_outside_of_containers(self, engine, pool, proxy):
        """A process in no container has an empty answer, and no engine is asked."""
        asked = attestor(engine, pool, path=proxy.path)
        assert Answer(frozenset()) == await ask(asked, os.getpid())
        assert [] == proxy.asked

    async def test_a_container_that_joins_the_machine(self, docker, pool):
        """With the machine's PID, network and IPC namespaces a container is told all the same."""
        container = docker.run(flags=["--pid", "host", "--ipc", "host"], network="host")
        assert "label:app:web" in (await ask(attestor(docker, pool), container.pid)).values

    async def test_a_user_namespace_of_its_own(self, podman_v2, pool):
        """A container of root's whose users are mapped is root's container."""
        container = podman_v2.run(flags=["--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000"])
        asked = attestor(podman_v2, pool)
        for pid in (container.pid, container.start_process("sleep", "100")):
            with subject_of(pid) as subject:
                assert 100_000 == subject.uid
                assert "label:app:web" in (await asked.attest(subject)).values

    @pytest.mark.parametrize("kind", ["docker", "podman_v2"])
    async def test_containers_that_share_namespaces(self, kind, request, pool):
        """Where containers share them, as in a pod, each is told for itself."""
        engine = request.getfixturevalue(kind)
        one = engine.run(flags=["--name", "one", "--ipc", "shareable", "--label", "n=1"])
        flags = ["--pid", "container:one", "--ipc", "container:one", "--label", "n=2"]
        two = engine.run(flags=flags, network="container:one")
        asked = attestor(engine, pool)
        for container, label in ((one, "label:n:1"), (two, "label:n:2")):
            values = (await ask(asked, container.pid)).values
            assert {label} == {value for value in values if value.startswith("label:n:")}


class TestDigests:
    @pytest.mark.parametrize("kind", ["docker", "podman"])
    async def test_a_tag_that_is_moved(self, kind, request, registry, pool):
        """The name and tag follow whoever moves the tag; the digest of the repository does not."""
        engine = request.getfixturevalue(kind)
        name = f"{registry.address}/team/{kind}:1"
        found = []
        for label in ("good", "evil"):
            engine.make_image(name, labels={"is": label})
            digest = push(engine, name)
            container = engine.run(image=name)
            values = (await ask(attestor(engine, pool), container.pid)).values
            assert {
                f"label:is:{label}",
                f"image_id:{name}",
                f"image_digest:{digest}",
                f"image_digest:{registry.address}/team/{kind}@{digest}",
            } < values
            found.append({value for value in values if "digest" in value})
        assert not found[0] & found[1]

    async def test_pulled_by_digest(self, docker, registry, pool):
        """An image that was pulled by its digest is the same image, by the same selectors of its content."""
        name = f"{registry.address}/team/pulled"
        docker.make_image(f"{name}:1", labels={"is": "pulled"})
        digest = push(docker, f"{name}:1")
        docker.command("image", "rm", f"{name}:1")
        docker.command("pull", f"{name}@{digest}")
        container = docker.run(image=f"{name}@{digest}")
        assert {
            "label:is:pulled",
            f"image_id:{name}@{digest}",
            f"image_digest:{digest}",
            f"image_digest:{name}@{digest}",
        } < (await ask(attestor(docker, pool), container.pid)).values

    async def test_an_image_that_is_gone(self, docker, pool, docker_proxy):
        """What only the image tells is withheld with the reason."""
        container = docker.run()
        docker_proxy.fault = lambda connection, answer: connection.sendall(
            on_the_wire(404, b"{}") if "/images/" in docker_proxy.asked[-1] else answer
        )
        answer = await ask(attestor(docker, pool, path=docker_proxy.path), container.pid)
        assert {"label:app:web", f"image_id:{IMAGE}"} == answer.values
        assert {"image_config_digest", "image_digest"} == set(answer.withheld)


def push(engine: Engine, name: str) -> str:
    """Push an image to its registry, and return the digest by which that has it."""
    engine.command("push", *(["--tls-verify=false"] if engine.kind == "podman" else []), name)
    told = json.loads(engine.command("image", "inspect", name))[0]["RepoDigests"]
    (digest,) = {each.partition("@")[2] for each in told if each.startswith(name.rpartition(":")[0])}
    return str(digest)


class TestSeveralEngines:
    async def test_each_is_asked_for_its_own(self, docker, podman, pool):
        """With both on a machine each container is told by its own engine, and by it alone where names tell which."""
        with ExitStack() as stack:
            proxies = {
                engine.kind: stack.enter_context(EngineProxy(engine.folder / "both.sock", engine.socket))
                for engine in (docker, podman)
            }
            both = DockerAttestor({f"{kind}_socket": str(proxy.path) for kind, proxy in proxies.items()}, pool)
            for engine in (docker, podman):
                container = engine.run(flags=["--label", f"by={engine.kind}"])
                assert f"label:by:{engine.kind}" in (await ask(both, container.pid)).values
            assert [2, 2] == [len(proxy.asked) for proxy in proxies.values()]

    async def test_one_that_is_not_there(self, docker, podman, pool):
        """An engine that is not there is missed only for containers that it could know."""
        both = DockerAttestor({"docker_socket": str(docker.folder / "none"), "podman_socket": str(podman.socket)}, pool)
        assert "label:app:web" in (await ask(both, podman.run().pid)).values
        with pytest.raises(AttestationFailed, match="Docker Engine cannot be asked: there is no socket at"):
            await ask(both, docker.run().pid)

    async def test_one_that_is_not_asked(self, docker, podman, pool):
        """Of a container of an engine that the configuration leaves out nothing is so, and it is said which that is."""
        attestor = DockerAttestor({"docker_socket": str(docker.socket), "podman_socket": ""}, pool)
        answer = await ask(attestor, podman.run().pid)
        assert frozenset() == answer.values
        assert "Podman is not asked here" in answer.withheld["label"]

    async def test_unknown_to_all(self, docker, pool, docker_proxy):
        """A container of an engine that is not asked has nothing, with the reason, and they are not asked each time."""
        container = docker.run()
        with EngineProxy(docker.folder / "other.sock", None) as other:
            asked = DockerAttestor({"docker_socket": str(other.path), "podman_socket": ""}, pool)
            for _ in range(3):
                answer = await ask(asked, container.pid)
                assert frozenset() == answer.values
                assert "which no engine that is asked knows" in answer.withheld["label"]
            assert 1 == len(other.asked)


class TestRootless:
    async def test_is_told_apart(self, rootless, pool):
        """What a user's own engine says begins with whose it is, and is asked for only if that is said."""
        container = rootless.run(flags=["--label", "team=blue"])
        sockets = {"podman_rootless_socket": f"{rootless.folder}/{{uid}}/podman.sock", "docker_rootless_socket": ""}
        answer = await ask(DockerAttestor({**sockets, "rootless": True}, pool), container.pid)
        assert {f"rootless:{UID}:label:team:blue", f"rootless:{UID}:image_id:{IMAGE}"} < answer.values
        assert all(value.startswith(f"rootless:{UID}:") for value in answer.values)
        answer = await ask(DockerAttestor(sockets, pool), container.pid)
        assert frozenset() == answer.values
        assert "`rootless` is off" in answer.withheld["label"]

    async def test_the_socket_of_another_user(self, rootless, docker, pool):
        """Where a user puts another's socket in the place of their own, that is not asked, be it root's."""
        container = rootless.run()
        link = Path(rootless.folder, str(UID), "link.sock")
        link.symlink_to(docker.socket)
        settings = {"podman_rootless_socket": f"{rootless.folder}/{{uid}}/link.sock", "docker_rootless_socket": ""}
        with pytest.raises(AttestationFailed, match=f"belongs to user 0, and not to {UID}"):
            await ask(DockerAttestor({**settings, "rootless": True}, pool), container.pid)

    async def test_as_the_machines_own(self, rootless, docker, pool):
        """A user's engine is not believed where root's is named."""
        with pytest.raises(AttestationFailed, match=f"belongs to user {UID}, and not to 0"):
            await ask(attestor(docker, pool, path=rootless.socket), docker.run().pid)


class TestManyContainers:
    async def test_at_once(self, docker, pool, docker_proxy):
        """A hundred callers of ten new containers at once: each has its own, and each container was asked for once."""
        loop = asyncio.get_running_loop()
        made: list[Container] = await asyncio.gather(
            *(loop.run_in_executor(pool, start_numbered, docker, number) for number in range(10))
        )
        asked = attestor(docker, pool, path=docker_proxy.path)
        answers = await asyncio.gather(*(ask(asked, container.pid) for container in made for _ in range(10)))
        for number, answer in enumerate(answers):
            assert f"label:n:{number // 10}" in answer.values
        assert 10 == sum("/containers/" in path for path in docker_proxy.asked)


def start_numbered(docker: Engine, number: int) -> Container:
    return docker.run(flags=["--label", f"n={number}"])


class TestAgent:
    @pytest.mark.parametrize("kind", ["docker_v2", "podman"])
    def test_identities_of_containers(self, kind, request):
        """Workloads in containers have the identities of their labels and images, and no process outside has them."""
        engine = request.getfixturevalue(kind)
        sockets = {kind: str(engine.socket) if kind == engine.kind else "" for kind in ("docker", "podman")}
        config = f'[attestors.unix]\n[attestors.docker]\ndocker_socket = "{sockets["docker"]}"\n'
        with (
            AgentProcess(config=config + f'podman_socket = "{sockets["podman"]}"\n') as agent,
            Admin(agent.admin_socket) as admin,
        ):
            admin.register("/blue", "docker:label:team:blue")
            admin.register("/red", "docker:label:team:red")
            admin.register("/root", "unix:uid:0")
            for team in ("blue", "red"):
                with engine.caller(agent.socket, flags=["--label", f"team={team}", "--name", team]) as caller:
                    got = {each["spiffe_id"] for each in caller.ask("x509")["svids"]}
                    assert {f"spiffe://example.org/{team}", "spiffe://example.org/root"} == got
                    assert f"docker:label:team:{team}" in set(admin.explain(engine.pid_of(team)).selectors)
            found = set(admin.explain(os.getpid()).selectors)
            assert not [each for each in found if each.startswith("docker:")]

    def test_an_engine_that_does_not_answer(self, docker, docker_proxy):
        """Who might have an identity by it is told to come again, and has no lesser one; processes outside of containers
        have theirs; and when it answers, all is well.
        """
        sockets = f'docker_socket = "{docker_proxy.path}"\npodman_socket = ""\n'
        docker_proxy.fault = lambda connection, _: docker_proxy.hold(connection)
        with (
            AgentProcess(config=f"[attestors.unix]\n[attestors.docker]\n{sockets}") as agent,
            Admin(agent.admin_socket) as admin,
            Caller(agent.socket) as outside,
            docker.caller(agent.socket, flags=["--label", "team=blue"]) as inside,
        ):
            admin.register("/blue", "docker:label:team:blue", "unix:uid:0")
            admin.register("/root", "unix:uid:0")
            inside.tell("x509")
            assert ["spiffe://example.org/root"] == [each["spiffe_id"] for each in outside.ask("x509")["svids"]]
            refused = inside.hear()
            assert ("error", "attestation_failed") == (refused["event"], refused["code"]), refused
            assert "did not answer" in refused["message"]
            docker_proxy.fault = None
            answer = until(lambda: given(inside.ask("x509")), "the engine is asked again")
            assert {"spiffe://example.org/blue", "spiffe://example.org/root"} == answer


def given(answer: dict[str, Any]) -> set[str]:
    """The SPIFFE IDs that a caller was given, if it was."""
    return {each["spiffe_id"] for each in answer.get("svids", ())}
