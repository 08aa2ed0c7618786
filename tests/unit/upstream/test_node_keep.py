"""node_keep.py: what a node serves after a restart without its server, and that nothing else is believed."""

import asyncio
import os
import stat
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from fakes.nodes import ShiftedClock, node_of
from fakes.spire_server import FakeSpireServer
from sojourn.errors import CannotStart, Unavailable, UpstreamUnavailable
from sojourn.spiffe.x509svid import X509Svid
from sojourn.upstream import node_keep
from sojourn.upstream.node import SpireNode
from sojourn.upstream.sealed_files import SealedFiles
from structlog.testing import capture_logs

NAMES = ("a", "b", "c")


@pytest.fixture
async def server():
    async with FakeSpireServer() as running:
        for name in NAMES:
            running.register(name)
        yield running


async def signed(server: FakeSpireServer, folder: Path, **changes: object) -> dict[str, X509Svid]:
    """A node's run in which each entry has its SVID, and what they are. The server is away afterwards."""
    async with node_of(server, folder, **changes) as node:
        svids = await asyncio.gather(*(node.x509.sign(node.entries[name]) for name in NAMES))
    server.failing = grpc.StatusCode.UNAVAILABLE
    return dict(zip(NAMES, svids, strict=True))


@asynccontextmanager
async def restarted(server: FakeSpireServer, folder: Path, **changes: object) -> AsyncIterator[tuple[SpireNode, list]]:
    """The node's next run, and which files it could not use."""
    with capture_logs() as lines:
        async with node_of(server, folder, **changes) as node:
            unusable = [each["file"] for each in lines if each["event"] == "node_kept_unusable"]
            yield node, unusable


def files(folder: Path) -> dict[str, Path]:
    return {each.name.removesuffix(".sealed"): each for each in (folder / "node").iterdir()}


def svid_files(folder: Path) -> list[Path]:
    return [path for name, path in sorted(files(folder).items()) if name.startswith("svids-")]


