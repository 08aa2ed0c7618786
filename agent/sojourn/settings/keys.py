"""The table [keys] of the configuration: where private keys are, and who uses those of roots."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from sojourn.settings.aws_kms import AwsKmsConfig
from sojourn.settings.openbao import TransitConfig
from sojourn.settings.tables import FilePath, Table


class KeysConfig(Table):
    """Where the agent's private keys are, and how they lie on disk."""

    manager: Literal["file", "sealed", "pkcs11", "openbao", "aws_kms"] = "file"
    seal_key: FilePath | None = None  # 32 bytes, by which they are sealed, or with `file`: were until now
    module: FilePath | None = None  # the vendor's PKCS#11 library
    token: Annotated[str, Field(min_length=1, max_length=32)] | None = None  # its label
    pin_file: FilePath | None = None
    environment: dict[str, str] = Field(default_factory=dict)  # of the process that uses the token, and no other
    network: Annotated[bool, Field(strict=True)] = False  # whether that process may have one
    # Where a key process that is a service of its own listens; None: the agent starts one where there is to be one.
    socket: FilePath | None = None
    agent_user: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")] = "sojourn"  # who may ask that
    openbao: TransitConfig | None = None
    aws_kms: AwsKmsConfig | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.manager == "sealed" and self.seal_key is None:
            raise ValueError("seal_key is missing: the file, or credential:NAME, with the 32 bytes that seal the keys")
        given = {name for name in ("module", "token", "pin_file") if getattr(self, name) is not None}
        if self.manager == "pkcs11" and len(given) < 3:
            missing = ", ".join(name for name in ("module", "token", "pin_file") if name not in given)
            raise ValueError(f"{missing}: missing: pkcs11 needs the library, the token's label, and its PIN's file")
        if self.manager != "pkcs11" and (given or self.network):
            raise ValueError('module, token, pin_file and network are of manager = "pkcs11"')
        if self.environment and self.manager not in {"pkcs11", "aws_kms"}:
            raise ValueError('environment is of manager = "pkcs11" and of "aws_kms"')
        for name in ("openbao", "aws_kms"):
            if (getattr(self, name) is not None) != (self.manager == name):
                raise ValueError(f'manager = "{name}" and a table [keys.{name}] go together')
        return self

    @field_validator("module")
    @classmethod
    def _is_absolute(cls, module: Path | None) -> Path | None:
        if module is not None and not module.is_absolute():
            raise ValueError("the path of a PKCS#11 library is absolute")
        return module

    @field_validator("environment")
    @classmethod
    def _is_the_librarys(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, value in environment.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in value:
                raise ValueError(f"{name!r} is no variable of an environment")
            if name.startswith(("LD_", "PYTHON", "GCONV_")):
                raise ValueError(f"{name} would change which code the key process runs")
            if name in {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}:
                raise ValueError(
                    f"{name} is a secret: put it into a file, and name that in AWS_SHARED_CREDENTIALS_FILE"
                )
        return environment
