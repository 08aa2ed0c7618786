"""What Sojourn is to reach, each a figure of a run: docs/performance.md says of each how far it came."""

from collections.abc import Mapping
from dataclasses import dataclass

from clients import CALLS
from figures import Figure, Line
from floodlines import ASKED, FLOODS, Flood, asked_beside
from keycloaklines import SUSTAINED
from table import number

OURS, TO_SPIRE, TO_KEYCLOAK = "Sojourn", "Sojourn : SPIRE", "Sojourn : Keycloak"


@dataclass(frozen=True, slots=True)
class Aim:
    """`name` and `subject` are those of a figure of a line. One of `at_least` and `at_most` is given."""

    what: str
    line: int
    name: str
    subject: str = TO_SPIRE
    at_least: float | None = None
    at_most: float | None = None

    @property
    def asked(self) -> str:
        return f"≥ {number(self.at_least)}" if self.at_least is not None else f"≤ {number(self.at_most or 0)}"

    def reached(self, figure: Figure) -> bool:
        """The median counts."""
        middle = figure.summary[1]
        return middle >= self.at_least if self.at_least is not None else middle <= (self.at_most or 0)

    def found(self, lines: Mapping[int, Line]) -> Figure | None:
        line = lines.get(self.line)
        figures = line.figures if line else ()
        return next((each for each in figures if (each.name, each.subject) == (self.name, self.subject)), None)


def _beside_spire(call: str, what: str, at_least: float) -> tuple[Aim, Aim]:
    rate = Aim(f"{what}: rate at 8 clients, to SPIRE's", 30, f"{call}, 8 clients: calls", at_least=at_least)
    cpu = f"{call}, 8 clients: daemons' CPU a call"
    return rate, Aim(f"{what}: CPU a call at 8 clients, to SPIRE's", 30, cpu, at_most=1.0)


def _latency(call: str, what: str) -> Aim:
    return Aim(f"{what}: p50 at 1 client, to SPIRE's", 30, f"{call}, 1 client: p50", at_most=1.0)


def _beside_a_flood(call: str, flood: Flood) -> tuple[Aim, Aim]:
    what = asked_beside(call, flood)
    return Aim(f"{what}: p50, ms", 34, f"{what}: p50", OURS, at_most=2.0), Aim(
        f"{what}: p99, to SPIRE's", 34, f"{what}: p99", at_most=1.0
    )


_EXCHANGE = "access token exchanged, 8 connections"
AIMS = (
    *_beside_spire("FetchX509SVID", "FetchX509SVID", 2.0),
    _latency("FetchX509SVID", "FetchX509SVID"),
    *_beside_spire("FetchJWTSVID, a known audience", "FetchJWTSVID, known audience", 1.0),
    _latency("FetchJWTSVID, a known audience", "FetchJWTSVID, known audience"),
    *_beside_spire("ValidateJWTSVID", "ValidateJWTSVID", 1.0),
    _latency("ValidateJWTSVID", "ValidateJWTSVID"),
    Aim(
        "FetchJWTSVID, new audience: rate at 8 clients, to SPIRE's as it comes (500 signatures/s)",
        33,
        "FetchJWTSVID, a new audience each, 8 clients: calls",
        at_least=6.0,
    ),
    Aim(
        "FetchJWTSVID, new audience: rate at 8 clients, to SPIRE's with that limit turned off",
        30,
        "FetchJWTSVID, a new audience each, 8 clients: calls",
        at_least=6.0,
    ),
    Aim(
        "New connections: rate at 8 clients, to SPIRE's",
        30,
        "new connection and FetchX509SVID, 8 clients: calls",
        at_least=1.0,
    ),
    *(
        Aim(f"{what}: p99 at 8 clients, to SPIRE's", 30, f"{what}, 8 clients: p99", at_most=1.0)
        for what in CALLS.values()
    ),
    *(aim for flood in FLOODS for call in ASKED for aim in _beside_a_flood(call, flood)),
    Aim(
        "Registration to the SVID on an open stream: time, to SPIRE's",
        40,
        "entry create: the first stream has the SVID",
        at_most=1 / 100,
    ),
    Aim("Registration to the SVID on 1,000 streams: time, to SPIRE's", 41, "entry create: the last", at_most=1 / 70),
    Aim("Restart with 1,000 clients: errors but UNAVAILABLE", 44, "errors but UNAVAILABLE", "", at_most=0),
    Aim("Token exchange: rate at 8 connections, to Keycloak's", 50, f"{_EXCHANGE}: calls", TO_KEYCLOAK, at_least=4.0),
    Aim("Token exchange for five minutes: rate, to Keycloak's", 55, f"{SUSTAINED}: calls", TO_KEYCLOAK, at_least=4.0),
    Aim(
        "Token exchange: CPU a call at 8 connections, to Keycloak's",
        50,
        f"{_EXCHANGE}: daemons' CPU a call",
        TO_KEYCLOAK,
        at_most=1 / 5,
    ),
    Aim("Memory after the load, to Keycloak's", 50, "after all of it: RSS of all daemons", TO_KEYCLOAK, at_most=1 / 6),
    Aim("RSS idle, MiB", 30, "idle: RSS of all daemons", OURS, at_most=100.0),
    Aim("Start to ready, new data folder, ms", 1, "start to `ready`, new data folder", "", at_most=1000.0),
    Aim("`sojourn entry list` from the shell, ms", 10, "sojourn entry list", "", at_most=300.0),
    Aim("`sojourn svid jwt` from the shell, ms", 10, "sojourn svid jwt", "", at_most=300.0),
)
