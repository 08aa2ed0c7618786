"""The agent: opens the doors of what was built from the configuration, runs, drains. No logic lives here."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from sojourn.agent import process
from sojourn.agent.build import Rooms, services_of
from sojourn.agent.services import Run, Services
from sojourn.authority.key_upkeep import Upkeep
from sojourn.config.model import Config
from sojourn.config.reload import ConfigReload
from sojourn.endpoints.admin import attestors, credentials
from sojourn.endpoints.api import metrics, notice_metrics, task_metrics, validation
from sojourn.endpoints.api.trust_documents import TrustDocuments
from sojourn.endpoints.grpc.calls import Calls, Method
from sojourn.endpoints.grpc.servers import serve
from sojourn.endpoints.http1.app import HttpApi
from sojourn.endpoints.http1.protocol import HttpProtocols
from sojourn.endpoints.http1.request_queue import Lines
from sojourn.endpoints.listener import remote_validators, token_service, trust_bundle
from sojourn.endpoints.listener.bind import bind, unbind
from sojourn.endpoints.listener.connection_limits import Admission
from sojourn.endpoints.listener.loop_watchdog import Standstills, Watchdog
from sojourn.endpoints.listener.own_svid import OwnSvid
from sojourn.endpoints.listener.tls import Listener
from sojourn.endpoints.listener.unix_listener import Door
from sojourn.endpoints.oauth import ssf_events, status_lists
from sojourn.endpoints.oauth.introspection_revocation import TokenState
from sojourn.endpoints.oauth.metadata import MetadataDocuments
from sojourn.endpoints.oauth.token import TokenRequests
from sojourn.errors import SojournError
from sojourn.http2.server import Handler
from sojourn.identity import adoption
from sojourn.identity.stream_watch import Lookout
from sojourn.limits import (
    ADMIN_CONNECTIONS,
    ADMIN_MESSAGE_MAX_BYTES,
    DRAIN_SECONDS,
    HOLDERS_SHARE,
    HTTPS_DESCRIPTORS_SHARE,
    PUBLIC_REQUEST_MAX_BYTES,
    REMOTE_DESCRIPTORS_SHARE,
    TRUST_DESCRIPTORS_SHARE,
)
from sojourn.quota.turns import Turns
from sojourn.runtime.clock import SystemClock
from sojourn.runtime.logs import Level
from sojourn.runtime.recent_failures import Failures
from sojourn.runtime.wait_breaker import WaitBreaker
from sojourn.store.pruning import most_of
from sojourn.tasks.type_folder import LAST_GOOD

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Start:
    """How the agent is started. `ready` is called when all sockets answer, with the addresses of the listeners for
    other machines by name, and what people must hear of the task types. `read` reads `file` and the rest of the
    configuration once more, and raises InvalidConfig.
    """

    config: Config
    ready: Callable[[dict[str, str], str], None]
    read: Callable[[], Config]
    file: Path | None = None


async def run(start: Start, level: Level, failures: Failures) -> None:
    """Run until SIGTERM or SIGINT, then drain. Raise CannotStart.

    SIGHUP has the configuration and the task types read again.
    """
    config = start.config
    process.check_proc()
    descriptors = process.harden()
    async with AsyncExitStack() as stack:
        stack.enter_context(process.claim_data_dir(config.data_dir))
        rooms = await Rooms.build(config, descriptors, stack)
        stop, standstills = asyncio.Event(), Standstills(rooms.clock)
        stack.enter_context(process.hear((signal.SIGTERM, signal.SIGINT), stop.set))
        stack.enter_context(closing(Watchdog(standstills, WaitBreaker())))
        async with asyncio.TaskGroup() as group:
            upkeep = [
                group.create_task(rooms.alarms.run()),
                group.create_task(rooms.audit.run()),
                group.create_task(rooms.pruning.run()),
                group.create_task(rooms.engine.journal.run()),
                group.create_task(rooms.book.journal.run()),
                group.create_task(Lookout(rooms.identities.streams).run()),
                group.create_task(rooms.policies.run()),
                group.create_task(rooms.subordinates.run()),
            ]
            if rooms.notices is not None:
                telling = group.create_task(rooms.notices.run())
                upkeep.append(telling)
                stack.callback(telling.cancel)  # before what it delivers by is closed
            reload = ConfigReload(config, start.file, start.read, rooms.audit, rooms.clock)
            _apply_at_once(reload, rooms, level, config.data_dir)

            def again() -> None:
                reload.wake()
                rooms.policies.wake()

            stack.enter_context(process.hear((signal.SIGHUP,), again))
            Upkeep(rooms.authority, rooms.alarms).run()
            rooms.alarms.on_step(rooms.issuing.check_clock)
            rooms.alarms.on_step(rooms.registry.check_clock)
            if rooms.followed is not None:
                await rooms.followed.look()
                upkeep.append(group.create_task(rooms.followed.run()))
            adoption.tell(rooms.registry)
            rooms.engine.holding.look()
            api, listeners = _http_api(config, rooms), list[Listener]()
            documents = TrustDocuments(rooms.authority, config.issuer, config.listen.trust_url)
            told = (level, failures, reload, standstills)
            await _open_doors(config, rooms, api, documents, listeners, told, descriptors, stack)
            upkeep.append(group.create_task(reload.run()))
            listeners += await _open_listeners(config, rooms, api, documents, descriptors, stack)
            if config.metrics.listen is not None:
                outside = credentials.CredentialMetrics(rooms.book, rooms.recalling, rooms.outlets, rooms.clock)
                notified = [] if rooms.notices is None else [notice_metrics.NoticeMetrics(rooms.notices)]
                served = await metrics.start(config.metrics.listen, _gauges(rooms, reload), [outside, *notified])
                stack.callback(served.close)
            rooms.audit.note("agent_started", epoch=rooms.engine.epoch, pid=os.getpid(), uid=os.geteuid())
            rooms.recovery.open_window()
            rooms.federating.start()
            stack.push_async_callback(rooms.federating.close)
            stack.push_async_callback(rooms.attestation.close)
            upkeep.append(group.create_task(rooms.attestation.check()))
            process.settle()
            start.ready({each.name: each.address for each in listeners}, rooms.policies.caution)
            await stop.wait()
            log.info("agent_draining")
            rooms.identities.close()
            rooms.engine.close()
            await rooms.handing.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await rooms.engine.journal.drain()
                    await rooms.book.journal.drain()
            await stack.aclose()
            for task in upkeep:
                task.cancel()


def _http_api(config: Config, rooms: Rooms) -> HttpApi:
    lines = Lines()
    return HttpApi(
        rooms.engine,
        rooms.authority,
        TokenRequests(rooms.granting, lines, rooms.audit, rooms.clock),
        TokenState(rooms.clients, rooms.introspection, rooms.token_revocation, lines, rooms.audit),
        MetadataDocuments(rooms.engine, rooms.audiences, rooms.authority, config.listen),
    )


async def _open_doors(
    config: Config,
    rooms: Rooms,
    api: HttpApi,
    documents: TrustDocuments,
    listeners: Sequence[Listener],
    told: tuple[Level, Failures, ConfigReload, Standstills],
    descriptors: int,
    stack: AsyncExitStack,
) -> None:
    level, failures, reload, standstills = told
    elsewhere = 0 if config.listen.tcp is None else REMOTE_DESCRIPTORS_SHARE
    elsewhere += 0 if config.listen.https is None else HTTPS_DESCRIPTORS_SHARE
    elsewhere += 0 if config.listen.trust is None else TRUST_DESCRIPTORS_SHARE
    admission = Admission.within(descriptors, 1 - HOLDERS_SHARE - elsewhere, config.limits, rooms.clock)

    async def limit(new: Config) -> None:
        admission.allow(new.limits)

    reload.on([f"limits.{key}" for key in type(config.limits).model_fields], limit)
    lists = status_lists.routes(rooms.engine)
    turns = Turns()
    http = HttpProtocols(api.app([*ssf_events.EventsApi(rooms.signals, rooms.identities).routes(), *lists]), turns)
    public = Door(admission, rooms.subordinates, turns=turns, http=http.of_peer)
    owners = frozenset({0, os.geteuid()})
    # A door of its own, so that no workload can take the operator's place.
    operators = Admission(
        rooms.clock, connections=ADMIN_CONNECTIONS, per_uid=ADMIN_CONNECTIONS, per_uid_per_second=ADMIN_CONNECTIONS
    )
    private = Door(operators, rooms.subordinates, admit=owners)

    services = Services(config, rooms)
    calls, admin_calls = Calls(rooms.audit, header=True), Calls(rooms.audit, header=False, whole=True)
    envoy_calls = Calls(rooms.audit, header=False)
    attestors.measure(rooms.attestation.tally)
    task_metrics.TaskMetrics(rooms.audit, rooms.judging.uses, rooms.refusals)
    envoy = _handlers(envoy_calls, services.of_envoy())
    own = _handlers(calls, services.of_workloads()) | envoy
    administration = _handlers(
        admin_calls, services.of_operators(Run(level, failures, reload, public, listeners, documents, standstills))
    )
    for door, path, mode, made, common, maximum in (
        (public, config.socket, 0o777, own, envoy_calls, PUBLIC_REQUEST_MAX_BYTES),
        (private, config.admin_socket, 0o600, administration, admin_calls, ADMIN_MESSAGE_MAX_BYTES),
    ):
        listener = bind(path, mode)
        stack.callback(unbind, path, listener)
        door.server = serve(made, common, message_max_bytes=maximum, turns=door.turns)
        stack.push_async_callback(door.drain)
        await door.open(listener)
        stack.callback(door.stop_accepting)
    stack.callback(http.close)


def _apply_at_once(reload: ConfigReload, rooms: Rooms, level: Level, data_dir: Path) -> None:
    """Which keys need no restart."""

    async def log_level(new: Config) -> None:
        level.set(new.log.level)
        level.launch = new.log.level

    async def services(new: Config) -> None:
        rooms.audiences.replace(services_of(new))

    async def audit(new: Config) -> None:
        most = new.audit.max_bytes
        rooms.pruning.max_bytes = await asyncio.to_thread(most_of, data_dir) if most is None else most

    async def types(new: Config) -> None:
        await rooms.policies.move(new.tasks.types_dir, require_cases=new.tasks.require_cases)

    async def candidate(new: Config) -> None:
        await rooms.policies.follow_candidate(new.tasks.shadow_types_dir)

    reload.on(["log.level"], log_level)
    reload.on(["services"], services)
    reload.on(["audit.max_bytes"], audit)
    reload.on(["tasks.types_dir", "tasks.require_cases"], types)
    reload.on(["tasks.shadow_types_dir"], candidate)


async def _open_listeners(
    config: Config,
    rooms: Rooms,
    api: HttpApi,
    documents: TrustDocuments,
    descriptors: int,
    stack: AsyncExitStack,
) -> list[Listener]:
    """Those for other machines that the configuration has."""
    own = OwnSvid(config.node_id, rooms.authority, rooms.issuing)
    remote_http = HttpProtocols(api.app(status_lists.routes(rooms.engine)))
    listeners = token_service.open_https(
        config.listen,
        token_service.HttpsDoor(remote_http, rooms.authority, rooms.revocations, rooms.clock, rooms.alarms),
        own,
        rooms.revocations,
        rooms.clock,
        descriptors,
        stack,
    )
    stack.callback(remote_http.close)
    trust_http = HttpProtocols(trust_bundle.TrustApp(documents))
    listeners += trust_bundle.open_trust(
        config.listen,
        trust_bundle.TrustDoor(trust_http, rooms.authority, rooms.revocations, rooms.clock, rooms.alarms),
        own,
        rooms.clock,
        descriptors,
        stack,
    )
    stack.callback(trust_http.close)
    listeners += await remote_validators.open_listener(
        config.listen,
        remote_validators.RemoteDoor(rooms.authority, rooms.revocations, rooms.clock, rooms.alarms),
        own,
        lambda callers: validation.ValidationApi(
            rooms.judging, rooms.engine, rooms.audiences, rooms.clock, callers, rooms.refusals
        ),
        rooms.audit,
        descriptors,
        stack,
    )
    return listeners


def _handlers(calls: Calls, services: Mapping[str, dict[str, Method]]) -> dict[str, Mapping[str, Handler]]:
    return {name: calls.service(name, methods) for name, methods in services.items()}


def _gauges(rooms: Rooms, reload: ConfigReload) -> metrics.Gauges:
    return (
        (
            "sojourn_config_restart_needed",
            "Keys of the configuration whose values are in force after a restart.",
            lambda: len(reload.restart_needed),
        ),
        (
            "sojourn_config_refused",
            "1 while the configuration that was read again cannot be used.",
            lambda: bool(reload.fault),
        ),
        ("sojourn_entries", "Registration entries.", lambda: len(rooms.registry)),
        ("sojourn_foreign_bundles", "Bundles of other trust domains.", lambda: len(rooms.foreign)),
        ("sojourn_federation_relationships", "Bundles that are followed.", lambda: len(rooms.federating.all())),
        (
            "sojourn_federation_failing",
            "Bundles that are followed, and whose last fetch failed.",
            lambda: rooms.federating.failing,
        ),
        (
            "sojourn_federation_oldest_fetch_seconds",
            "How long ago the followed bundle was fetched that was longest not fetched.",
            lambda: rooms.federating.oldest_seconds,
        ),
        ("sojourn_streams", "Open streams.", lambda: len(rooms.identities.streams)),
        ("sojourn_x509_svids", "X.509-SVIDs in use.", lambda: len(rooms.issuing.x509.kept())),
        ("sojourn_task_types", "Task types in force.", lambda: len(rooms.engine.types)),
        (
            "sojourn_policy_refused",
            "1 while the task types of the folder cannot be used.",
            lambda: bool(rooms.policies.folder.fault),
        ),
        (
            "sojourn_policy_last_good",
            "1 while the last good set of task types is in force, since the folder's could not be at the start.",
            lambda: rooms.policies.folder.origin == LAST_GOOD,
        ),
        ("sojourn_policy_none", "1 while no set of task types is in force.", lambda: bool(rooms.engine.no_types)),
        ("sojourn_tasks_live", "Live tasks.", lambda: len(rooms.engine.tasks)),
        ("sojourn_approvals_waiting", "Tasks that wait for approval.", lambda: len(rooms.engine.waiting)),
        ("sojourn_reviews_owed", "Reviews owed of break-glass tasks.", lambda: len(rooms.approving.reviews.all())),
        ("sojourn_validators", "Validators that watch.", lambda: len(rooms.engine.feed)),
    )


def main(start: Start) -> None:
    """Run the agent in the foreground until it is told to stop. Raise CannotStart and its kin."""
    import uvloop

    from sojourn.runtime import logs

    failures = Failures(SystemClock())
    level = logs.configure(start.config.log.level, failures.hear)
    try:
        uvloop.run(run(start, level, failures))
    except BaseExceptionGroup as group:
        for error in group.exceptions:
            if isinstance(error, SojournError):
                raise error from group
        raise
