"""unix.py: who runs a process, and which program it runs. Processes and files are real."""

import asyncio
import contextlib
import grp
import hashlib
import os
import pwd
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from fakes.children import child
from sojourn.errors import AttestationFailed, InvalidConfig
from sojourn.limits import ATTESTATIONS_PER_UID
from sojourn_attestors import unix
from sojourn_attestors.unix import Digests, UnixAttestor


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def program(tmp_path):
    """A program of our own, `sleep` under another name."""
    path = tmp_path / "my program"
    shutil.copy(shutil.which("sleep"), path)
    return path


@pytest.fixture
def running(program):
    with child(str(program), "60") as process:
        yield process


def subject(pid, **changes):
    fields = {"pid": pid, "uid": os.geteuid(), "gid": os.getegid(), "groups": frozenset(os.getgroups())}
    return SimpleNamespace(**{**fields, **changes})


def kinds(answer):
    return {value.partition(":")[0] for value in answer.values}


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestIdentity:
    async def test_ids_and_names(self, pool, running):
        """User, group and further groups are given by number and by name."""
        answer = await UnixAttestor({}, pool).attest(subject(running.pid, groups=frozenset({0})))
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
        assert {
            f"uid:{os.geteuid()}",
            f"user:{user}",
            f"gid:{os.getegid()}",
            f"group:{group}",
            "supplementary_gid:0",
            f"supplementary_group:{grp.getgrgid(0).gr_name}",
        } <= answer.values

    async def test_ids_without_name(self, pool, running):
        """An id without a name is given by number, and the name is said to be missing."""
        answer = await UnixAttestor({}, pool).attest(subject(running.pid, uid=54321, gid=54321, groups=frozenset()))
        assert {"uid:54321", "gid:54321"} <= answer.values
        assert {"user", "group"} <= set(answer.withheld)
        assert not {"user", "group"} & kinds(answer)

    @pytest.mark.parametrize("mapped", [True, False])
    async def test_the_overflow_id(self, pool, running, mapped):
        """Where not all ids are mapped, 65534 stands for anyone, and is no selector."""
        attestor = UnixAttestor({}, pool)
        attestor._all_ids_mapped = mapped
        answer = await attestor.attest(subject(running.pid, uid=65534))
        assert mapped is ("uid:65534" in answer.values)
        assert mapped is not ("uid" in answer.withheld)


class TestProgram:
    async def test_path_and_digest(self, pool, program, running):
        """The program is given by the path at which this host has it, and by its digest."""
        answer = await UnixAttestor({}, pool).attest(subject(running.pid))
        assert {f"path:{program}", f"sha256:{digest_of(program)}"} <= answer.values
        assert not {"path", "sha256"} & set(answer.withheld)

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"path": False}, {"sha256"}),
            ({"sha256": False}, {"path"}),
            ({"path": False, "sha256": False}, set()),
        ],
    )
    async def test_settings(self, pool, running, settings, expected):
        """What is switched off is not given."""
        answer = await UnixAttestor(settings, pool).attest(subject(running.pid))
        assert expected == kinds(answer) & {"path", "sha256"}

    @pytest.mark.parametrize("how", ["deleted", "replaced", "link"])
    async def test_another_file_at_the_path(self, pool, program, running, how, tmp_path):
        """A program that was deleted or replaced after its start has no path; its digest is of what runs."""
        digest = digest_of(program)
        program.unlink()
        if how == "replaced":
            program.write_bytes(b"another")
        elif how == "link":
            shutil.copy(shutil.which("sleep"), tmp_path / "copy")
            program.symlink_to(tmp_path / "copy")
        answer = await UnixAttestor({}, pool).attest(subject(running.pid))
        assert f"sha256:{digest}" in answer.values
        assert "path" not in kinds(answer)
        assert "deleted or replaced" in answer.withheld["path"]

    async def test_a_name_that_ends_like_a_deleted_one(self, pool, tmp_path):
        """A program whose name ends with ` (deleted)` is what it is."""
        path = tmp_path / "x (deleted)"
        shutil.copy(shutil.which("sleep"), path)
        with child(str(path), "60") as process:
            answer = await UnixAttestor({}, pool).attest(subject(process.pid))
        assert f"path:{path}" in answer.values

    async def test_another_mount_namespace(self, pool, running, monkeypatch):
        """A process in another mount namespace has no path: there it could be forged."""
        real = os.readlink
        monkeypatch.setattr(
            unix.os, "readlink", lambda path: "mnt:[1]" if str(path).endswith(f"{running.pid}/ns/mnt") else real(path)
        )
        answer = await UnixAttestor({}, pool).attest(subject(running.pid))
        assert ("path" not in kinds(answer), "sha256" in kinds(answer)) == (True, True)
        assert "namespace" in answer.withheld["path"]

    async def test_no_privilege(self, pool, running, monkeypatch):
        """Where the agent may not look, path and digest are withheld, with what it takes."""
        real = os.open

        def refuse(path, *arguments):
            if str(path).endswith("/exe"):
                raise PermissionError(13, "no")
            return real(path, *arguments)

        monkeypatch.setattr(unix.os, "open", refuse)
        answer = await UnixAttestor({"path": False}, pool).attest(subject(running.pid))
        assert ({"sha256"}, True) == (set(answer.withheld) & {"path", "sha256"}, "uid" in kinds(answer))
        assert "CAP_SYS_PTRACE" in answer.withheld["sha256"]

    async def test_gone(self, pool, running):
        """For a process that has gone it cannot be told: that is an error and not an empty answer."""
        running.kill()
        running.wait()
        with pytest.raises(AttestationFailed, match="the program cannot be read"):
            await UnixAttestor({}, pool).attest(subject(running.pid))

    async def test_one_users_slow_programs(self, pool, running, monkeypatch):
        """While programs of a user are still being read, though nobody waits any more, that user gets no more threads."""
        going_on = threading.Event()
        monkeypatch.setattr(UnixAttestor, "_program", lambda *_: going_on.wait(20))
        attestor = UnixAttestor({}, pool)
        for _ in range(ATTESTATIONS_PER_UID):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await attestor.attest(subject(running.pid))
        with pytest.raises(AttestationFailed, match="still being read"):
            await attestor.attest(subject(running.pid))
        going_on.set()
        async with asyncio.timeout(10):
            assert await attestor.attest(subject(running.pid, uid=77)) is not None
            while attestor._reading:
                await asyncio.sleep(0.01)
            assert await attestor.attest(subject(running.pid)) is not None

    async def test_descriptors(self, pool, running):
        """Looking at a program leaves no descriptor behind."""
        attestor = UnixAttestor({}, pool)
        await attestor.attest(subject(running.pid))
        before = len(os.listdir("/proc/self/fd"))
        await attestor.attest(subject(running.pid))
        assert before == len(os.listdir("/proc/self/fd"))


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "faults"),
        [({"colour": True}, 1), ({"path": "yes"}, 1), ({"sha256": 1}, 1), ({"a": 1, "path": None}, 3)],
    )
    def test_faults(self, pool, settings, faults):
        """All that is wrong with the settings is told at once."""
        with pytest.raises(InvalidConfig) as caught:
            UnixAttestor(settings, pool)
        assert faults == len(caught.value.faults)


