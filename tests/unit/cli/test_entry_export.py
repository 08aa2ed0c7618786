"""`sojourn entry export --spire`: what SPIRE cannot have is told and left out, and the rest is in its own form."""

import json
from typing import Any

import pytest
from sojourn.cli import entry_export

ENTRY: dict[str, Any] = {
    "id": "e-1",
    "spiffe_id": "spiffe://example.org/web",
    "parent_id": "spiffe://example.org/spire/agent/sojourn/node",
    "selectors": ["unix:user:web", "docker:label:app:web"],
    "x509_svid_ttl": 600,
    "jwt_svid_ttl": 0,
    "federates_with": ["b.example"],
    "hint": "",
    "dns_names": [],
    "admin": False,
    "downstream": False,
    "store_svid": False,
    "expires_at": "2100-01-01T00:00:00+00:00",
    "additional_attributes": {"disable_x509_svid_prefetch": False},
    "priority": 0,
    "jwt_claims": {},
    "revision": 3,
    "created_at": "2026-01-01T00:00:00+00:00",
    "origin": "",
}


def exported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *entries: dict[str, Any]) -> Any:
    """What is printed of these entries, and what is said beside."""
    monkeypatch.setattr(entry_export, "entries_with", lambda _: list(entries))
    entry_export.export(spire=True)
    printed = capsys.readouterr()
    return json.loads(printed.out)["entries"], printed.err


def test_the_form(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Selectors are type and value apart, the end is `entry_expiry`, and neither ID nor what is empty is there."""
    assert (
        [
            {
                "spiffe_id": "spiffe://example.org/web",
                "parent_id": "spiffe://example.org/spire/agent/sojourn/node",
                "selectors": [{"type": "unix", "value": "user:web"}, {"type": "docker", "value": "label:app:web"}],
                "x509_svid_ttl": 600,
                "federates_with": ["b.example"],
                "entry_expiry": 4102444800,
            }
        ],
        "",
    ) == exported(monkeypatch, capsys, ENTRY)


def test_what_spire_has_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A template is left out with a warning; an entry with a priority is there, with a warning that this is lost."""
    template = {**ENTRY, "spiffe_id": "spiffe://example.org/unit/{systemd.id}"}
    [kept], said = exported(monkeypatch, capsys, template, {**ENTRY, "priority": 5})
    assert "priority" not in kept
    assert [
        "warning: left out spiffe://example.org/unit/{systemd.id}: SPIRE has no templates",
        "warning: spiffe://example.org/web: without priority, which SPIRE has not",
    ] == said.splitlines()
