"""A transmitter of signed events that is polled (RFC 8936), on loopback, with the authorization server that it asks.

with Transmitter() as transmitter:
    transmitter.say(sub_id=…, events=…)                 # an event for the next poll
    transmitter.always["poll"] = status(503)            # and whatever AuthServer does
    ... transmitter.polls, transmitter.acked, transmitter.refused ...
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from fakes.signed_events import AUDIENCE, issuer_key, jwks, signed

from harness.authserver import AuthServer, Call


class Transmitter(AuthServer):
    """The server. `outbox` are the events that nobody has acknowledged, the oldest first, by `jti`."""

    def __init__(self, *, path: str = "/realms/x", audience: str = AUDIENCE) -> None:
        super().__init__(path=path)
        self.key = issuer_key("s1")
        self.jwks = json.loads(jwks(self.key))
        self.audience = audience
        self.outbox: dict[str, str] = {}
        self.acked: list[str] = []
        self.refused: dict[str, dict[str, str]] = {}
        self.forgets = True  # whether what was acknowledged is not told again
        self.more: bool | None = None  # in the place of whether there is more
        self.most: int | None = None  # events in one answer, whatever was asked for
        self._number = 0
        self.streams: list[dict[str, Any]] = []
        self.status: str | None = None  # of its streams; None: it has no endpoint that tells
        self.supported: list[str] | None = None  # types of events that it sends; None: all that are asked for

    @property
    def poll_url(self) -> str:
        return f"{self.issuer}/poll"

    @property
    def polls(self) -> list[dict[str, Any]]:
        """The bodies of all polls."""
        return [json.loads(each.form["json"]) for each in self.calls("poll")]

    def event(self, jti: str, **changes: Any) -> str:
        """A good event of this transmitter's, with changes to its claims."""
        return signed(self.key, time.time(), **{"iss": self.issuer, "aud": self.audience, "jti": jti, **changes})

    def say(self, *, under: str = "", **changes: Any) -> str:
        """Have an event told, and return its `jti`; `under` another one in the answer."""
        self._number += 1
        jti = changes.pop("jti", f"said-{self._number}")
        with self._lock:
            self.outbox[under or jti] = self.event(jti, **changes)
        return jti

    def _answer(self, endpoint: str, path: str, form: Mapping[str, str]) -> tuple[int, object]:
        if endpoint == "metadata" and path == f"/.well-known/ssf-configuration{self._path}":
            return 200, self._ssf()
        if endpoint == "poll":
            return self._poll(json.loads(form["json"]))
        if endpoint == "streams":
            return self._streams(json.loads(form["json"]) if "json" in form else None)
        if endpoint == "status":
            return 200, {"stream_id": self.streams[0]["stream_id"], "status": self.status}
        return super()._answer(endpoint, path, form)

    def _ssf(self) -> dict[str, object]:
        document = {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/jwks",
            "configuration_endpoint": f"{self.issuer}/streams",
            "status_endpoint": None if self.status is None else f"{self.issuer}/status",
            "spec_version": "1_0",
        }
        return {name: value for name, value in {**document, **self.metadata_changes}.items() if value is not None}

    def _streams(self, asked: Mapping[str, Any] | None) -> tuple[int, object]:
        """All of them; or one more (SSF 1.0, 8.1.1)."""
        with self._lock:
            found = self._tokens.get(self._calls[-1].headers.get("authorization", "").removeprefix("Bearer "))
            if found is None or "ssf.manage" not in found["form"].get("scope", ""):
                return 403, {}
            if asked is None:
                return 200, self.streams
            wanted = asked["events_requested"]
            made = {
                **asked,
                "stream_id": f"stream-{len(self.streams)}",
                "iss": self.issuer,
                "aud": self.audience,
                "events_delivered": [each for each in wanted if self.supported is None or each in self.supported],
                "delivery": {**asked["delivery"], "endpoint_url": self.poll_url},
            }
            self.streams.append(made)
            return 201, made

    def _poll(self, body: Mapping[str, Any]) -> tuple[int, object]:
        with self._lock:
            call: Call = self._calls[-1]
            found = self._tokens.get(call.headers.get("authorization", "").removeprefix("Bearer "))
            if found is None or found["revoked"] or "ssf.read" not in found["form"].get("scope", ""):
                return 401, {}
            self.acked += body.get("ack", [])
            self.refused |= body.get("setErrs", {})
            if self.forgets:
                for jti in (*body.get("ack", []), *body.get("setErrs", {})):
                    self.outbox.pop(jti, None)
            most = body["maxEvents"] if self.most is None else self.most
            told = dict(list(self.outbox.items())[:most])
            more = len(self.outbox) > len(told) if self.more is None else self.more
        return 200, {"sets": told, "moreAvailable": more}