class TestDigests:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"x" * 3_000_000)
        descriptor = os.open(path, os.O_RDWR)
        yield descriptor
        os.close(descriptor)

    def test_of_a_file(self, file):
        """The digest is of the whole file."""
        assert (hashlib.sha256(b"x" * 3_000_000).hexdigest(), "") == Digests().of(file, os.fstat(file))

    def test_once(self, file, monkeypatch):
        """A file that did not change is read once."""
        digests = Digests()
        first = digests.of(file, os.fstat(file))
        monkeypatch.setattr(digests, "_compute", lambda *_: pytest.fail("read again"))
        assert first == digests.of(file, os.fstat(file))

    def test_again_when_it_changed(self, file):
        """A file that was written to has another digest."""
        digests = Digests()
        first = digests.of(file, os.fstat(file))
        os.pwrite(file, b"y", 0)
        os.utime(file, ns=(1, 1))
        assert first != digests.of(file, os.fstat(file))

    def test_written_to_meanwhile(self, file, monkeypatch):
        """A file that is written to while it is read has no digest."""
        digests = Digests()
        real = digests._compute

        def write(descriptor, size):
            os.ftruncate(descriptor, 10)
            return real(descriptor, size)

        monkeypatch.setattr(digests, "_compute", write)
        assert ("", "the program was written to while it was read") == digests.of(file, os.fstat(file))
        assert {} == digests._kept

    def test_too_large(self, file, monkeypatch):
        """A file beyond the limit is not read."""
        monkeypatch.setattr(unix, "PROGRAM_MAX_BYTES", 10)
        digest, reason = Digests().of(file, os.fstat(file))
        assert ("", True) == (digest, "larger" in reason)

    def test_not_a_file(self):
        """What is no regular file is not read."""
        reader, writer = os.pipe()
        digest, reason = Digests().of(reader, os.fstat(reader))
        assert ("", "the program is not a regular file") == (digest, reason)
        os.close(reader)
        os.close(writer)

    def test_a_bounded_number_is_kept(self, tmp_path, monkeypatch):
        """Of all digests a bounded number is kept."""
        monkeypatch.setattr(unix, "PROGRAM_DIGESTS_KEPT", 2)
        digests = Digests()
        for number in range(4):
            path = tmp_path / str(number)
            path.write_bytes(bytes([number]))
            with path.open("rb") as file:
                digests.of(file.fileno(), os.fstat(file.fileno()))
        assert 2 == len(digests._kept)

    @pytest.mark.parametrize(
        "how",
        [
            "well",
            pytest.param("written to"),
            pytest.param("unreadable"),
        ],
    )
    def test_nothing_but_the_digest_is_kept(self, file, monkeypatch, how):
        """However computing a digest went, nothing else is left of it."""
        digests = Digests()

        def compute(descriptor, _size):
            if how == "written to":
                os.ftruncate(descriptor, 10)
            if how == "unreadable":
                raise OSError(5, "Input/output error")
            return "x"

        monkeypatch.setattr(digests, "_compute", compute)
        with contextlib.suppress(OSError):
            digests.of(file, os.fstat(file))
        assert {} == digests._computing

    def test_side_by_side(self, file, monkeypatch):
        """Whoever asks for a digest that is being computed waits for it instead of computing it too."""
        digests, computed, begun, go_on = Digests(), [], threading.Event(), threading.Event()

        def slow(*_):
            computed.append(1)
            begun.set()
            go_on.wait(20)
            return "x"

        monkeypatch.setattr(digests, "_compute", slow)
        with ThreadPoolExecutor(3) as pool:
            found = [pool.submit(digests.of, file, os.fstat(file)) for _ in range(3)]
            begun.wait(20)
            go_on.set()
            assert [("x", "")] * 3 == [each.result() for each in found]
        assert [1] == computed
