"""The witnesses of the signed journal: what they are built of, and how they hear of checkpoints."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING

from sojourn.audit.journal import Audit
from sojourn.audit.signed_log import SignedLog
from sojourn.config.model import Config
from sojourn.errors import InvalidConfig, InvalidInput, NotFound
from sojourn.net.urls import parse_url
from sojourn.runtime.clock import Clock
from sojourn.settings.outside import OutsideTable
from sojourn.settings.witnesses import TimestampsConfig, WitnessConfig
from sojourn.store.audit import AuditTable
from sojourn.tlog.notes import VerifierKey
from sojourn.witness.witnesses import Witnesses

if TYPE_CHECKING:
    from sojourn.witness.stamping import Stamping


def witnesses_of(
    config: Config, journal: AuditTable, signed: SignedLog, audit: Audit, clock: Clock, stack: AsyncExitStack
) -> Witnesses:
    """The witnesses of the configuration, which `stack` ends. Raise InvalidConfig."""
    journal.tiles_needed = signed.cosigned.tiles
    stamps = config.audit.timestamps
    if not config.audit.witnesses and stamps.url is None:
        return Witnesses()
    # Imported where one is configured: nothing else of a small agent speaks HTTP to the outside.
    from sojourn.providers.guarded_http import GuardedHttp
    from sojourn.witness.posting import AboutWitness, WitnessPosting

    made = []
    for each in config.audit.witnesses:
        with _told(f"audit.witnesses: {each.name}"):
            http = GuardedHttp(_outside(each))
        key = VerifierKey.parse_cosigner(each.key)
        about = AboutWitness(each.name, parse_url(each.url).authority, each.url, key, each.every.total_seconds())
        made.append(WitnessPosting(about, http, signed, audit, clock))
    witnesses = Witnesses(made, None if stamps.url is None else _stamping(stamps, signed, clock))
    signed.on_signed(witnesses.wake)
    stack.push_async_callback(witnesses.close)
    return witnesses


def _stamping(config: TimestampsConfig, signed: SignedLog, clock: Clock) -> "Stamping":
    from sojourn.evidence.timestamps import check_installed, roots_of
    from sojourn.providers.guarded_http import GuardedHttp
    from sojourn.witness.stamping import Stamping

    with _told("audit.timestamps"):
        check_installed()
        assert config.url is not None
        assert config.tsa_ca is not None
        roots, http = roots_of(config.tsa_ca), GuardedHttp(_outside(config))
    to, every = parse_url(config.url).authority, config.every.total_seconds()
    return Stamping(config.url, to, every, roots, http, signed, clock)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Within it what is wrong with a table is told with the table's name. Raise InvalidConfig."""
    try:
        yield
    except InvalidConfig as error:
        raise InvalidConfig([f"{what}: {fault}" for fault in error.faults]) from error
    except (InvalidInput, NotFound) as error:
        raise InvalidConfig([f"{what}: {error.public}"]) from error


def _outside(config: WitnessConfig | TimestampsConfig) -> OutsideTable:
    return OutsideTable(
        timeout=config.timeout,
        ca=config.ca,
        private_networks=config.private_networks,
        plain_http=True,  # to loopback addresses, which alone the configuration has as http
    )
