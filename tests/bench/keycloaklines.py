"""The token service beside Keycloak: the same clients on both, in turns."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

from beside import Load, Run, Subject, beside, memory
from checkedtokens import checked_tokens
from figures import Figure, Missing
from ground import Bench
from httpload import Work, http_load
from keycloakpeer import KeycloakPeer, keycloak_beside
from peers import HTTP_CLIENT
from tokenground import ONCE, TokenGround, token_ground
from workloadlines import ONLY_FULL

AT_ONCE = (1, 8, 64)
EXCHANGED = "access token exchanged"
INTROSPECTED = "introspection"
FIRST = "JWT-SVID to a first token, one call"
WHOLE = "JWT-SVID to the service's token"  # one call of Sojourn, two of Keycloak
SUSTAINED_SECONDS, PART_SECONDS = 300, 30
SUSTAINED = f"{WHOLE}, 8 connections, {SUSTAINED_SECONDS} s without a pause"
TLS = "over TLS: "
CREDENTIALS = "client_credentials"
NOTES = (
    "Sojourn: on its Unix socket, callers attested, each decision and each task recorded on disk; over TLS by X.509-SVID",
    "Keycloak: plain HTTP on loopback, a JWT-SVID as client authentication in each call; dev-mem, its default heap",
    f"{WHOLE}: one call of Sojourn, which begins a task; two of Keycloak, to which an SVID is client authentication alone",
)


def beside_keycloak(bench: Bench) -> Iterator[Figure | str]:
    HTTP_CLIENT.there()
    with contextlib.ExitStack() as stack:
        keycloak = None
        site = stack.enter_context(token_ground())
        subjects, ours = [site.subject], _ours(site)
        try:
            bench.say("Keycloak starts")
            keycloak = stack.enter_context(keycloak_beside(site))
        except Missing as error:
            yield f"missing: {error}"
        else:
            yield f"Keycloak: ready after {keycloak.start_seconds:.0f} s, and warmed up by {keycloak.warm(bench):,} calls"
            subjects.append(keycloak.subject)
        yield from memory(subjects, "before")
        for what, work in ours.items():
            for connections in _at_once(bench, what):
                works = {site.subject.name: work}
                if keycloak is not None:
                    works[keycloak.subject.name] = _theirs(keycloak)[what]
                named = f"{what}, {connections} connection{'' if connections == 1 else 's'}"
                with http_load(works, connections) as load:
                    yield from beside(bench, subjects, named, load, client=True)
        yield from memory(subjects, "after all of it")
        if keycloak is not None:
            yield from checked_tokens(bench, site, keycloak)
    yield from NOTES


def _at_once(bench: Bench, what: str) -> tuple[int, ...]:
    return AT_ONCE if bench.full and not what.startswith(TLS) else (8,)


def _ours(site: TokenGround) -> dict[str, Work]:
    from_svid = site.work(site.from_svid(ONCE, "doc:read"))
    credentials = site.client_credentials("docs", "doc:read", "doc:write")
    return {
        EXCHANGED: site.work(site.narrower(), before=[site.wider()]),
        INTROSPECTED: site.work(site.introspection(), before=[site.wider()]),
        FIRST: from_svid,
        WHOLE: from_svid,
        f"{TLS}{EXCHANGED}": site.work(site.narrower(), before=[credentials], tls=True),
        f"{TLS}{CREDENTIALS}": site.work(site.client_credentials(ONCE, "doc:read"), tls=True),
    }


def _theirs(keycloak: KeycloakPeer) -> dict[str, Work]:
    first, exchange, secure = keycloak.first(), keycloak.exchange(), keycloak.first(tls=True)
    return {
        EXCHANGED: keycloak.work(exchange, before=[first]),
        INTROSPECTED: keycloak.work(keycloak.introspection(), before=[first, exchange]),
        FIRST: keycloak.work(first),
        WHOLE: keycloak.work(first, exchange),
        f"{TLS}{EXCHANGED}": keycloak.work(keycloak.exchange(tls=True), before=[secure], tls=True),
        f"{TLS}{CREDENTIALS}": keycloak.work(secure, tls=True),
    }


# --- 55 ---


def sustained(bench: Bench) -> Iterator[Figure | str]:
    """For as long as several lives of a token: what each leaves behind is there in full, and goes as fast as it comes."""
    HTTP_CLIENT.there()
    if not bench.full:
        yield ONLY_FULL
        return
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(token_ground())
        subjects = [site.subject]
        held = {site.subject.name: _held(lambda: site.work(site.from_svid("docs", "doc:read")))}
        try:
            bench.say("Keycloak starts")
            keycloak = stack.enter_context(keycloak_beside(site))
        except Missing as error:
            yield f"missing: {error}"
        else:
            keycloak.warm(bench)
            subjects.append(keycloak.subject)
            held[keycloak.subject.name] = _held(lambda: keycloak.work(keycloak.first(), keycloak.exchange()))
        yield from memory(subjects, "before")
        load = _by_name(held)
        yield from beside(bench, subjects, SUSTAINED, load, seconds=SUSTAINED_SECONDS, repetitions=1, warm=False)
        yield from memory(subjects, "after it")
    yield f"each in parts of {PART_SECONDS} s, as Keycloak refuses JWT-SVIDs of minutes ago; p50: their median; p99: their worst"


def _by_name(loads: Mapping[str, Load]) -> Load:
    return lambda subject, seconds: loads[subject.name](subject, seconds)


def _held(work: Callable[[], Work]) -> Load:
    """A load of eight connections in parts, each of which has its own JWT-SVID and begins as the one before ends."""

    def load(subject: Subject, seconds: float) -> Run:
        parts = []
        for _ in range(round(seconds / PART_SECONDS)):
            with http_load({subject.name: work()}, 8) as part:
                parts.append(part(subject, PART_SECONDS))
        return Run.joined(parts)

    return load


KEYCLOAK_LINES = (
    (50, "token service: Sojourn beside Keycloak, HTTP client in Go", beside_keycloak),
    (55, "token service, sustained: Sojourn beside Keycloak, HTTP client in Go", sustained),
)
