"""docker.py and engines.py: settings, and which engine is asked. Real engines are in integration/test_docker.py."""

import asyncio
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.engineproxy import EngineProxy, on_the_wire
from sojourn.errors import AttestationFailed, InvalidConfig
from sojourn.limits import (
    CONTAINERS_KEPT,
    CONTAINERS_KEPT_PER_USER,
    ENGINE_ANSWER_MAX_BYTES,
    ENGINE_FAILURES,
    ENGINE_LATE_AGAIN_SECONDS,
    USER_ENGINE_ANSWER_MAX_BYTES,
)
from sojourn_attestors.asking.fetching import Late
from sojourn_attestors.asking.localfetching import LocalJsonClient, SocketFinder
from sojourn_attestors.containers.place import Place
from sojourn_attestors.docker import DockerAttestor, _keep
from sojourn_attestors.engines.asking import Engine, Engines

ID = "ab" * 32
POD = "8f1c6b0e-0b3d-4c3e-9f53-0d9d4f0e6a11"


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as pool:
        yield pool


class TestSettings:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"docker_socket": "unix:///run/docker.sock"},
            {"docker_socket": "", "podman_socket": "/run/p.sock"},
            {"docker_socket": "", "podman_socket": "", "rootless": True},
            {"env": True},
            {"env": ["APP", "STAGE"]},
            {"rootless": True, "docker_rootless_socket": ""},
        ],
    )
    def test_good(self, pool, settings):
        """Sockets, their owners and what is told of a container can be set."""
        assert DockerAttestor(settings, pool)

    @pytest.mark.parametrize(
        ("settings", "key"),
        [
            ({"docker_sock": "/x"}, "docker_sock"),
            ({"docker_socket": "run/docker.sock"}, "docker_socket"),
            ({"docker_socket": "tcp://127.0.0.1:2375"}, "docker_socket"),
            ({"podman_socket": f"/{'x' * 200}"}, "podman_socket"),
            ({"docker_socket": 1}, "docker_socket"),
            ({"podman_rootless_socket": "/run/user/1000/podman.sock"}, "podman_rootless_socket"),
            ({"rootless": "yes"}, "rootless"),
            ({"env": "APP"}, "env"),
            ({"env": [1]}, "env"),
            ({"docker_socket": "", "podman_socket": ""}, "docker_socket"),
            (
                {
                    "docker_socket": "",
                    "podman_socket": "",
                    "rootless": True,
                    "docker_rootless_socket": "",
                    "podman_rootless_socket": "",
                },
                "docker_socket",
            ),
        ],
    )
    def test_faults(self, pool, settings, key):
        """Each fault begins with its key."""
        with pytest.raises(InvalidConfig) as caught:
            DockerAttestor(settings, pool)
        assert all(fault.startswith(key) for fault in caught.value.faults)

    @pytest.mark.parametrize("variables", ["APP", [1], 1, {"APP": True}])
    def test_variables(self, pool, variables):
        """What may stand there is said in one line, whatever stands there."""
        with pytest.raises(InvalidConfig) as caught:
            DockerAttestor({"env": variables}, pool)
        [fault] = caught.value.faults
        assert 'env: is neither true or false, nor the names of variables, as in ["APP"]' == fault


async def test_no_time_left(pool):
    """An engine that is not asked, as another took all the time, is not said to be slow."""
    [engine] = Engines({"podman": "/p"}, {}, SocketFinder(pool), lambda: 7.0).of(
        Place(ID, "", "", "cgroup", frozenset(), 0)
    )
    with pytest.raises(AttestationFailed, match="Podman was not asked: there was no time left"):
        await engine.container(ID, 7.0)


async def test_no_engine(pool, tmp_path):
    """Where no engine answers, a check says why for each; it is no fault that users' own are not there."""
    sockets = {"docker_socket": str(tmp_path / "d.sock"), "podman_socket": str(tmp_path / "p.sock")}
    with pytest.raises(AttestationFailed) as missing:
        await DockerAttestor(sockets, pool).check()
    assert all(text in missing.value.public for text in ("Docker Engine", "Podman", *sockets.values()))
    await DockerAttestor({"docker_socket": "", "podman_socket": "", "rootless": True}, pool).check()


