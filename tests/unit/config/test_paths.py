"""Where sockets are looked for."""

import os
from pathlib import Path

import pytest
from sojourn.config import paths
from sojourn.errors import InvalidInput

NAMES = ("SOJOURN_SOCKET", "SOJOURN_ADMIN_SOCKET", "SPIFFE_ENDPOINT_SOCKET", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")
SERVICE = ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CONFIGURATION_DIRECTORY")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without any setting, on a machine without any agent."""
    for name in (*NAMES, *SERVICE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(paths, "SYSTEM_RUN", tmp_path / "run")
    monkeypatch.setattr(paths, "_USERS_RUN", tmp_path / "users")
    monkeypatch.setattr(paths, "_SYSTEM_CONFIG", tmp_path / "etc")


class TestOrder:
    def test_explicit_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is given comes before SOJOURN_SOCKET, which comes before SPIFFE_ENDPOINT_SOCKET."""
        monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///c")
        assert paths.public_socket() == "/c"
        monkeypatch.setenv("SOJOURN_SOCKET", "/b")
        assert paths.public_socket() == "/b"
        assert paths.public_socket("unix:/a") == "/a"

    def test_admin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The admin socket has a variable of its own, and SPIFFE's says nothing of it."""
        monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///c")
        assert paths.admin_socket().endswith("/sojourn/run/admin.sock")
        monkeypatch.setenv("SOJOURN_ADMIN_SOCKET", "unix:///d")
        assert paths.admin_socket() == "/d"

    def test_relative(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A plain relative path is of the working directory."""
        monkeypatch.chdir(tmp_path)
        assert str(tmp_path / "x.sock") == paths.public_socket("x.sock")

    @pytest.mark.parametrize("uri", ["unix:///a%20b", "unix:/a%20b"])
    def test_escaped(self, uri: str) -> None:
        """A URI's escapes are undone."""
        assert paths.public_socket(uri) == "/a b"

    @pytest.mark.parametrize(
        "uri", ["tcp://127.0.0.1:80", "http://x/y", "unix:relative", "unix://host/a", "unix:///a?b", "unix:///a#b"]
    )
    def test_bad_uri(self, uri: str) -> None:
        """A URI that is not unix:// and an absolute path is refused (Workload Endpoint 4)."""
        with pytest.raises(InvalidInput):
            paths.public_socket(uri)

    @pytest.mark.parametrize("uri", ["/plain/path", "tcp:127.0.0.1", "x"])
    def test_endpoint_is_a_uri(self, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
        """SPIFFE_ENDPOINT_SOCKET must be a URI."""
        monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", uri)
        with pytest.raises(InvalidInput):
            paths.public_socket()


class TestDefaults:
    def test_root(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Root's agent has the system's folders."""
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert (tmp_path / "run", Path("/var/lib/sojourn")) == (paths.default_run_dir(), paths.default_state_dir())
        assert str(tmp_path / "run" / "agent.sock") == paths.public_socket()

    def test_user(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A user's run folder is XDG_RUNTIME_DIR, else /run/user/UID, else one under the state folder."""
        home = tmp_path / "home" / ".local" / "state" / "sojourn"
        assert (home / "run", home) == (paths.default_run_dir(), paths.default_state_dir())
        (tmp_path / "users" / "1000").mkdir(parents=True)
        assert tmp_path / "users" / "1000" / "sojourn" == paths.default_run_dir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/runtime")
        monkeypatch.setenv("XDG_STATE_HOME", "/state")
        assert (Path("/runtime/sojourn"), Path("/state/sojourn")) == (
            paths.default_run_dir(),
            paths.default_state_dir(),
        )

    def test_relative_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A relative XDG folder is ignored, as XDG says."""
        monkeypatch.setenv("XDG_STATE_HOME", "state")
        assert tmp_path / "home" / ".local" / "state" / "sojourn" == paths.default_state_dir()

    def test_system_agent(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A user without an agent of their own finds the system's; with one, their own."""
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "mine"))
        own = tmp_path / "mine" / "sojourn" / "agent.sock"
        assert str(own) == paths.public_socket()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "agent.sock").touch()
        assert str(tmp_path / "run" / "agent.sock") == paths.public_socket()
        own.parent.mkdir(parents=True)
        own.touch()
        assert str(own) == paths.public_socket()

    def test_no_home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A user without a home finds the machine's agent; an agent of their own has to be told where."""

        def nowhere() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", nowhere)
        assert str(tmp_path / "run" / "agent.sock") == paths.public_socket()
        assert str(tmp_path / "run" / "admin.sock") == paths.admin_socket()
        with pytest.raises(InvalidInput, match="HOME or XDG_STATE_HOME"):
            paths.default_state_dir()


class TestService:
    """What systemd sets for a unit (systemd.exec(5))."""

    def test_folders_of_the_unit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In a unit the agent's data, sockets and configuration are in the unit's folders, whoever its user is."""
        for name, value in zip(SERVICE, ("/var/lib/x:/var/lib/y", "/run/x", "/etc/x"), strict=True):
            monkeypatch.setenv(name, value)
        for uid in (0, 1000):
            monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
            found = (paths.default_state_dir(), paths.agent_run_dir(), paths.config_dir())
            assert (Path("/var/lib/x"), Path("/run/x"), Path("/etc/x")) == found

    def test_clients_in_units(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A client in a unit of its own looks for the agent where it did: the unit's run folder is not the agent's."""
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "shop"))
        (tmp_path / "shop").mkdir()
        (tmp_path / "shop" / "agent.sock").touch()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "agent.sock").touch()
        assert str(tmp_path / "run" / "agent.sock") == paths.public_socket()

    @pytest.mark.parametrize("variable", SERVICE)
    def test_relative(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        """A folder that is not absolute is refused: the agent would keep its keys somewhere else than it is told."""
        monkeypatch.setenv(variable, "sojourn")
        asks = {
            "STATE_DIRECTORY": paths.default_state_dir,
            "RUNTIME_DIRECTORY": paths.agent_run_dir,
            "CONFIGURATION_DIRECTORY": paths.config_dir,
        }
        with pytest.raises(InvalidInput, match=variable):
            asks[variable]()

    def test_configuration_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The unit's agent.toml is read without being named, and else root's in /etc; a user's agent reads neither."""
        assert paths.default_config_file() is None
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert paths.default_config_file() is None
        for folder in ("etc", "unit"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "agent.toml").touch()
        assert tmp_path / "etc" / "agent.toml" == paths.default_config_file()
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert paths.default_config_file() is None
        monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path / "unit"))
        assert tmp_path / "unit" / "agent.toml" == paths.default_config_file()

    def test_a_file_that_is_meant_to_be_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A link that leads nowhere counts as there, so that reading it says why: it is not passed over."""
        monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path))
        (tmp_path / "agent.toml").symlink_to(tmp_path / "gone.toml")
        assert tmp_path / "agent.toml" == paths.default_config_file()