class TestRestart:
    async def test_all_is_there(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """After a restart without a server the node has its own SVID, entries, bundle and the workloads' SVIDs."""
        before = await signed(server, tmp_path)
        async with restarted(server, tmp_path) as (node, unusable):
            assert [] == unusable
            assert set(NAMES) == set(node.entries)
            assert node.svid is not None
            assert {server.root_id, "k1"} == node.vouching.ids
            for name in NAMES:
                assert before[name].chain == (await node.x509.sign(node.entries[name])).chain

    async def test_each_is_given_once(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Whoever asks for another SVID than the kept one gets one that was signed now."""
        await signed(server, tmp_path)
        async with restarted(server, tmp_path) as (node, _):
            await node.x509.sign(node.entries["a"])
            with pytest.raises(UpstreamUnavailable):
                await node.x509.sign(node.entries["a"])

    async def test_one_that_should_be_renewed(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A kept SVID that is past its renewal is given if no other can be had; past its end it is not."""
        before = await signed(server, tmp_path)
        clock = ShiftedClock()
        clock.ahead = timedelta(minutes=50)
        async with restarted(server, tmp_path, clock=clock) as (node, _):
            assert before["a"].chain == (await node.x509.sign(node.entries["a"])).chain
        clock.ahead = timedelta(minutes=61)
        async with restarted(server, tmp_path, clock=clock) as (node, _):
            with pytest.raises(Unavailable, match="own SVID has ended"):
                await node.x509.sign(node.entries["b"])

    @pytest.mark.full
    async def test_a_server_that_does_not_answer(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A kept SVID that is past its renewal is given soon, although the server hangs."""
        before = await signed(server, tmp_path)
        server.failing = None
        monkeypatch.setattr("sojourn.upstream.signers.UPSTREAM_KEPT_WAIT_SECONDS", 0.1)
        clock = ShiftedClock()
        clock.ahead = timedelta(minutes=50)
        async with restarted(server, tmp_path, clock=clock) as (node, _):
            server.delay = 2.0
            assert before["a"].chain == (await node.x509.sign(node.entries["a"])).chain

    async def test_an_entry_that_has_changed(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A kept SVID is not given for an entry that is another by now."""
        before = await signed(server, tmp_path)
        server.failing = None
        server.register("a")
        async with restarted(server, tmp_path) as (node, _):
            await node.sync()
            assert before["a"].chain != (await node.x509.sign(node.entries["a"])).chain

    async def test_an_authority_that_was_tainted(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A kept SVID is not given if its authority is tainted, which is known over restarts."""
        async with node_of(server, tmp_path) as node:
            await node.x509.sign(node.entries["a"])
            server.tainted = {server.root_id}
            await node.sync()
        server.failing = grpc.StatusCode.UNAVAILABLE
        async with restarted(server, tmp_path) as (node, _):
            with pytest.raises(UpstreamUnavailable):
                await node.x509.sign(node.entries["a"])

    async def test_so_many(self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No more SVIDs are kept than may be, and room that an entry leaves is used."""
        monkeypatch.setattr(node_keep, "UPSTREAM_KEPT_SVIDS", 2)
        async with node_of(server, tmp_path) as node:
            for name in NAMES:
                await node.x509.sign(node.entries[name])
            del server.entries["a"]
            await node.sync()
            await node.x509.sign(node.entries["c"])
        server.failing = grpc.StatusCode.UNAVAILABLE
        async with restarted(server, tmp_path) as (node, _):
            await asyncio.gather(*(node.x509.sign(node.entries[name]) for name in "bc"))
        assert len(svid_files(tmp_path)) == 2

    async def test_entries_alone(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """With `keep = "entries"` the SVIDs of workloads are not kept, and those of before are removed."""
        await signed(server, tmp_path)
        assert svid_files(tmp_path)
        async with restarted(server, tmp_path, keep="entries") as (node, _):
            assert set(NAMES) == set(node.entries)
            assert [] == svid_files(tmp_path)

    async def test_another_bundle_of_the_operator_s(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """An operator who has given another bundle has the server verified by that one."""
        await signed(server, tmp_path)
        async with FakeSpireServer() as other:
            async with restarted(server, tmp_path, bootstrap=other.bundle) as (node, _):
                assert node.trusted.x509_der == other.bundle.x509_der
                assert node.bundle.x509_der == server.bundle.x509_der
            async with restarted(server, tmp_path) as (node, _):
                assert node.trusted.x509_der == server.bundle.x509_der


class TestFiles:
    async def test_modes_and_secrets(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """The folder and its files are this user's alone, and no key and no SPIFFE ID stands in them in clear."""
        before = await signed(server, tmp_path)
        assert 0o700 == stat.S_IMODE((tmp_path / "node").stat().st_mode)
        for path in files(tmp_path).values():
            assert 0o600 == stat.S_IMODE(path.stat().st_mode)
            content = path.read_bytes()
            assert b"spiffe://" not in content
            assert all(svid.key_der[-32:] not in content for svid in before.values())

    @pytest.mark.parametrize("name", ["node", "bundles", "entries"])
    @pytest.mark.parametrize("fault", ["cut", "empty", "changed", "foreign"])
    async def test_a_file_that_is_not_good(
        self, server: FakeSpireServer, tmp_path: Path, name: str, fault: str
    ) -> None:
        """A file that was cut, changed or brought from elsewhere is told and left out, and the node starts."""
        await signed(server, tmp_path)
        path = files(tmp_path)[name]
        content = path.read_bytes()
        spoilt = {
            "cut": content[: len(content) // 2],
            "empty": b"",
            "changed": content[:-1] + bytes([content[-1] ^ 1]),
            "foreign": os.urandom(len(content)),
        }[fault]
        path.write_bytes(spoilt)
        async with restarted(server, tmp_path) as (node, unusable):
            assert [name] == unusable
            assert (set() if name in {"node", "entries"} else set(NAMES)) == set(node.entries)

    async def test_files_that_were_swapped(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """What is in one file's place is not believed in another's, though it is sealed with the same key."""
        await signed(server, tmp_path)
        one, other, *_ = svid_files(tmp_path)
        held = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(held)
        async with restarted(server, tmp_path) as (_, unusable):
            assert {one.name, other.name} == {f"{each}.sealed" for each in unusable}

    async def test_another_node_s(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """The entries of another node are not taken, though its files are sealed with the same key."""
        await signed(server, tmp_path)
        entries = files(tmp_path)["entries"]
        held = entries.read_bytes()
        files(tmp_path)["node"].unlink()
        server.failing = None
        for name in NAMES:
            del server.entries[name]
        server.agent_path = "/spire/agent/join_token/other"
        async with node_of(server, tmp_path) as node:
            assert node.spiffe_id is not None
        entries.write_bytes(held)
        server.failing = grpc.StatusCode.UNAVAILABLE
        async with restarted(server, tmp_path) as (node, unusable):
            assert "entries" in unusable
            assert {} == node.entries

    async def test_without_its_key(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Files whose key is gone are worth nothing."""
        await signed(server, tmp_path)
        files(tmp_path)["seal.key"].unlink()
        async with restarted(server, tmp_path) as (node, unusable):
            assert "node" in unusable
            assert node.spiffe_id is None

    async def test_a_key_that_others_could_have_read(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A node does not start by a key that others could have read."""
        await signed(server, tmp_path)
        files(tmp_path)["seal.key"].chmod(0o644)
        with pytest.raises(CannotStart, match="can be read by others"):
            async with node_of(server, tmp_path):
                pass

    async def test_another_trust_domain(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """What was kept in another trust domain is not taken."""
        await signed(server, tmp_path)
        async with FakeSpireServer(domain="other.example") as other:
            other.failing = grpc.StatusCode.UNAVAILABLE
            async with restarted(other, tmp_path) as (node, unusable):
                assert "node" in unusable
                assert {} == node.entries

    async def test_ended_while_it_writes(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A node that is ended while its own SVID is being written has it on disk all the same."""
        write, begun = SealedFiles.write, threading.Event()

        def slow(self: SealedFiles, name: str, content: bytes) -> None:
            begun.set()
            time.sleep(0.2)
            write(self, name, content)

        clock = ShiftedClock()
        async with node_of(server, tmp_path, clock=clock) as node:
            assert node.svid is not None
            before = node.svid.serial
            clock.ahead = timedelta(minutes=31)
            monkeypatch.setattr(SealedFiles, "write", slow)
            running = asyncio.ensure_future(node.run())
            while not begun.is_set():
                await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.wait({running})
        monkeypatch.undo()
        assert 1 == server.calls.count("RenewAgent")
        server.failing = grpc.StatusCode.UNAVAILABLE
        async with restarted(server, tmp_path, clock=clock) as (again, unusable):
            assert [] == unusable
            assert again.svid is not None
            assert before != again.svid.serial

    async def test_a_disk_that_takes_nothing(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A node whose disk is full serves on, says so once, and has all on disk when there is room again."""

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch, capture_logs() as lines:
            patch.setattr("sojourn.files.atomic.write", full)
            async with node_of(server, tmp_path) as node:
                await node.x509.sign(node.entries["a"])
                patch.undo()
        assert ["node_not_kept"] == [each["event"] for each in lines if each["event"] == "node_not_kept"]
        async with restarted(server, tmp_path) as (node, _):
            assert set(NAMES) == set(node.entries)

    async def test_a_disk_that_is_nearly_full(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The node's own SVID is written although other files have no room, and they do not keep each other off."""
        write = SealedFiles.write

        def tight(files: SealedFiles, name: str, content: bytes) -> None:
            if name == "entries":
                raise OSError(28, "No space left on device")
            if name == "bundles":
                raise ValueError("a fault that nobody foresaw")
            write(files, name, content)

        clock = ShiftedClock()
        with monkeypatch.context() as patch:
            patch.setattr(SealedFiles, "write", tight)
            async with node_of(server, tmp_path, clock=clock) as node:
                await node.x509.sign(node.entries["a"])
                await node._keep._write()  # what fails is put back: it stands before what is new
                clock.ahead = timedelta(minutes=31)
                await node.sync()
                assert 1 == server.calls.count("RenewAgent")
                assert {"node", "seal.key"} <= set(files(tmp_path))
                assert node.svid is not None
                newest = node.svid.serial
        assert svid_files(tmp_path)
        assert "entries" not in files(tmp_path)
        server.failing = grpc.StatusCode.UNAVAILABLE
        async with restarted(server, tmp_path, clock=clock) as (again, _):
            assert again.svid is not None
            assert newest == again.svid.serial

    async def test_own_svid_is_first(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The node's own SVID is written before what has waited for longer."""
        names: list[str] = []
        write = SealedFiles.write

        def noted(files: SealedFiles, name: str, content: bytes) -> None:
            names.append(name)
            write(files, name, content)

        clock = ShiftedClock()
        async with node_of(server, tmp_path, clock=clock) as node:
            await node._keep._write()
            monkeypatch.setattr(SealedFiles, "write", noted)
            node._keep.keep_entries(node._given.authorized)
            clock.ahead = timedelta(minutes=31)
            await node.sync()
        assert ["node", "entries"] == names[:2]


class TestOfNobody:
    """Keys of workloads do not stay on disk where they are of no use."""

    @pytest.mark.parametrize("keep", ["svids", "entries"])
    async def test_the_node_s_own_is_lost(self, server: FakeSpireServer, tmp_path: Path, keep: str) -> None:
        """A node that joins anew, as what it kept is lost, keeps no SVIDs of before."""
        await signed(server, tmp_path)
        files(tmp_path)["node"].unlink()
        server.failing = None
        async with restarted(server, tmp_path, keep=keep) as (node, _):
            assert node.spiffe_id is not None
            assert [] == svid_files(tmp_path)

    async def test_another_node_s(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A file with SVIDs of another node is removed."""
        await signed(server, tmp_path)
        foreign = {path: path.read_bytes() for path in svid_files(tmp_path)}
        files(tmp_path)["node"].unlink()
        server.failing, server.agent_path = None, "/spire/agent/join_token/other"
        async with restarted(server, tmp_path):
            pass
        for path, content in foreign.items():
            path.write_bytes(content)
            path.chmod(0o600)
        async with restarted(server, tmp_path) as (node, unusable):
            assert {path.name.removesuffix(".sealed") for path in foreign} == set(unusable)
            assert [] == svid_files(tmp_path)
            assert node.spiffe_id is not None
