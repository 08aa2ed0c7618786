"""`sojourn bundle publish`: the documents as files. A real agent, and a real folder."""

import functools
import http.server
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness.agent import COMMAND, AgentProcess
from harness.looking import until
from harness.trusting import BUNDLE, DISCOVERY, ISSUER, KEYS, read, trust_agent

NAMES = {".well-known/openid-configuration": DISCOVERY, "keys": KEYS, "bundle.json": BUNDLE}


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with trust_agent(more="[authority]\nrs256 = true\n") as running:
        yield running


def tree(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


def marks(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes when a file is written."""
    return {name: ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) for name in tree(folder)}


def test_what_is_written(agent: AgentProcess, tmp_path: Path) -> None:
    """The files are what the listener serves, readable by a web server, and it is told where each belongs."""
    told = agent.json("bundle", "publish", "--to", str(tmp_path / "site"))
    assert set(NAMES) == tree(tmp_path / "site")
    for name, path in NAMES.items():
        file = tmp_path / "site" / name
        assert (read(agent, path), 0o644, 0o755) == (
            json.loads(file.read_bytes()),
            file.stat().st_mode & 0o777,
            file.parent.stat().st_mode & 0o777,
        )
    assert {f"{ISSUER}/{name}" for name in NAMES} == {each["url"] for each in told["files"]}
    assert all(each["changed"] and each["max_age"] > 0 for each in told["files"])
    pretty = agent.run("bundle", "publish", "--to", str(tmp_path / "site")).stdout
    assert (True, True) == (f"{ISSUER}/keys" in pretty, "unchanged" in pretty)


@pytest.mark.parametrize(
    ("format_", "names"), [("all", set(NAMES)), ("oidc", set(NAMES) - {"bundle.json"}), ("spiffe", {"bundle.json"})]
)
def test_some_of_them(agent: AgentProcess, tmp_path: Path, format_: str, names: set[str]) -> None:
    """Only what is asked for is written."""
    agent.run("bundle", "publish", "--to", str(tmp_path), "--format", format_)
    assert names == tree(tmp_path)


def test_unchanged_files_stay(agent: AgentProcess, tmp_path: Path) -> None:
    """What is as it should be is not written again, so that what copies changes copies none; what is not is mended."""
    agent.run("bundle", "publish", "--to", str(tmp_path))
    before = marks(tmp_path)
    assert not any(each["changed"] for each in agent.json("bundle", "publish", "--to", str(tmp_path))["files"])
    assert before == marks(tmp_path)
    (tmp_path / "keys").write_text("{}")
    agent.json("bundle", "publish", "--to", str(tmp_path))
    assert read(agent, KEYS) == json.loads((tmp_path / "keys").read_text())
    (name,) = [name for name, mark in marks(tmp_path).items() if mark != before[name]]
    assert "keys" == name


@pytest.mark.parametrize("url", [ISSUER + "/", ISSUER + "/x", "http://sojourn.example.org", "https://bucket.example"])
def test_issuer_that_is_not_there(agent: AgentProcess, tmp_path: Path, url: str) -> None:
    """If the folder will be served elsewhere than the issuer, that is said with what to set, and nothing is written."""
    done = agent.run("bundle", "publish", "--to", str(tmp_path), "--issuer-url", url, check=False)
    assert (1, True, set()) == (done.returncode, "tasks.issuer" in done.stderr, tree(tmp_path))
    agent.run("bundle", "publish", "--to", str(tmp_path), "--issuer-url", ISSUER)
    assert set(NAMES) == tree(tmp_path)


class TestUnsafe:
    def refused(self, agent: AgentProcess, folder: Path, words: str) -> None:
        done = agent.run("bundle", "publish", "--to", str(folder), check=False)
        assert (2, True) == (done.returncode, words in done.stderr), done.stderr

    @pytest.mark.parametrize("mode", [0o777, 0o1777])
    def test_folder_of_everybody(self, agent: AgentProcess, tmp_path: Path, mode: int) -> None:
        """A folder into which others can write is refused: they would say whom outside parties trust."""
        (tmp_path / "site").mkdir()
        (tmp_path / "site").chmod(mode)
        self.refused(agent, tmp_path / "site", "can be written by others")
        assert set() == tree(tmp_path)

    def test_inner_folder_of_everybody(self, agent: AgentProcess, tmp_path: Path) -> None:
        """A folder with an inner folder into which others can write is refused."""
        (tmp_path / ".well-known").mkdir()
        (tmp_path / ".well-known").chmod(0o777)
        self.refused(agent, tmp_path, "can be written by others")

    @pytest.mark.root
    def test_folder_of_another(self, agent: AgentProcess, tmp_path: Path) -> None:
        """A folder of another user is refused."""
        (tmp_path / "site").mkdir()
        os.chown(tmp_path / "site", 4001, 4001)
        self.refused(agent, tmp_path / "site", "belongs to user 4001")

    def test_links(self, agent: AgentProcess, tmp_path: Path) -> None:
        """A link below the folder is followed neither to a file nor to a folder."""
        target, site = tmp_path / "target", tmp_path / "site"
        site.mkdir()
        target.write_text("mine")
        (site / "keys").symlink_to(target)
        self.refused(agent, site, "is not a file")
        (site / "keys").unlink()
        (tmp_path / "other").mkdir()
        (site / ".well-known").symlink_to(tmp_path / "other")
        self.refused(agent, site, "cannot write")
        assert ("mine", []) == (target.read_text(), os.listdir(tmp_path / "other"))

    def test_a_file_in_its_place(self, agent: AgentProcess, tmp_path: Path) -> None:
        """What is no folder is refused and left alone."""
        (tmp_path / "site").write_text("mine")
        self.refused(agent, tmp_path / "site", "cannot write")
        assert "mine" == (tmp_path / "site").read_text()


def test_no_agent(tmp_path: Path) -> None:
    """Without an agent the status is 3, and what is there stays."""
    done = subprocess.run(
        [*COMMAND, "bundle", "publish", "--to", str(tmp_path), "--admin-socket", str(tmp_path / "none.sock")],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (3, set()) == (done.returncode, tree(tmp_path))


@pytest.mark.forked
def test_watch(tmp_path: Path) -> None:
    """With --watch the files follow the agent's keys, over a restart of it, until Ctrl-C."""
    with trust_agent() as agent:
        site = tmp_path / "site"
        command = [*COMMAND, "bundle", "publish", "--to", str(site), "--watch", "--output", "json"]
        with subprocess.Popen(
            command, env=agent.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as watching:
            until(lambda: set(NAMES) <= tree(site), "the files are there")
            made = agent.json("authority", "prepare", "jwt")["authority_id"]
            until(lambda: made in (site / "keys").read_text(), "the new key is there", 30)
            agent.stop()
            agent.start()
            made = agent.json("authority", "prepare", "jwt")["authority_id"]
            until(lambda: made in (site / "keys").read_text(), "and the next one, after a restart", 30)
            until(lambda: made in (site / "bundle.json").read_text(), "in the bundle too, which is written after it")
            watching.send_signal(signal.SIGINT)
            assert 0 == watching.wait(timeout=60)


def test_a_static_server_will_do(agent: AgentProcess, tmp_path: Path) -> None:
    """Served by a plain web server the documents are at the paths at which they are looked for."""
    agent.run("bundle", "publish", "--to", str(tmp_path))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            for name, path in NAMES.items():
                url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
                assert read(agent, path) == httpx.get(url, trust_env=False, timeout=60).json()
        finally:
            server.shutdown()
            thread.join()