class TestOneThatIsStuck:
    async def test_about_one_container(self, pool):
        """While an engine does not answer about one container, which is asked about again, others are asked about."""
        asked = []

        class Client:
            async def get(self, path, seconds):
                asked.append(path)
                if "stuck" in path:
                    await asyncio.sleep(seconds)
                    raise Late("no answer")
                return {}

        now = [0.0]
        engine = Engine("Docker Engine", "/d", 0, SocketFinder(pool), lambda: now[0])
        engine._client = Client()
        for _ in range(ENGINE_FAILURES):
            with pytest.raises(Late):
                await engine.container("stuck", now[0] + 0.001)
            now[0] += ENGINE_LATE_AGAIN_SECONDS + 1
        again = asyncio.ensure_future(engine.container("stuck", now[0] + 60))
        while len(asked) <= ENGINE_FAILURES:
            await asyncio.sleep(0)
        with pytest.raises(AttestationFailed, match="being asked again"):
            await engine.container("stuck", now[0] + 60)
        assert {} == await engine.container("other", now[0] + 60)
        again.cancel()


class TestAUsersOwn:
    async def test_that_says_much(self, pool, tmp_path):
        """A user's own engine, which may say what it likes, says no more than can be read in a moment; root's may."""
        long = on_the_wire(200, b'{"x": "' + b"y" * USER_ENGINE_ANSWER_MAX_BYTES + b'"}')
        me = os.geteuid()
        with EngineProxy(tmp_path / "socket", None, me) as proxy:
            proxy.fault = lambda connection, _: connection.sendall(long)
            engine = Engine("Podman", str(proxy.path), me, SocketFinder(pool), lambda: 0.0)
            for owner, limit in ((1_000, USER_ENGINE_ANSWER_MAX_BYTES), (0, ENGINE_ANSWER_MAX_BYTES)):
                of_owner = Engine("Podman", str(proxy.path), owner, SocketFinder(pool), lambda: 0.0)
                assert limit == of_owner._client._limit
            engine._client = LocalJsonClient(
                "Podman", str(proxy.path), me, SocketFinder(pool), answer_max_bytes=USER_ENGINE_ANSWER_MAX_BYTES
            )
            with pytest.raises(AttestationFailed, match="answered more than"):
                await engine.container(ID, 5.0)

    def test_that_has_many_containers(self):
        """What users' own engines say does not push out what others say: of a user so many are kept, the newest."""
        kept = OrderedDict()
        for number in range(10):
            _keep(kept, (f"root{number}", "docker", "", 0), number)
        for number in range(CONTAINERS_KEPT + 10):
            _keep(kept, (f"user{number}", "docker", "", 1_000), number)
        _keep(kept, ("other", "docker", "", 1_001), 0)
        owners = [key[-1] for key in kept]
        assert (10, CONTAINERS_KEPT_PER_USER, 1) == tuple(map(owners.count, (0, 1_000, 1_001)))
        assert (f"user{CONTAINERS_KEPT + 9}", "docker", "", 1_000) in kept
        for number in range(CONTAINERS_KEPT + 10):
            _keep(kept, (f"more{number}", "docker", "", 0), number)
        assert CONTAINERS_KEPT == len(kept)


class TestWhichEngine:
    @pytest.mark.parametrize(
        ("runtime", "pod", "asked"),
        [
            ("docker", "", ["docker"]),
            ("libpod", "", ["podman"]),
            ("", "", ["docker", "podman"]),
            ("", POD, ["docker"]),
            ("docker", POD, ["docker"]),
            ("cri-containerd", POD, []),
            ("crio", POD, []),
            ("nerdctl", "", []),
        ],
    )
    @pytest.mark.parametrize("owner", [0, 1_000])
    def test_by_the_name_of_the_cgroup(self, pool, runtime, pod, owner, asked):
        """The engine that names containers so; both, if the name does not tell; none, if neither names them so. Those of
        a user are that user's, and never the machine's.
        """
        machine = {"docker": "/d", "podman": "/p"}
        users = {"docker": "/run/{uid}/d", "podman": "/run/{uid}/p"}
        engines = Engines(machine, users, SocketFinder(pool), lambda: 0.0)
        place = Place(ID, runtime, pod, "cgroup", frozenset(), owner)
        expected = [users[kind].replace("{uid}", "1000") if owner else machine[kind] for kind in asked]
        assert expected == [engine.path for engine in engines.of(place)]

    def test_users_without_engines(self, pool):
        """Where users' engines are not asked, nobody is asked about their containers."""
        engines = Engines({"docker": "/d"}, {}, SocketFinder(pool), lambda: 0.0)
        assert [] == engines.of(Place(ID, "", "", "cgroup", frozenset(), 1_000))
