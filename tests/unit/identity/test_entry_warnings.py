"""entry_warnings.py and program_files.py: what whoever registers an entry should know."""

import asyncio
import hashlib
import os
import shutil
import threading

import pytest
from fakes.registrations import NODE, OTHER_NODE, entry
from sojourn.identity import program_files
from sojourn.identity.entries import Registration
from sojourn.identity.entry_warnings import by_digest, of_expiry, of_selectors
from sojourn.identity.program_files import Cautions
from sojourn.identity.templates import parse_id

TYPES = frozenset({"unix", "docker", "k8s"})
DIGEST = "sha256:" + "a" * 64
REAL_SHELL = os.path.realpath("/bin/sh")


@pytest.fixture
def looking():
    return Cautions(TYPES, [NODE])


async def of(looking, *selectors, **changes):
    [found] = await looking.of([entry("/a", *selectors, **changes)])
    return found


@pytest.fixture
def program(tmp_path):
    """A program of nobody's but its owner's."""
    path = tmp_path / "program"
    shutil.copyfile("/bin/true", path)
    path.chmod(0o700)
    return path


class TestSelectors:
    @pytest.mark.parametrize(
        ("selector", "says"),
        [
            ("systemd:id:a.service", "configuration has [attestors.systemd] no process matches"),
            ("unix:uid:65534", "shown for every id that cannot be mapped"),
            ("unix:gid:65534", "shown for every id that cannot be mapped"),
            ("unix:supplementary_gid:65534", "shown for every id that cannot be mapped"),
            ("unix:user:nobody", "shown for every id that cannot be mapped"),
            ("unix:group:nogroup", "shown for every id that cannot be mapped"),
            ("unix:script_path:/a.py", "vouches for no script"),
            ("unix:script_sha256:0", "vouches for no script"),
            ("unix:path:web", "such a selector is unix:path: and /ABSOLUTE/PATH"),
            ("docker:image_id:web:1", "can be moved to another image: ask for docker:image_digest"),
            ("docker:rootless:1000:image_id:web", "can be moved to another image"),
            (f"docker:image_id:web@{DIGEST}0", "can be moved to another image"),
            ("k8s:container-image:web:1", "can be moved to another image: ask for the image by its digest"),
            ("k8s:pod-image:web", "can be moved to another image"),
        ],
    )
    def test_that_mislead(self, selector, says):
        """A selector that nothing has, that unrelated processes share, or that can be moved, is told, once."""
        [found] = of_selectors(entry("/a", "unix:uid:1000", selector), TYPES)
        assert says in found
        assert found.isprintable()

    @pytest.mark.parametrize(
        "selector",
        [
            *("unix:uid:6553", "unix:uid:655340", "unix:user:nobody2", "unix:path:/a", "docker:label:image_id:web"),
            *(f"docker:image_id:web@{DIGEST}", f"docker:image_id:{DIGEST}", f"docker:image_digest:web@{DIGEST}"),
            *(f"k8s:container-image:registry.example.org/web@{DIGEST}", "k8s:pod-image-count:2"),
        ],
    )
    def test_that_do_not(self, selector):
        """Of selectors that need no caution nothing is said."""
        assert [] == of_selectors(entry("/a", selector), TYPES)

    @pytest.mark.parametrize("type_", ["kubernetes", "podman"])
    def test_a_type_of_nobody(self, type_):
        """A type that no attestor of Sojourn's has is told, with those that there are, and no table that is refused."""
        [found] = of_selectors(entry("/a", f"{type_}:a:b"), TYPES)
        assert "Sojourn's own are docker, k8s, systemd, unix" in found
        assert "[" not in found

    def test_an_end_that_has_passed(self):
        """An entry that is over when it is made is told; one that ends later, or never, is not."""
        [found] = of_expiry(entry("/a", "unix:uid:1", expires_at=999), 1000.0)
        assert "expired already" in found
        assert [] == of_expiry(entry("/a", "unix:uid:1", expires_at=1001), 1000.0)
        assert [] == of_expiry(entry("/a", "unix:uid:1"), 1000.0)

    def test_a_placeholder_of_nothing(self):
        """A template that asks for a kind of selectors that there is not is told."""
        made = entry("/a", "k8s:ns:a")
        template = parse_id("spiffe://example.org/{k8s.namespace}/{k8s.ns}")
        [found] = of_selectors(Registration(made.id, template, made.parent_id, made.selectors), TYPES)
        assert found.startswith("{k8s.namespace}: no process matches")

    def test_each_type_once(self):
        """A type that no attestor gives is told once, however many selectors have it."""
        assert 2 == len(of_selectors(entry("/a", "x:1", "x:2", "y:1", "unix:uid:1"), TYPES))

    @pytest.mark.parametrize("image", ["web", "web:latest", "sha256:", "web@sha256:zz", f"{DIGEST}\n"])
    def test_what_is_no_digest(self, image):
        """Only a whole digest pins an image."""
        assert not by_digest(image)


