"""Where the keys of roots are: a PKCS#11 token, OpenBao's transit engine, AWS KMS, or files of another user's. The key
process is told it, unless it is a service of its own, which was configured with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sojourn.authority.key_seal import KeySeal
from sojourn.authority.token.messages import fields
from sojourn.settings.aws_kms import AwsKmsConfig
from sojourn.settings.openbao import TransitConfig


@dataclass(frozen=True)
class Pkcs11Place:
    """`token`: its label. `environment` and `network` are for the vendor's library, and all that it gets of them."""

    kind: ClassVar = "pkcs11"
    module: str
    token: str
    pin_file: str
    environment: Mapping[str, str] = field(default_factory=dict)
    network: bool = False

    @property
    def label(self) -> str:
        """What it is called."""
        return self.token

    def message(self) -> dict[str, Any]:
        return {"kind": self.kind, "module": self.module, "token": self.token, "pin_file": self.pin_file}


@dataclass(frozen=True)
class TransitPlace:
    """`config`: how the engine is reached, and logged in to."""

    kind: ClassVar = "openbao"
    pin_file: ClassVar = ""
    network: ClassVar = True
    environment: ClassVar[Mapping[str, str]] = {}
    config: TransitConfig

    @property
    def label(self) -> str:
        return f"{self.config.address.rstrip('/')}/{self.config.mount}"

    @property
    def audience(self) -> str | None:
        """The audience of the JWT-SVID by which the agent logs in; None: it does not."""
        return None if self.config.token_file is not None else self.config.audience or self.config.address

    def message(self) -> dict[str, Any]:
        return {"kind": self.kind, "table": self.config.model_dump(mode="json")}


@dataclass(frozen=True)
class AwsKmsPlace:
    """`environment`: what tells an AWS SDK where credentials are."""

    kind: ClassVar = "aws_kms"
    pin_file: ClassVar = ""
    network: ClassVar = True
    config: AwsKmsConfig
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.config.region

    def message(self) -> dict[str, Any]:
        return {"kind": self.kind, "table": self.config.model_dump(mode="json")}


@dataclass(frozen=True)
class FolderPlace:
    """A folder of the key process's own user: for a key process that is a service of its own. `seal`: what its files
    are sealed with, if they are.
    """

    kind: ClassVar = "file"
    pin_file: ClassVar = ""
    network: ClassVar = False
    environment: ClassVar[Mapping[str, str]] = {}
    folder: str
    seal: KeySeal | None = None

    @property
    def label(self) -> str:
        return self.folder

    def message(self) -> dict[str, Any]:
        return {"kind": self.kind, "table": {}}  # nobody is told: `place_of` refuses it


@dataclass(frozen=True)
class ServicePlace:
    """A key process that is a service of its own, at a Unix socket; it alone knows where the keys are. `audience`: of
    the JWT-SVID that it is shown, if it wants one.
    """

    kind: ClassVar = "process"
    pin_file: ClassVar = ""
    socket: str
    audience: str | None = None

    @property
    def label(self) -> str:
        return self.socket

    def message(self) -> dict[str, Any]:
        return {"kind": self.kind, "table": {}}


HeldPlace = Pkcs11Place | TransitPlace | AwsKmsPlace | FolderPlace  # where a key process uses keys itself
Place = HeldPlace | ServicePlace


def place_of(message: Mapping[str, Any]) -> Place:
    """What a place's `message` makes. Raise ValueError."""
    if message.get("kind") == Pkcs11Place.kind:
        _, module, token, pin_file = fields(message, kind=str, module=str, token=str, pin_file=str)
        return Pkcs11Place(module, token, pin_file)
    kind, table = fields(message, kind=str, table=dict)
    try:
        if kind == TransitPlace.kind:
            return TransitPlace(TransitConfig.model_validate(table))
        if kind == AwsKmsPlace.kind:
            return AwsKmsPlace(AwsKmsConfig.model_validate(table))
        if kind == ServicePlace.kind and not table:
            return ServicePlace("")
    except ValueError as error:  # as pydantic's errors are
        raise ValueError("a place that cannot be") from error
    raise ValueError("a place that there is not")
