"""The command's nouns, which are imported when they are asked for."""

import subprocess
import sys
from importlib import import_module

import pytest
from sojourn.cli import root

# What takes tens of milliseconds each to import, and no look at the agent needs.
HEAVY = {"cryptography", "joserfc", "sqlalchemy", "alembic", "structlog", "uvloop", "uvicorn", "starlette", "httpcore2"}
HEAVY |= {"rich", "cedarpy", "prometheus_client", "yaml"}


class TestNames:
    @pytest.mark.parametrize("name", root.COMMANDS)
    def test_help_without_importing_is_the_help(self, name):
        """What the overview says of a noun or a command is the beginning of what that says of itself."""
        said = root.COMMANDS[name].removesuffix(".")
        assert root.load(name).help.replace("\n", " ").startswith(said)

    def test_every_noun_is_in_the_table(self):
        """No module of the command has a noun that nobody can call."""
        modules = [import_module(f"sojourn.cli.{name}") for name in root.NOUNS]
        assert [True] * len(modules) == [hasattr(module, "app") for module in modules]


class TestLight:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("--help",),
            ("entry", "--help"),
            ("entry", "list", "--admin-socket", "/nonexistent/admin.sock"),
            ("status", "--admin-socket", "/nonexistent/admin.sock"),
            ("svid", "jwt", "--audience", "a", "--socket", "/nonexistent/agent.sock"),
        ],
        ids=" ".join,
    )
    def test_looking_loads_no_heavy_library(self, arguments):
        """What an operator calls again and again imports neither cryptography nor a library of the daemon's."""
        assert set() == {name for name in loaded_by(arguments) if name.partition(".")[0] in HEAVY}

    def test_one_noun_loads_no_other(self):
        """Of the command's nouns the one is imported that was asked for."""
        loaded = loaded_by(("entry", "list", "--admin-socket", "/nonexistent/admin.sock"))
        assert {"entry"} == {name for name in root.NOUNS if f"sojourn.cli.{name}" in loaded}

    def test_help_loads_no_grpc(self):
        """The overview needs no connection, and loads nothing that makes one."""
        assert set() == {"grpc", "asyncio", "google.protobuf"} & loaded_by(("--help",))


def loaded_by(arguments):
    """The names of all modules that a process has which ran the command."""
    code = (
        f"import sys\nsys.argv = {['sojourn', *arguments]!r}\nfrom sojourn.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit:\n    pass\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())
