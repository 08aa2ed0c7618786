"""What this token service is: RFC 8414 and OpenID Connect Discovery, and RFC 9728 for the services behind it.

Every member says what the endpoints really do; tests hold each of them to it.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sojourn.endpoints.http1.oauth_responses import NO_STORE
from sojourn.endpoints.http1.scope import SENDER
from sojourn.endpoints.oauth import status_lists
from sojourn.errors import InvalidInput
from sojourn.jose.jws import ALGORITHMS
from sojourn.limits import METADATA_AGE_SECONDS
from sojourn.oauth import token_request
from sojourn.oauth.client_auth import ClientSender, own_names
from sojourn.oauth.resource_servers import Audiences, Service
from sojourn.policy.task_types import TypeSet
from sojourn.settings.tables import ListenConfig
from sojourn.spiffe.ids import TrustDomain
from sojourn.tasks.engine import TaskEngine
from sojourn.tasktoken.task_claim import APPROVED

_HEADERS: Final = {"Cache-Control": f"max-age={METADATA_AGE_SECONDS}"}
PATHS: Final = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")
ID_JAG_PROFILE: Final = "urn:ietf:params:oauth:grant-profile:id-jag"
_REQUIRED: Final = "response_types_supported"  # RFC 8414, 2, also where there is none; other empty lists are left out
RESOURCE_PATH: Final = "/.well-known/oauth-protected-resource"


class JwtAuthority(Protocol):
    """What signs JWT-SVIDs of our trust domain."""

    @property
    def trust_domain(self) -> TrustDomain: ...

    @property
    def jwt_algorithms(self) -> tuple[str, ...]: ...


class MetadataDocuments:
    """The documents, of what `listen` opens."""

    def __init__(
        self,
        engine: TaskEngine,
        audiences: Audiences,
        authority: JwtAuthority,
        listen: ListenConfig,
        *,
        id_jags: bool = False,
    ) -> None:
        """`id_jags`: whether some workload may bring an ID-JAG."""
        self._engine = engine
        self._audiences = audiences
        self._algorithms = authority.jwt_algorithms  # of what is accepted too, as it is signed here
        self._own_names = own_names(engine.issuer, authority.trust_domain)
        self._profiles = [ID_JAG_PROFILE] if id_jags else []
        self._mutual_tls = listen.https is not None
        self._mtls_base = listen.https_url or ""
        self._made: dict[bool, tuple[TypeSet, bytes]] = {}  # at the socket or not: of these types, as it is sent

    async def service(self, request: Request) -> Response:
        """RFC 8414, 3 and OpenID Connect Discovery 1.0, 4, of the endpoints as this caller reaches them."""
        sender: ClientSender = request.scope[SENDER]
        at_socket, types = sender.peer is not None, self._engine.types
        held = self._made.get(at_socket)
        if held is None or held[0] is not types:
            held = self._made[at_socket] = (types, bytes(JSONResponse(self.document(at_socket=at_socket)).body))
        return Response(held[1], media_type="application/json", headers=_HEADERS)

    def document(self, *, at_socket: bool) -> dict[str, Any]:
        issuer = self._engine.issuer
        methods = ["spiffe_jwt"]  # the names of draft-ietf-oauth-spiffe-client-auth
        if self._mutual_tls:
            methods += ["spiffe_x509", "tls_client_auth"]
        if at_socket:
            methods.append("none")  # the kernel says who the client is
        made: dict[str, Any] = {
            "issuer": issuer,
            "token_endpoint": f"{issuer}/token",
            "introspection_endpoint": f"{issuer}/introspect",
            "revocation_endpoint": f"{issuer}/revoke",
            "jwks_uri": f"{issuer}/keys",
            "grant_types_supported": list(token_request.GRANT_TYPES),
            "authorization_grant_profiles_supported": self._profiles,
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": list(self._algorithms),
            **{
                f"{endpoint}_endpoint_{what}": list(values)
                for endpoint in ("token", "introspection", "revocation")
                for what, values in (
                    ("auth_methods_supported", methods),
                    ("auth_signing_alg_values_supported", list(self._algorithms)),
                )
            },
            "introspection_signing_alg_values_supported": ["ES256"],
            "status_list_aggregation_endpoint": f"{issuer}{status_lists.PATH}",
            "acr_values_supported": [APPROVED] if any(each.approval for each in self._engine.types.values()) else [],
            "dpop_signing_alg_values_supported": sorted(ALGORITHMS),
            "authorization_details_types_supported": sorted(self._engine.types),
            "scopes_supported": self._actions(list(self._engine.types)),
            "tls_client_certificate_bound_access_tokens": True,
            "subject_token_audiences_supported": list(self._own_names),
        }
        if self._mutual_tls and self._mtls_base:
            made["mtls_endpoint_aliases"] = {
                "token_endpoint": f"{self._mtls_base}/token",
                "introspection_endpoint": f"{self._mtls_base}/introspect",
                "revocation_endpoint": f"{self._mtls_base}/revoke",
            }
        return {name: value for name, value in made.items() if value != [] or name == _REQUIRED}

    async def resource(self, request: Request) -> Response:
        """RFC 9728, 3.2, of a service that the configuration names: by `?resource=`, or as a proxy that hands the
        service's own well-known path on asks: by the host and the path behind the well-known one.
        """
        named = request.query_params.getlist("resource")
        if len(named) > 1:
            raise InvalidInput("resource is given twice")
        path = request.scope["path"].removeprefix(RESOURCE_PATH)
        hosts = request.headers.getlist("host")
        candidates = named or [f"https://{host}{path}" for host in hosts[:1]]  # which one, never whether it is true
        service = next((found for each in candidates if (found := self._audiences.service(each))), None)
        if service is None or (named and path):
            said = "there is no such resource: [[services]] of the configuration does not name it"
            return JSONResponse({"error": "not_found", "error_description": said}, 404, NO_STORE)
        return JSONResponse(self.of_resource(service), headers=_HEADERS)

    def of_resource(self, service: Service) -> dict[str, Any]:
        kinds = [name for name, kind in sorted(self._engine.types.items()) if kind.ceiling.at(service.resource)]
        made = {
            "resource": service.resource,
            "authorization_servers": [self._engine.issuer],
            "bearer_methods_supported": ["header"],
            "scopes_supported": self._actions(kinds, service.resource),
            "authorization_details_types_supported": kinds,
            "dpop_signing_alg_values_supported": sorted(ALGORITHMS),
            "dpop_bound_access_tokens_required": False,  # a certificate will do too, whatever the type
            "tls_client_certificate_bound_access_tokens": True,
            **({"resource_name": service.name} if service.name else {}),
        }
        return {name: value for name, value in made.items() if value != []}

    def _actions(self, kinds: Sequence[str], resource: str = "") -> list[str]:
        found = {
            action
            for name in kinds
            for grant in self._engine.types[name].ceiling.grants
            if not resource or grant.resource == resource
            for action in grant.actions
        }
        return sorted(found)
