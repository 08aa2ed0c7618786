"""reload.py: what a configuration that is read again brings into force, and what it does not."""

import asyncio

import pytest
import structlog
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from sojourn.audit.journal import Audit
from sojourn.config.load import Loaded
from sojourn.config.model import Config
from sojourn.config.reload import ConfigReload, values_of
from sojourn.errors import InvalidConfig


class Room:
    def __init__(self, tmp_path):
        self.file = tmp_path / "agent.toml"
        self.clock = FakeClock()
        self.journal = FakeAuditStore()
        self.audit = Audit(self.journal, self.clock)
        self.next = {}
        self.levels = []
        self.reload = ConfigReload(Loaded(self.config(), {}), self.file, self.read, self.audit, self.clock)
        self.reload.on(["log.level"], self.apply)

    def config(self, **changes):
        return Config.model_validate({"data_dir": "/d", "socket": "/s", "admin_socket": "/a", **changes})

    def read(self):
        if isinstance(self.next, Exception):
            raise self.next
        return Loaded(self.config(**self.next), {}, "made-of-" + "-".join(self.next))

    async def apply(self, config):
        if config.log.level == "error":
            raise RuntimeError("oh")
        self.levels.append(config.log.level)

    async def read_again(self, found=None, **changes):
        self.next = found or changes
        with structlog.testing.capture_logs() as logs:
            await self.reload.reload()
        await self.audit.flush()
        return [each["event"] for each in logs]


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


class TestReload:
    async def test_the_same(self, room):
        """A configuration that says the same changes nothing."""
        assert ["config_reloaded"] == await room.read_again()
        assert ([], (), "") == (room.levels, room.reload.restart_needed, room.reload.fault)

    async def test_at_once_and_later(self, room):
        """A key that somebody applies is in force once; the others are named until they are as they were."""
        changed = {"log": {"level": "debug"}, "listen": {"tcp": "127.0.0.1:1"}, "trust_domain": "other.org"}
        for _ in range(2):
            assert ["config_reloaded", "config_restart_needed"] == await room.read_again(**changed)
        assert (["debug"], ("trust_domain", "listen.tcp")) == (room.levels, room.reload.restart_needed)
        found = room.journal.fields("config_reloaded")
        assert [["log.level"], []] == [each["changed"] for each in found]
        await room.read_again(log={"level": "debug"})
        assert () == room.reload.restart_needed

    async def test_one_with_a_fault(self, room):
        """One with a fault changes nothing, and is told until there is a good one."""
        await room.read_again(listen={"tcp": "127.0.0.1:1"})
        assert ["config_refused"] == await room.read_again(InvalidConfig(["agent.toml:3: colour: unknown key"]))
        assert ("agent.toml:3: colour: unknown key", ("listen.tcp",)) == (
            room.reload.fault,
            room.reload.restart_needed,
        )
        [refused] = room.journal.fields("config_refused")
        assert "agent.toml:3: colour: unknown key" == refused["reason"]
        assert "made-of-listen" == room.reload.digest
        await room.read_again(listen={"tcp": "127.0.0.1:1"}, log={"level": "debug"})
        assert ("", "made-of-listen-log") == (room.reload.fault, room.reload.digest)

    async def test_one_that_cannot_be_applied(self, room):
        """A key that could not be applied after all needs a restart."""
        assert "config_not_applied" in await room.read_again(log={"level": "error"})
        assert ("log.level",) == room.reload.restart_needed

    async def test_run(self, room):
        """Whoever runs it has it read at each wake, and goes on after an error that nobody foresaw."""
        running = asyncio.ensure_future(room.reload.run())
        try:
            room.next = RuntimeError("oh")
            room.reload.wake()
            async with asyncio.timeout(20):
                while not room.reload.fault:
                    await asyncio.sleep(0.01)
            assert "internal error; the log has it" == room.reload.fault
            room.next = {"log": {"level": "debug"}}
            room.reload.wake()
            async with asyncio.timeout(20):
                while not room.levels:
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def test_keys():
    """Each key is one, the table of a plugin and an array of tables whole, so that no value of theirs is named."""
    service = {"resource": "https://a.example.org", "workloads": ["spiffe://example.org/a"]}
    found = values_of(
        Config.model_validate({"providers": {"corp": {"kind": "oidc", "client_secret": "s"}}, "services": [service]})
    )
    assert {"kind": "oidc", "client_secret": "s"} == found["providers.corp"]
    assert {"trust_domain", "tasks.types_dir", "attestors.unix", "services"} <= found.keys()
    assert not [key for key in found if "secret" in key or key in {"tasks", "providers"}]


def test_keys_of_a_plugins_upstream_authority():
    """What a plugin reads of its table counts, so that a change of it is told to need a restart."""
    above = {"authority": {"upstream": {"kind": "desk", "size": 3}}}
    assert 3 == values_of(Config.model_validate(above))["authority.upstream.size"]
