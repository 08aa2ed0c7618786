"""Providers are made of their tables, or all that is wrong with them is told at once."""

from pathlib import Path
from typing import Any

import pytest
from sojourn.errors import InvalidConfig
from sojourn.providers.bearer import BearerProvider
from sojourn.providers.id_jag import IdJagProvider
from sojourn.providers.keycloak import KeycloakProvider
from sojourn.providers.loader import load_providers
from sojourn.providers.oidc import OidcProvider
from sojourn.providers.provider import audiences_of

ISSUER = "https://idp.example.org/realms/x"
ENTRA = "aaaaaaaa-0000-0000-0000-000000000001"
POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/agent"


class TestLoad:
    def test_each_kind(self) -> None:
        """The kinds that ask an authorization server are made of little."""
        made = load_providers(
            {
                "a": {"kind": "oidc", "issuer": ISSUER},
                "b": {"kind": "bearer", "issuer": ISSUER},
                "c": {"kind": "keycloak", "issuer": ISSUER},
                "d": {"kind": "id-jag", "issuer": ISSUER, "idp_issuer": "https://corp.example.org"},
            }
        )
        kinds = {"a": OidcProvider, "b": BearerProvider, "c": KeycloakProvider, "d": IdJagProvider}
        assert kinds == {name: type(each) for name, each in made.items()}
        assert {"revoke"} == {each.recall for each in made.values()}

    def test_audiences(self) -> None:
        """Each kind names every audience by which its outside system may take a JWT-SVID, as its table has them."""
        tables: dict[str, dict[str, Any]] = {
            "keycloak": {"issuer": ISSUER},
            "bearer": {"issuer": ISSUER, "assertion_audience": "urn:a", "token_endpoint": "https://idp.example.org/t"},
            "oidc": {"issuer": ISSUER, "subject_audience": "urn:subject"},
            "id-jag": {
                "issuer": ISSUER,
                "idp_issuer": "https://corp.example.org",
                "idp_assertion_audience": "urn:corp",
            },
            "aws": {"region": "eu-west-1", "deny_hook": "https://hook.example.org/deny"},
            "gcp": {"audience": POOL},
            "entra": {"tenant_id": ENTRA, "client_id": ENTRA},
            "vault": {"address": "https://vault.example.org:8200", "role": "x"},
        }
        made = load_providers({kind: {"kind": kind, **table} for kind, table in tables.items()})
        assert {kind: audiences_of(each) for kind, each in made.items()} == {
            "keycloak": {ISSUER},
            "bearer": {ISSUER, "urn:a", "https://idp.example.org/t"},
            "oidc": {ISSUER, "urn:subject"},
            "id-jag": {ISSUER, "https://corp.example.org", "urn:corp"},
            "aws": {"sts.amazonaws.com", "https://hook.example.org/deny"},
            "gcp": {POOL, f"https:{POOL}"},
            "entra": {"api://AzureADTokenExchange"},
            "vault": {"https://vault.example.org:8200"},
        }

    def test_all_faults(self, tmp_path: Path) -> None:
        """Every fault of every table is named with its key, and no value that might be a secret."""
        no_pem = tmp_path / "ca.pem"
        no_pem.write_text("nothing")
        with pytest.raises(InvalidConfig) as wrong:
            load_providers(
                {
                    "a": {"kind": "oidc", "isuer": "s3cret", "timeout": "1h"},
                    "b": {"kind": "nothing-of-the-kind"},
                    "c": {},
                    "d": {"kind": "keycloak", "issuer": "https://kc.example.org/x", "private_networks": ["10.0.0.1/8"]},
                    "e": {"kind": "bearer", "issuer": ISSUER, "grant": "client_credentials"},
                    "f": {"kind": "oidc", "issuer": ISSUER, "ca": str(no_pem)},
                    "g": {"kind": "oidc", "issuer": "https://user:s3cret@idp.example.org", "plain_http": "yes"},
                }
            )
        faults = wrong.value.faults
        for expected in (
            "providers.a.isuer: unknown key",
            "providers.a.issuer: is missing",
            "providers.a.timeout: is 1h",
            "providers.b.kind: is none that is installed",
            "providers.c.kind: is none that is installed",
            "providers.d.issuer: is not the URL of a realm",
            "providers.d.private_networks: 10.0.0.1/8 has host bits set",
            "providers.e.client_auth is to be",
            "providers.f.ca: ",
            "providers.g.issuer: is not a plain http or https URL",
            "providers.g.plain_http: ",
        ):
            assert [each for each in faults if each.startswith(expected)], expected
        assert "s3cret" not in str(faults)

    def test_without_revocation(self) -> None:
        """Where the endpoints are set and none revokes, tokens cannot be recalled, and that is known beforehand."""
        table = {"kind": "oidc", "issuer": ISSUER, "token_endpoint": "https://idp.example.org/token"}
        assert "none" == load_providers({"a": table})["a"].recall
