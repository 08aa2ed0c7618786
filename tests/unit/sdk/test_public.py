"""The names of the package."""

import subprocess
import sys

import pytest
import sojourn


def test_names() -> None:
    """The public names are these, and each is there."""
    expected = [
        "Client",
        "Grant",
        "PersonRefused",
        "PersonToken",
        "Refused",
        "RemoteAgent",
        "SojournError",
        "SpiffeId",
        "SyncClient",
        "Task",
        "TaskOver",
        "TaskTokenMiddleware",
        "TaskVerifier",
        "TrustDomain",
        "WrongPerson",
        "X509Source",
        "acting_for",
        "acting_for_nobody",
        "authorize_any",
        "authorize_id",
        "authorize_member_of",
        "current_task",
        "task",
    ]
    assert expected == sojourn.__all__
    assert expected == [getattr(sojourn, name).__name__ for name in expected]
    assert set(expected) <= set(dir(sojourn))


def test_version() -> None:
    """The version is the distribution's."""
    assert sojourn.__version__[0].isdigit()


def test_unknown() -> None:
    """Another name is an AttributeError, as of any module."""
    with pytest.raises(AttributeError):
        _ = sojourn.Nothing  # type: ignore[attr-defined]


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_cheap() -> None:
    """`import sojourn` loads neither gRPC nor cryptography."""
    code = "import sys, sojourn; print([n for n in ('grpc', 'cryptography', 'google.protobuf') if n in sys.modules])"
    assert run(code) == "[]"


def test_light() -> None:
    """The whole SDK loads nothing of the daemon."""
    code = (
        "import sys, sojourn; [getattr(sojourn, n) for n in sojourn.__all__];"
        "heavy = 'uvicorn starlette sqlalchemy structlog pydantic uvloop cedarpy typer'.split();"
        "print([n for n in heavy if n in sys.modules])"
    )
    assert run(code) == "[]"


def test_beside_spiffe() -> None:
    """Our stubs and those of the `spiffe` library live in one process."""
    assert run("import spiffe, sojourn; sojourn.Client; print('ok')") == "ok"
