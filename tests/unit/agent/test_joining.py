"""joining.py: what a server gives for a join token, once, is not lost, and what a node keeps can be destroyed."""

import asyncio
import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.spire_server import FakeSpireServer
from sojourn.agent import joining
from sojourn.agent.key_sealing import KeySealing
from sojourn.authority.key_seal import KeySeal, is_sealed
from sojourn.config.model import Config
from sojourn.errors import StoreFailed
from sojourn.files import atomic
from sojourn.runtime.clock import SystemClock
from sojourn.spiffe.ids import TrustDomain
from sojourn.upstream import node as nodes
from sojourn.upstream.bound_key import BoundKeyFiles


def configured(folder: Path, server: FakeSpireServer | None = None, **more: Any) -> Config:
    """The configuration of an agent in a folder, a node of this server by a join token if there is one."""
    given: dict[str, Any] = {"trust_domain": "spire.example", "data_dir": str(folder / "data"), **more}
    (folder / "data").mkdir(mode=0o700, exist_ok=True)
    if server is not None:
        (folder / "token").write_text("good")
        (folder / "token").chmod(0o600)
        (folder / "bundle.pem").write_bytes(server.ca.root.public_bytes(Encoding.PEM))
        given["upstream"] = {
            "kind": "spire",
            "servers": [server.address],
            "bundle": str(folder / "bundle.pem"),
            "attestor": "join_token",
            "token_file": str(folder / "token"),
        }
    return Config(**given)


@pytest.fixture
async def server():
    async with FakeSpireServer() as running:
        yield running


