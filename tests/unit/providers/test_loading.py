"""Providers are made of their tables, or all that is wrong with them is told at once."""

from pathlib import Path

import pytest
from sojourn.errors import InvalidConfig
from sojourn.providers.bearer import BearerProvider
from sojourn.providers.idjag import IdJagProvider
from sojourn.providers.keycloak import KeycloakProvider
from sojourn.providers.loading import load_providers
from sojourn.providers.oidc import OidcProvider

ISSUER = "https://idp.example.org/realms/x"


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
