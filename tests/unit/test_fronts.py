"""The front doors: what of Sojourn may be imported by others, and that the documents use nothing else."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRONTS = {
    "sojourn.grpc": "Action AioTaskTokenInterceptor TaskTokenInterceptor aio_interceptors field interceptors serving_token",
    "sojourn.mcp": "Action McpAuth McpGuard McpStdioGuard TaskTokenVerifier argument call_tool serving_token",
    "sojourn.mtls": "CertificateTokens",
    "sojourn.plugins.attestor": (
        "Answer AttestationFailed Attestor AttestorPlugin Cgroup Checking Closing Duration PinnedSubject Subject Table"
        " between parent_and_birth parse_cgroups read_settings"
    ),
    "sojourn.plugins.provider": (
        "Ended Http HttpResponse InvalidConfig InvalidInput Mint Obtained ProviderRefused ProviderTable ProviderUnavailable"
        " Recall SojournError Step Wanted"
    ),
    "sojourn.plugins.upstream": (
        "Duration FilePath HttpResponse InvalidConfig InvalidInput Mint OutsideTable Reach SignedIntermediate SojournError"
        " Standing Upstream UpstreamHttp UpstreamNotGood UpstreamPlugin UpstreamTable UpstreamUnavailable between"
        " read_settings"
    ),
    "sojourn.request_digest": "of_grpc of_http of_json of_tool",
    "sojourn.testing": (
        "AttestorCase AttestorContract Case FakeAgent Promise ProviderContract Sent SigningAuthority UpstreamCase"
        " UpstreamContract answer_of child"
    ),
    "sojourn.tools": "ToolRefused guarded",
    "sojourn.uvicorn": "TlsProtocol",
    "sojourn.web": ("Action Guard TaskTokenMiddleware TaskTokenWsgi body form header path query serving_token"),
}
NEEDED = {"sojourn.mcp": ("mcp", "httpx2"), "sojourn.uvicorn": ("uvicorn",)}  # what is not installed with everything
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "docs/examples").rglob("*.py"))]
IMPORT = re.compile(r"^\s*(?:from (sojourn[\w.]*) import ([\w, ]+|\([^)]*\))|import (sojourn[\w.]*))", re.MULTILINE)


def imported(text: str) -> list[tuple[str, str]]:
    """Each module of Sojourn that a text imports from, with the name; without one where the module itself is."""
    found = []
    for module, names, alone in IMPORT.findall(text):
        each = re.findall(r"\w+", names)
        found += [(module, name) for name in each] if module else [(alone, "")]
    return found


@pytest.mark.parametrize("front", FRONTS)
def test_names(front: str) -> None:
    """A front door has these names and no others, and each is there."""
    for library in NEEDED.get(front, ()):
        pytest.importorskip(library)
    module = importlib.import_module(front)
    assert FRONTS[front].split() == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documents_use_nothing_else(page: Path) -> None:
    """What a page or an example imports of Sojourn is a name of the package or of a front door."""
    package = importlib.import_module("sojourn")
    for module, name in imported(page.read_text()):
        if module in {"sojourn", "sojourn_slurm", "sojourn_desk"}:
            assert module != "sojourn" or name in {"", *package.__all__}
        else:
            assert name in FRONTS.get(module, "").split(), f"{module}.{name}"


def test_each_is_in_the_reference() -> None:
    """docs/python.md names every front door with every name of it."""
    page = (ROOT / "docs/python.md").read_text()
    rows = dict(re.findall(r"^\| `(sojourn[\w.]*)` \|[^|]*\|(.*)\|$", page, re.MULTILINE))
    package = importlib.import_module("sojourn")
    told = {front: sorted(re.findall(r"`(\w+)`", names)) for front, names in rows.items()}
    assert {"sojourn": sorted(package.__all__)} | {name: sorted(of.split()) for name, of in FRONTS.items()} == told


@pytest.mark.parametrize(
    "front", ["sojourn.web", "sojourn.grpc", "sojourn.tools", "sojourn.mtls", "sojourn.request_digest"]
)
def test_light(front: str) -> None:
    """A front door of the SDK loads nothing of the daemon, and no framework that is not installed with it."""
    heavy = [
        *(
            "alembic",
            "cedarpy",
            "httpx",
            "mcp",
            "pydantic",
            "requests",
            "sqlalchemy",
            "starlette",
            "structlog",
            "typer",
        ),
        *("uvicorn", "uvloop"),
    ]
    code = f"import sys, {front}; print([name for name in {heavy} if name in sys.modules])"
    assert (
        "[]" == subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    )