class TestPaths:
    async def test_of_a_program(self, looking, program):
        """Of an ordinary program that is its owner's nothing is said."""
        assert [] == await of(looking, f"unix:path:{program}")

    async def test_a_link(self, looking, program, tmp_path):
        """A path that is a link, or below one, is told with the path that matches."""
        (tmp_path / "link").symlink_to(program)
        (tmp_path / "folder").symlink_to(tmp_path)
        for path in (tmp_path / "link", tmp_path / "folder" / "program", f"{tmp_path}/./program", f"/{program}"):
            [found] = await of(looking, f"unix:path:{path}")
            assert found.endswith(f"unix:path:{program}")

    @pytest.mark.parametrize(
        ("path", "says"),
        [
            ("/nowhere/at/all", "cannot be looked at: No such file"),
            ("/usr", "is not a regular file"),
            ("/" + "x" * 300, "cannot be looked at: File name too long"),
        ],
    )
    async def test_what_is_no_program(self, looking, path, says):
        """What is not there, or is no file, is told."""
        [found] = await of(looking, f"unix:path:{path}")
        assert says in found

    async def test_an_interpreter(self, looking):
        """A path that is an interpreter's is told, whatever else is asked for."""
        [found] = await of(looking, f"unix:path:{REAL_SHELL}", "unix:uid:1000")
        assert "is an interpreter" in found

    @pytest.mark.parametrize(
        "name",
        [
            *("python", "python3", "python3.11", "perl5.36.0", "perl5.36-x86_64-linux-gnu", "node", "lua5.4", "bash"),
            *("busybox", "guile-3.0", "qemu-x86_64-static", "ld-linux-x86-64.so.2", "ld-musl-x86_64.so.1", "java"),
        ],
    )
    def test_names_of_interpreters(self, name):
        """Interpreters are known by their names, with versions, and so is the loader, which runs any program."""
        assert program_files._INTERPRETER.fullmatch(name)

    @pytest.mark.parametrize("name", ["shutdown", "nodeagent", "python-agent", "javascript", "phpd", "awkward", "led"])
    def test_names_like_theirs(self, name):
        """A program whose name only begins like one is none."""
        assert not program_files._INTERPRETER.fullmatch(name)

    async def test_what_anybody_may_run(self, looking, program):
        """A program that any user may run is told if nothing else is asked for."""
        program.chmod(0o755)
        [found] = await of(looking, f"unix:path:{program}")
        assert "any user can run it" in found
        assert [] == await of(looking, f"unix:path:{program}", "unix:uid:1000")

    async def test_what_others_may_write(self, looking, program):
        """A program that others than its owner may write is told."""
        program.chmod(0o720)
        [found] = await of(looking, f"unix:path:{program}")
        assert "can write it" in found


class TestDigests:
    async def test_of_an_interpreter(self, looking):
        """The digest of an interpreter of this machine is told, with its path."""
        with open(REAL_SHELL, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        [found] = await of(looking, f"unix:sha256:{digest}", "unix:uid:1000")
        assert "is an interpreter, /" in found

    async def test_of_another_program(self, looking):
        """Of another digest that is said which any user may make use of, if nothing else is asked for."""
        selector = f"unix:sha256:{'0' * 64}"
        [found] = await of(looking, selector)
        assert "any user may run a copy" in found
        assert [] == await of(looking, selector, "unix:uid:1000")

    async def test_are_read_once(self, looking, monkeypatch):
        """Interpreters that have not changed are not read again."""
        await of(looking, f"unix:sha256:{'0' * 64}", "unix:uid:1")
        assert looking._digests
        monkeypatch.setattr(program_files, "_sha256", lambda path: pytest.fail(f"read {path} again"))
        await of(looking, f"unix:sha256:{'0' * 64}", "unix:uid:1")


class TestManner:
    async def test_of_another_node(self, looking):
        """Of an entry that another node serves nothing is said: what is there is not known here."""
        assert [] == await of(looking, "x:1", "unix:path:/nowhere", parent_id=OTHER_NODE)

    async def test_each_its_own(self, looking):
        """Of many entries each has its own, in their order."""
        found = await looking.of(
            [entry("/a", "x:1"), entry("/b", "unix:uid:1"), entry("/c", "unix:path:/nowhere", "unix:uid:65534")]
        )
        assert [1, 0, 2] == [len(each) for each in found]

    async def test_files_that_do_not_answer(self, looking, monkeypatch):
        """A file system that stands still keeps nobody waiting: not the first for long, nor the next at all."""
        monkeypatch.setattr(program_files, "CAUTIONS_SECONDS", 0.05)
        answering = threading.Event()
        monkeypatch.setattr(program_files, "_of_path", lambda path, *, anybody: answering.wait() and ["looked"])
        told = [await of(looking, "unix:path:/a", "unix:uid:1") for _ in range(2)]
        assert {"its program was not looked at: the files of this machine do not answer"} == {text for [text] in told}
        assert 1 == sum(thread.name == "cautions" for thread in threading.enumerate())
        monkeypatch.setattr(program_files, "CAUTIONS_SECONDS", 20)
        answering.set()
        async with asyncio.timeout(20):
            while await of(looking, "unix:path:/a", "unix:uid:1") != ["looked"]:
                await asyncio.sleep(0)

    async def test_several_at_once(self, looking):
        """Callers who ask at once for what is to be looked up wait for each other."""
        found = await asyncio.gather(*(of(looking, "unix:path:/nowhere", "unix:uid:1") for _ in range(20)))
        assert {1} == {len(each) for each in found}

    async def test_whatever_goes_wrong(self, looking, monkeypatch):
        """What nobody foresaw is logged, and keeps nobody from registering."""
        monkeypatch.setattr(program_files, "_of_path", lambda path, *, anybody: 1 / 0)
        assert [] == await of(looking, "unix:path:/a", "unix:uid:1")
