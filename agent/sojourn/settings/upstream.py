"""The table [authority.upstream] of the configuration: who signs the intermediate, instead of a root of our own."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from sojourn.errors import SojournError
from sojourn.limits import UPSTREAM_SERVERS
from sojourn.settings.host_port import HostPort
from sojourn.settings.openbao import Name, Place, check_address
from sojourn.settings.outside import OutsideTable, Text
from sojourn.settings.tables import Duration, FilePath, between
from sojourn.spiffe.ids import SpiffeId

KINDS: Final = ("disk", "openbao", "spire")
_OF_DISK: Final = ("certificate", "key", "roots")
_OF_OPENBAO: Final = (
    *("address", "mount", "issuer", "namespace", "auth_mount", "auth_role", "audience", "token_file"),
    *("timeout", "ca", "private_networks", "plain_http"),
)
_OF_NODE: Final = ("attestor", "bundle", "token_file", "certificate", "key")
_OF_SPIRE: Final = ("servers", "socket", "spiffe_id", *_OF_NODE)
_OF_ATTESTOR: Final = {"join_token": ("token_file",), "x509pop": ("certificate", "key")}
_KEYS_OF: Final = {"disk": _OF_DISK, "openbao": _OF_OPENBAO, "spire": _OF_SPIRE}
_NEEDED_BY: Final = {"disk": _OF_DISK, "openbao": ("address",), "spire": ()}
LOOK_LEAST: Final = timedelta(seconds=1)


class UpstreamTable(OutsideTable):
    """A certificate authority above the agent: the keys that all kinds have. A plugin's settings are a subclass."""

    kind: str
    lead: Annotated[Duration, between(timedelta(0))] = timedelta(minutes=10)  # of a root's publication
    look_every: Annotated[Duration, between(LOOK_LEAST)] = timedelta(seconds=30)  # whether something has changed there


class PluginUpstreamConfig(UpstreamTable):
    """One of a kind that a plugin has, which reads the keys of its own."""

    model_config = UpstreamTable.model_config | {"extra": "allow"}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The table as it stands in the configuration."""
        return self.model_dump(exclude_unset=True)


class UpstreamAuthorityConfig(UpstreamTable):
    """One of the kinds that the agent has itself."""

    kind: Literal["disk", "openbao", "spire"]
    certificate: FilePath | None = None  # a PEM file: what signs, and what is above that, without the root
    key: FilePath | None = None  # a PEM file
    roots: FilePath | None = None  # a PEM file
    address: Annotated[str, AfterValidator(check_address)] | None = None
    mount: Place = "pki"  # of the PKI engine
    issuer: Name = "default"  # of that engine
    namespace: Place | None = None
    auth_mount: Place = "jwt"  # of the auth method that takes the agent's own JWT-SVID
    auth_role: Name | None = None
    audience: Text | None = None  # of that JWT-SVID; default: the address
    token_file: FilePath | None = None  # with a token, instead of that; or with a join token
    servers: Annotated[tuple[HostPort, ...], Field(max_length=UPSTREAM_SERVERS)] = ()
    socket: FilePath | None = None  # of the Workload API of a spire-agent on this machine
    spiffe_id: str | None = None  # as whom the server is asked; needed if there are several
    attestor: Literal["join_token", "x509pop"] | None = None  # instead of a socket: how a node of its own is attested
    bundle: FilePath | None = None  # by which the first connection of that is verified

    @field_validator("spiffe_id")
    @classmethod
    def _spiffe_id(cls, value: str | None) -> str | None:
        try:
            return None if value is None else str(SpiffeId.parse(value))
        except SojournError as error:
            raise ValueError(error.public) from error

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        own = _KEYS_OF[self.kind]
        for key in _NEEDED_BY[self.kind]:
            if getattr(self, key) is None:
                raise ValueError(f"an upstream authority of kind {self.kind} needs {key}")
        for key in self.model_fields_set - {"kind", "lead", "look_every", *own}:
            raise ValueError(f"{key} is not of an upstream authority of kind {self.kind}, which has {', '.join(own)}")
        if self.kind == "spire":
            self._check_spire()
        if self.kind == "openbao" and (self.auth_role is None) == (self.token_file is None):
            raise ValueError("needs auth_role, or token_file, and not both")
        return self

    def _check_spire(self) -> None:
        """Raise ValueError unless there are servers, and one way to be known to them."""
        if not self.servers:
            raise ValueError("an upstream authority of kind spire needs servers, each as HOST:PORT")
        if (self.socket is None) == (self.attestor is None):
            raise ValueError("needs socket, of a spire-agent, or attestor, by which it is a node itself, and not both")
        if self.socket is not None:
            for key in _OF_NODE:
                if key in self.model_fields_set:
                    raise ValueError(f"{key} is of a node, and by socket a spire-agent is that")
            return
        for attestor, keys in _OF_ATTESTOR.items():
            for key in ("bundle", *keys):
                if attestor == self.attestor and getattr(self, key) is None:
                    raise ValueError(f"the attestor {attestor} needs {key}")
                if attestor != self.attestor and key != "bundle" and getattr(self, key) is not None:
                    raise ValueError(f"the attestor {self.attestor} has no use for {key}")


def upstream_table(value: object) -> object:
    """The table as whoever reads it has it: a kind of the agent's own, or a plugin's."""
    if value is None or isinstance(value, UpstreamTable):
        return value
    kind = value.get("kind", KINDS[0]) if isinstance(value, dict) else KINDS[0]
    if isinstance(kind, str) and kind not in KINDS:
        return PluginUpstreamConfig.model_validate(value)
    return UpstreamAuthorityConfig.model_validate(value)
