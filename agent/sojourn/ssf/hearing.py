"""The issuers of signed events that the configuration has, and those of them that are polled."""

import asyncio
from collections.abc import Mapping, Sequence

from sojourn.errors import InvalidConfig
from sojourn.providers.http import Http
from sojourn.providers.provider import Mint
from sojourn.runtime.clock import Clock
from sojourn.settings.plugin_loader import faults_below
from sojourn.settings.signals import SignalsConfig
from sojourn.ssf.bearer import Bearer
from sojourn.ssf.issuer_keys import EventKeys, FetchedSignalKeys, SignalKeys
from sojourn.ssf.poll import CreatedStream, Fixed, Poller, Where
from sojourn.ssf.receiver import Issuer, Signals
from sojourn.ssf.stream import Streams
from sojourn.ssf.transmitter import TransmitterDiscovery


class Hearing:
    """Makes the issuers, and what they are asked by."""

    def __init__(self, tables: Sequence[SignalsConfig], audience: str, people: Mapping[str, str], clock: Clock) -> None:
        """`audience` and `people` as Issuer.of has them. Raise InvalidConfig if a `ca` is no file of certificates."""
        self._clock = clock
        self._https: dict[str, Http] = {}
        self._bearers: list[Bearer] = []
        self._discoveries: dict[str, TransmitterDiscovery] = {}
        self.issuers: list[Issuer] = []
        self.pollers: list[Poller] = []
        self._tables = tables
        faults: list[str] = []
        for table in tables:
            try:
                keys = self._keys_of(table)
            except InvalidConfig as error:
                faults += faults_below("signals", table.issuer, error)
                continue
            self.issuers.append(Issuer.of(table, audience, people, keys))
        if faults:
            raise InvalidConfig(faults)

    def poll(self, signals: Signals, mint: Mint, node: str) -> None:
        """Make the pollers, which do nothing before `run`. `mint` gives JWT-SVIDs of the node, whose ID is `node`."""
        for table, issuer in zip(self._tables, self.issuers, strict=True):
            if not table.is_polled:
                continue
            http = self._https[table.issuer]
            bearer = Bearer(table, http, self._clock, mint, table.scopes)
            self._bearers.append(bearer)
            where: Where = Fixed(table.poll or "")
            if table.stream is not None:
                streams = Streams(self._discoveries[table.issuer], table.issuer, http, bearer, node)
                where = CreatedStream(streams, issuer, self._clock, named=table.audience is not None)
            every = table.poll_every.total_seconds()
            self.pollers.append(Poller(issuer, where, every, signals, http, bearer, self._clock))

    async def run(self) -> None:
        """Poll until cancelled: no issuer waits for another."""
        async with asyncio.TaskGroup() as group:
            for each in self.pollers:
                group.create_task(each.run())

    async def close(self) -> None:
        """Let go of connections."""
        for issuer in self.issuers:
            await issuer.keys.close()
        for discovery in self._discoveries.values():
            await discovery.close()
        for bearer in self._bearers:
            await bearer.close()
        for http in self._https.values():
            await http.close()

    def _keys_of(self, table: SignalsConfig) -> EventKeys:
        """Where an issuer's keys come from; and what it is asked by, if it is."""
        if table.jwks is not None and not table.is_polled:
            return SignalKeys(table.jwks)
        from sojourn.providers.guarded_http import GuardedHttp  # with it comes an HTTP library: for those who use it

        http = self._https[table.issuer] = GuardedHttp(table)
        discovery = self._discoveries[table.issuer] = TransmitterDiscovery(table.issuer, http, self._clock)
        if table.jwks is not None:
            return SignalKeys(table.jwks)
        return FetchedSignalKeys(table.issuer, discovery, http, self._clock)