class TestJoin:
    @pytest.mark.full
    async def test_a_server_that_is_slow(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that takes longer to attest than a start waits has its answer waited for: the token is used up."""
        monkeypatch.setattr(nodes, "UPSTREAM_START_SECONDS", 0.1)
        monkeypatch.setattr(nodes.SpireNode.start, "__defaults__", (0.1,))
        server.delay = 0.5
        joined = await asyncio.to_thread(joining.join, configured(tmp_path, server))
        assert server.agent_path == joined.node_id.path
        assert (tmp_path / "data" / "node" / "node.sealed").exists()

    async def test_a_clock_that_is_behind(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A machine whose clock is behind the server's has joined, and the command says that it is."""
        now = SystemClock.now

        def behind(clock: SystemClock) -> datetime:
            return now(clock) - timedelta(minutes=5)

        monkeypatch.setattr(SystemClock, "now", behind)
        joined = await asyncio.to_thread(joining.join, configured(tmp_path, server))
        assert "behind the SPIRE server's" in joined.caution
        assert (tmp_path / "data" / "node" / "node.sealed").exists()

    async def test_what_cannot_be_written(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who joins where nothing can be written is told that all is lost, and not that it has joined."""
        monkeypatch.setattr(joining, "UPSTREAM_JOIN_WRITE_SECONDS", 0.1)
        config = configured(tmp_path, server)
        (tmp_path / "data" / "node").mkdir(mode=0o700)
        (tmp_path / "data" / "node" / "node.sealed").mkdir()
        with pytest.raises(StoreFailed, match="cannot be written"):
            await asyncio.to_thread(joining.join, config)

    @pytest.mark.full
    async def test_a_disk_that_has_room_again(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the server gives once is tried to be written for as long as it may help."""
        write, left = atomic.write, [3]

        def full(path: Path, *more: Any, **options: Any) -> None:
            if path.name == "node.sealed" and left[0]:
                left[0] -= 1
                raise OSError(28, "No space left on device")
            write(path, *more, **options)

        monkeypatch.setattr(atomic, "write", full)
        await asyncio.to_thread(joining.join, configured(tmp_path, server))
        assert [0] == left
        assert (tmp_path / "data" / "node" / "node.sealed").is_file()


def sealed(folder: Path) -> dict[str, Any]:
    """Keys are sealed, with a key that is made here."""
    if not (folder / "seal-key").exists():
        (folder / "seal-key").write_bytes(secrets.token_bytes(32))
        (folder / "seal-key").chmod(0o600)
    return {"manager": "sealed", "seal_key": str(folder / "seal-key")}


class TestSealed:
    """A node whose keys lie on disk sealed."""

    async def test_no_key_in_clear(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Joining writes no key in clear, and a second one, and detaching, know what the first has kept."""
        keys = sealed(tmp_path)
        first = await asyncio.to_thread(joining.join, configured(tmp_path, server, keys=keys))
        assert is_sealed((tmp_path / "data" / "node" / "seal.key").read_bytes())
        again = await asyncio.to_thread(joining.join, configured(tmp_path, server, keys=keys))
        assert again.before
        assert first.node_id == again.node_id
        gone = await asyncio.to_thread(joining.detach, configured(tmp_path, keys=keys))
        assert first.node_id == gone.node_id
        assert not (tmp_path / "data" / "node").exists()

    @pytest.mark.parametrize("lost", ["gone", "another"])
    async def test_the_seal_is_lost(self, server: FakeSpireServer, tmp_path: Path, lost: str) -> None:
        """Who has lost what keys are sealed with can detach all the same, since that destroys them."""
        keys = sealed(tmp_path)
        await asyncio.to_thread(joining.join, configured(tmp_path, server, keys=keys))
        if lost == "another":
            (tmp_path / "seal-key").write_bytes(secrets.token_bytes(32))
        else:
            (tmp_path / "seal-key").unlink()
        gone = await asyncio.to_thread(joining.detach, configured(tmp_path, keys=keys))
        assert gone.node_id is None
        assert not (tmp_path / "data" / "node").exists()


class TestDetach:
    async def test_after_a_crash(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """What a crash has left of files that were being written goes with the rest."""
        await asyncio.to_thread(joining.join, configured(tmp_path, server))
        (tmp_path / "data" / "node" / ".node.sealed.new").write_bytes(b"half")
        (tmp_path / "data" / "node" / ".seal.key.new").write_bytes(b"half")
        await asyncio.to_thread(joining.detach, configured(tmp_path))
        assert not (tmp_path / "data" / "node").exists()

    async def test_what_cannot_be_removed(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """What is not ours in the folder is named."""
        await asyncio.to_thread(joining.join, configured(tmp_path, server))
        (tmp_path / "data" / "node" / "mine").mkdir()
        with pytest.raises(StoreFailed, match="cannot be removed"):
            await asyncio.to_thread(joining.detach, configured(tmp_path))


class TestABoundKey:
    """The key that a token has bound to a node's name, beside what else is kept."""

    def bound(self, folder: Path, seal: KeySeal | None = None) -> bytes:
        """The public key of the one that is there, or is made by a token."""
        token = folder / "bound-token"
        token.write_text("bound.good")
        token.chmod(0o600)
        files = BoundKeyFiles(folder / "data" / "node-key", TrustDomain("spire.example"), token, seal)
        return files().binding.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    async def test_detach_destroys_it(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """An agent that is no node any more has nothing left by which it could be that one again."""
        await asyncio.to_thread(joining.join, configured(tmp_path, server))
        await asyncio.to_thread(self.bound, tmp_path)
        await asyncio.to_thread(joining.detach, configured(tmp_path))
        assert not (tmp_path / "data" / "node-key").exists()
        assert not (tmp_path / "data" / "node").exists()

    async def test_it_is_sealed_and_unsealed(self, tmp_path: Path) -> None:
        """A start with sealed keys seals it as the others, and one without has it in clear again: it stays the same."""
        keys = sealed(tmp_path)
        (tmp_path / "data").mkdir(mode=0o700)
        before = await asyncio.to_thread(self.bound, tmp_path)
        sealing = KeySealing(configured(tmp_path, keys=keys))
        assert is_sealed((tmp_path / "data" / "node-key" / "seal.key").read_bytes())
        assert before == await asyncio.to_thread(self.bound, tmp_path, sealing.seal)
        KeySealing(configured(tmp_path, keys={**keys, "manager": "file"}))
        assert not is_sealed((tmp_path / "data" / "node-key" / "seal.key").read_bytes())
        assert before == await asyncio.to_thread(self.bound, tmp_path)
