r"""Brings a Keycloak realm to trust an agent: it has no other secret than the admin's, and needs that only now.

    python keycloak_realm.py --keycloak https://kc.example.org --realm x --trust-domain example.org \
        --bundle-endpoint https://node1.example.org:8443/bundle --workload spiffe://example.org/orders-agent \
        --audience orders --scope orders.read --scope orders.write

asks for the admin's password, and does what is not done yet; run it again for the next workload. What it does, in the
words of the admin console: a realm; an identity provider of type SPIFFE; a client scope for each scope; a client for
the audience; a client for the workload, with the authenticator "Signed JWT - Federated", service account roles and
standard token exchange switched on, an audience mapper, and the scopes as optional ones.
"""

import argparse
import getpass
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SPIFFE = "spiffe"  # the alias of the identity provider
_SECONDS = 30.0


class RealmFailed(Exception):
    """Keycloak did not do what it was asked for."""


class NotThere(RealmFailed):
    """Keycloak has nothing at that path."""


class Realm:
    """One realm of a Keycloak, by its admin REST API."""

    def __init__(
        self, keycloak: str, realm: str, password: str, *, admin: str = "admin", ca: Path | None = None
    ) -> None:
        """`keycloak`: its base URL. `ca`: a PEM file, if its certificate is not by one of the system's authorities."""
        self.base = keycloak.rstrip("/")
        self.name = realm
        context = ssl.create_default_context(cafile=ca) if self.base.startswith("https:") else None
        secure = urllib.request.HTTPSHandler(context=context) if context else urllib.request.HTTPHandler()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), secure)
        self.admin_login = {"grant_type": "password", "client_id": "admin-cli", "username": admin, "password": password}

    @property
    def issuer(self) -> str:
        return f"{self.base}/realms/{self.name}"

    def ensure(self, *, token_seconds: int = 300) -> None:
        """The realm, with access tokens that are good for so long."""
        wanted = {"realm": self.name, "enabled": True, "accessTokenLifespan": token_seconds}
        if self._maybe("GET", f"/realms/{self.name}") is None:
            self._ask("POST", "/realms", wanted)
        else:
            self._ask("PUT", f"/realms/{self.name}", wanted)

    def bring_in(self, representation: dict[str, Any]) -> None:
        """The realm as a file has it that the admin console takes, with its users and clients. It must not be there."""
        self._ask("POST", "/realms", {**representation, "realm": self.name})

    def trust(self, trust_domain: str, bundle_endpoint: str) -> None:
        """The trust domain, whose keys are at a SPIFFE bundle endpoint: https, or on this host."""
        config = {"trustDomain": f"spiffe://{trust_domain}", "bundleEndpoint": bundle_endpoint}
        wanted = {"alias": SPIFFE, "providerId": "spiffe", "enabled": True, "config": config}
        known = self._maybe("GET", self._path("identity-provider/instances", SPIFFE))
        if known is None:
            self._ask("POST", self._path("identity-provider/instances"), wanted)
        else:
            self._ask("PUT", self._path("identity-provider/instances", SPIFFE), {**known, **wanted})

    def scope(self, name: str) -> None:
        """A scope that clients may be given."""
        attributes = {"include.in.token.scope": "true", "display.on.consent.screen": "false"}
        wanted = {"name": name, "protocol": "openid-connect", "attributes": attributes}
        if name not in {each["name"] for each in self._ask("GET", self._path("client-scopes"))}:
            self._ask("POST", self._path("client-scopes"), wanted)

    def service(self, client_id: str, spiffe_id: str = "") -> None:
        """A service that tokens are for. With a SPIFFE ID it may introspect tokens by its own JWT-SVID.

        Without one, a client that is there stays as it is.
        """
        if spiffe_id or self._known(client_id) is None:
            self._client(client_id, self._federated(spiffe_id) if spiffe_id else {"bearerOnly": True})

    def workload(self, client_id: str, spiffe_id: str, audiences: Sequence[str], scopes: Sequence[str] = ()) -> None:
        """A workload that exchanges its JWT-SVIDs for tokens for these services, with these scopes where it asks."""
        for each in scopes:
            self.scope(each)
        mappers = [
            {
                "name": f"audience-{each}",
                "protocol": "openid-connect",
                "protocolMapper": "oidc-audience-mapper",
                "config": {
                    "included.client.audience": each,
                    "access.token.claim": "true",
                    "introspection.token.claim": "true",
                },
            }
            for each in audiences
        ]
        wanted = self._federated(spiffe_id)
        wanted["attributes"] = {**wanted["attributes"], "standard.token.exchange.enabled": "true"}
        # Without the scopes that a new client has: what a token may is what was asked for.
        wanted |= {"protocolMappers": mappers, "defaultClientScopes": ["basic"], "optionalClientScopes": list(scopes)}
        self._client(client_id, wanted)

    def change_client(self, client_id: str, **members: Any) -> None:
        """Change a client that is there, such as by `enabled=False`."""
        known = self._known(client_id)
        if known is None:
            raise RealmFailed(f"there is no client {client_id}")
        self._ask("PUT", self._path("clients", known["id"]), {**known, **members})

    def remove(self) -> None:
        """Take the realm away, with all that is in it."""
        self._ask("DELETE", f"/realms/{self.name}")

    def _federated(self, spiffe_id: str) -> dict[str, Any]:
        attributes = {"jwt.credential.issuer": SPIFFE, "jwt.credential.sub": spiffe_id}
        return {
            "bearerOnly": False,
            "clientAuthenticatorType": "federated-jwt",
            "serviceAccountsEnabled": True,
            "fullScopeAllowed": False,
            "attributes": attributes,
        }

    def _client(self, client_id: str, more: dict[str, Any]) -> None:
        wanted = {"clientId": client_id, "enabled": True, "protocol": "openid-connect", "publicClient": False}
        wanted |= {"standardFlowEnabled": False, "directAccessGrantsEnabled": False, **more}
        known = self._known(client_id)
        if known is None:
            self._ask("POST", self._path("clients"), wanted)
            return
        mappers = known.get("protocolMappers", [])  # what an update does with new ones differs from version to version
        self._ask("PUT", self._path("clients", known["id"]), {**known, **wanted, "protocolMappers": mappers})
        have = {each["name"] for each in mappers}
        for mapper in wanted.get("protocolMappers", ()):
            if mapper["name"] not in have:
                self._ask("POST", self._path("clients", known["id"], "protocol-mappers/models"), mapper)
        self._optional_scopes(known["id"], wanted.get("optionalClientScopes", ()))

    def _optional_scopes(self, client: str, names: Sequence[str]) -> None:
        for each in self._ask("GET", self._path("client-scopes")):
            if each["name"] in names:
                self._ask("PUT", self._path("clients", client, "optional-client-scopes", each["id"]))

    def _known(self, client_id: str) -> dict[str, Any] | None:
        query = urllib.parse.urlencode({"clientId": client_id})
        found = self._ask("GET", f"{self._path('clients')}?{query}")
        return found[0] if found else None

    def _path(self, *parts: str) -> str:
        return "/".join((f"/realms/{self.name}", *parts))

    def _maybe(self, method: str, path: str) -> Any:
        try:
            return self._ask(method, path)
        except NotThere:
            return None

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        login = urllib.parse.urlencode(self.admin_login).encode()
        token = self._send("POST", f"{self.base}/realms/master/protocol/openid-connect/token", login, {})[
            "access_token"
        ]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        return self._send(method, f"{self.base}/admin{path}", content, headers)

    def _send(self, method: str, url: str, content: bytes | None, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(url, content, headers, method=method)  # noqa: S310  # the operator's own URL
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            told = error.read()[:500].decode(errors="replace")
            if error.code == 404:
                raise NotThere(f"{method} {url}: 404, there is nothing; is it Keycloak's base URL?") from None
            raise RealmFailed(f"{method} {url}: {error.code} {told}") from None
        except urllib.error.URLError as error:
            raise RealmFailed(f"{method} {url}: {error.reason}") from None
        return json.loads(text) if text else None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Bring a Keycloak realm to trust a Sojourn agent.")
    for name in ("--keycloak", "--realm", "--trust-domain", "--bundle-endpoint", "--workload", "--audience"):
        parser.add_argument(name, required=True)
    parser.add_argument("--scope", action="append", default=[])
    parser.add_argument("--client", help="the workload's client; default: its SPIFFE ID's path, as agent-orders")
    parser.add_argument("--service", default="", help="the service's SPIFFE ID: it may introspect, by its JWT-SVID")
    parser.add_argument("--admin", default="admin")
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--token-seconds", type=int, default=300)
    asked = parser.parse_args(arguments)
    client = asked.client or asked.workload.removeprefix("spiffe://").partition("/")[2].replace("/", "-")
    if not client or not asked.workload.startswith(f"spiffe://{asked.trust_domain}/"):
        parser.error(f"--workload: {asked.workload} is not a SPIFFE ID of the trust domain {asked.trust_domain}")
    if client == asked.audience:
        parser.error(f"the service and the workload cannot both be the client {client}: give another --client")
    password = getpass.getpass(f"password of {asked.admin} at {asked.keycloak}: ")
    try:
        realm = Realm(asked.keycloak, asked.realm, password, admin=asked.admin, ca=asked.ca)
        realm.ensure(token_seconds=asked.token_seconds)
        realm.trust(asked.trust_domain, asked.bundle_endpoint)
        realm.service(asked.audience, asked.service)
        realm.workload(client, asked.workload, [asked.audience], asked.scope)
    except (RealmFailed, OSError) as error:  # OSError: a connection that broke off, or no file at --ca
        raise SystemExit(f"error: {error}") from None
    print(f"realm {realm.issuer} gives {asked.workload} tokens for {asked.audience}; in the agent's configuration:\n")
    print(f'[providers.{asked.realm}]\nkind = "keycloak"\nissuer = "{realm.issuer}"')
    if realm.base.startswith("http:"):
        print("plain_http = true  # to loopback alone")
    if asked.ca:
        print(f'ca = "{asked.ca.resolve()}"')
    print(f"\nthen: sojourn provider check {asked.realm} --spiffe-id {asked.workload}")


if __name__ == "__main__":
    main()
