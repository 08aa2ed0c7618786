"""Every provider that comes with Sojourn keeps what sojourn.testing asks of anyone's."""

import importlib
from functools import partial

import pytest
from fakes.outsides import AuthorizationServer, Entra, Google, Sts, TwoServers, Vault
from sojourn.testing.providers import Case, ProviderContract

pytestmark = pytest.mark.full

ISSUER = "https://as.example.org/realms/x"
ORDERS = "https://orders.example.org"
SCOPES = {"orders:read": ["orders.read"], "orders:write": ["orders.write"]}
WORDS = {"orders:read": "orders.read", "orders:write": "orders.write"}
POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/sojourn/providers/agent"
READ, WRITE = (f"https://www.googleapis.com/auth/devstorage.read_{each}" for each in ("only", "write"))
CLIENT = "11111111-2222-3333-4444-555555555555"
ROLE = "arn:aws:iam::123456789012:role/orders"


def oauth(plugin, ask=None, outside=AuthorizationServer, **settings):
    return Case(
        plugin=plugin,
        settings={"issuer": ISSUER, **settings},
        resource=ORDERS,
        ask={"scopes": SCOPES, **(ask or {})},
        words=WORDS,
        outside=outside,
    )


def aws(plugin, **settings):
    return Case(
        plugin=plugin,
        settings={"kind": "aws", "region": "eu-central-1", **settings},
        resource=ORDERS,
        ask={
            "role_arn": ROLE,
            "policy_actions": {"orders:read": ["s3:GetObject"], "orders:write": ["s3:PutObject"]},
            "policy_resources": ["arn:aws:s3:::orders/*"],
        },
        words={"orders:read": "s3:GetObject", "orders:write": "s3:PutObject"},
        outside=Sts,
    )


def gcp(plugin, outside=Google, **settings):
    return Case(
        plugin=plugin,
        settings={"kind": "gcp", "audience": POOL, **settings},
        resource=ORDERS,
        ask={"scopes": {"orders:read": [READ], "orders:write": [WRITE]}},
        words={"orders:read": READ, "orders:write": WRITE},
        outside=outside,
    )


def entra(plugin):
    return Case(
        plugin=plugin,
        settings={"kind": "entra", "tenant_id": "contoso.example"},
        resource=ORDERS,
        ask={"scope": "api://orders/.default", "client_id": CLIENT},
        words={"orders:read": "", "orders:write": ""},
        sets=(("orders:read", "orders:write"),),  # one application does both
        outside=Entra,
    )


def vault(plugin, **ask):
    return Case(
        plugin=plugin,
        settings={"kind": "vault", "address": "https://vault.example.org:8200"},
        resource=ORDERS,
        ask={"roles": {"orders:read": "reader", "orders:write": "writer"}, **ask},
        words={"orders:read": "reader", "orders:write": "writer"},
        sets=(("orders:read",), ("orders:write",)),  # a role each
        outside=Vault,
    )


# name: (module and class, the case)
CASES = {
    "oidc": (
        "oidc.OidcProvider",
        lambda plugin: oauth(plugin, {"audience": "orders"}, kind="oidc", client_auth="jwt-spiffe"),
    ),
    "oidc for nobody": ("oidc.OidcProvider", lambda plugin: oauth(plugin, kind="oidc", longest="10m")),
    "bearer": ("bearer.BearerProvider", lambda plugin: oauth(plugin, kind="bearer")),
    "bearer, client_credentials": (
        "bearer.BearerProvider",
        lambda plugin: oauth(plugin, kind="bearer", grant="client_credentials", client_auth="jwt-bearer"),
    ),
    "keycloak": ("keycloak.KeycloakProvider", lambda plugin: oauth(plugin, {"audience": "orders"}, kind="keycloak")),
    "keycloak, one call": ("keycloak.KeycloakProvider", lambda plugin: oauth(plugin, kind="keycloak")),
    "id-jag": (
        "id_jag.IdJagProvider",
        lambda plugin: oauth(plugin, kind="id-jag", outside=TwoServers, idp_issuer="https://idp.example.org"),
    ),
    "aws": ("aws.AwsProvider", aws),
    "aws, with a deny hook": ("aws.AwsProvider", lambda plugin: aws(plugin, deny_hook="https://deny.example.org/x")),
    "gcp": ("gcp.GcpProvider", gcp),
    "gcp, a service account": (
        "gcp.GcpProvider",
        lambda plugin: gcp(plugin, partial(Google, accounts=True), service_account="orders@p.iam.gserviceaccount.com"),
    ),
    "entra": ("entra.EntraProvider", entra),
    "vault": ("vault.VaultProvider", vault),
    "vault, a secret": ("vault.VaultProvider", lambda plugin: vault(plugin, path="database/creds/orders")),
}


def promises():
    for name, (place, case) in CASES.items():
        module, kind = place.split(".")
        plugin = getattr(importlib.import_module(f"sojourn.providers.{module}"), kind)
        for promise in ProviderContract(case(plugin)).promises:
            yield pytest.param(promise, id=f"{name}: {promise}")


@pytest.mark.parametrize("promise", list(promises()))
def test_contract(promise):
    """A provider keeps the promise, whatever the outside does."""
    promise.run()
