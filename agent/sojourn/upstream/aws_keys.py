"""Credentials of AWS for the agent itself: of a role that it assumes by a JWT-SVID of its own, or in a file."""

import asyncio
import configparser
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlencode

from sojourn.errors import InvalidInput, SojournError
from sojourn.files import trusted
from sojourn.limits import UPSTREAM_FILE_MAX_BYTES
from sojourn.plugins.upstream import Mint, UpstreamHttp, UpstreamUnavailable
from sojourn.providers.answers import time_of, token_of
from sojourn.providers.aws_answers import fields_of, refusal_of
from sojourn.runtime.clock import Clock
from sojourn.upstream.sigv4 import AwsKeys
from sojourn.upstream.unavailable import raise_unavailable

_VERSION: Final = "2011-06-15"  # of the STS API
_RESULT: Final = "AssumeRoleWithWebIdentityResponse/AssumeRoleWithWebIdentityResult/Credentials/"
_STEP: Final = "assume_role"
_SECONDS: Final = 900  # of a session: the least that AWS gives, and more than signing takes
_EARLY: Final = timedelta(minutes=2)  # before their end others are had
_HEADERS: Final = {"accept": "application/xml", "content-type": "application/x-www-form-urlencoded"}


class KeySource(Protocol):
    """Where they are from."""

    async def have(self) -> AwsKeys:
        """Those of now. Raise UpstreamUnavailable, with what an operator does about it."""


class OfRole:
    """A session of a role, kept until it ends. What AWS is shown is a JWT-SVID of the agent's, or a token in a file."""

    def __init__(
        self,
        http: UpstreamHttp,
        mint: Mint,
        clock: Clock,
        *,
        sts: str,
        role: str,
        audience: str,
        token_file: Path | None,
    ) -> None:
        self._http = http
        self._mint = mint
        self._clock = clock
        self._sts = sts
        self._role = role
        self._audience = audience
        self._token_file = token_file
        self._keys: AwsKeys | None = None

    async def have(self) -> AwsKeys:
        keys = self._keys
        if keys is None or keys.expires is None or self._clock.now() >= keys.expires - _EARLY:
            try:
                self._keys = keys = await self._assumed()
            except SojournError as error:
                raise_unavailable(error)
        return keys

    async def _assumed(self) -> AwsKeys:
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": _VERSION,
            "RoleArn": self._role,
            "RoleSessionName": "sojourn-upstream",
            "WebIdentityToken": await self._token(),
            "DurationSeconds": str(_SECONDS),
        }
        answer = await self._http.ask("POST", self._sts, step=_STEP, headers=_HEADERS, content=urlencode(form).encode())
        if answer.status != 200:
            raise refusal_of(answer, _STEP)
        fields = fields_of(answer, _STEP)
        key, secret, session = (
            token_of(fields, _RESULT + name, _STEP) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")
        )
        return AwsKeys(key, secret, session, self._end(fields.get(_RESULT + "Expiration")))

    def _end(self, told: object) -> datetime:
        """When it ends: as AWS says, but not later than what was asked for."""
        asked = self._clock.now() + timedelta(seconds=_SECONDS)
        return min(asked, time_of(told, _STEP)) if isinstance(told, str) else asked

    async def _token(self) -> str:
        if self._token_file is None:
            return await self._mint(self._audience, algorithm="ES256")
        return (await asyncio.to_thread(_read, self._token_file)).strip()


class InFile:
    """What AWS's tools call a shared credentials file, read each time."""

    def __init__(self, file: Path, profile: str) -> None:
        self._file = file
        self._profile = profile

    async def have(self) -> AwsKeys:
        text = await asyncio.to_thread(_read, self._file)
        parser = configparser.ConfigParser(interpolation=None, default_section="")
        try:
            parser.read_string(text)
            table = parser[self._profile]
            key, secret = table["aws_access_key_id"].strip(), table["aws_secret_access_key"].strip()
        except (configparser.Error, KeyError) as error:
            # The error would quote the line, which may be the secret.
            raise UpstreamUnavailable(
                f"credentials_file {self._file}: has no profile {self._profile!r} with aws_access_key_id and"
                f" aws_secret_access_key ({type(error).__name__})"
            ) from None
        session = table.get("aws_session_token", "").strip()
        if not all(each.isascii() and each.isprintable() for each in (key, secret, session)) or not (key and secret):
            raise UpstreamUnavailable(f"credentials_file {self._file}: what it has is no key of AWS")
        return AwsKeys(key, secret, session)


def _read(file: Path) -> str:
    try:
        return trusted.read(file, UPSTREAM_FILE_MAX_BYTES)
    except InvalidInput as error:
        raise UpstreamUnavailable(f"{file}: {error.public}") from error
