"""The agent: opens the doors of what was built from the configuration, runs, drains. No logic lives here."""

import asyncio
import os
import platform
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from sojourn.agent import container, process, service_status
from sojourn.agent.build import Rooms
from sojourn.agent.journal_pruning import retain
from sojourn.agent.listeners import open_listeners
from sojourn.agent.measuring import Measuring, gauges_of
from sojourn.agent.named_services import services_of
from sojourn.agent.readiness import follow_socket
from sojourn.agent.services import Run, Services
from sojourn.config.load import Loaded
from sojourn.config.model import Config
from sojourn.config.reload import ConfigReload
from sojourn.endpoints.api import metrics
from sojourn.endpoints.api.trust_documents import TrustDocuments
from sojourn.endpoints.grpc.calls import Calls, Method
from sojourn.endpoints.grpc.servers import serve
from sojourn.endpoints.http1.app import HttpApi
from sojourn.endpoints.http1.protocol import HttpProtocols
from sojourn.endpoints.http1.request_queue import Lines
from sojourn.endpoints.listener.bind import listen
from sojourn.endpoints.listener.connection_limits import Admission
from sojourn.endpoints.listener.loop_watchdog import Standstills, Watchdog
from sojourn.endpoints.listener.tls import Listener
from sojourn.endpoints.listener.unix_listener import Door
from sojourn.endpoints.oauth import ssf_events, status_lists
from sojourn.endpoints.oauth.introspection_revocation import TokenState
from sojourn.endpoints.oauth.metadata import MetadataDocuments
from sojourn.endpoints.oauth.token import TokenRequests
from sojourn.errors import SojournError
from sojourn.files import data_folder
from sojourn.http2.server import Handler
from sojourn.identity import adoption
from sojourn.identity.stream_watch import Lookout
from sojourn.limits import (
    ACCEPTED_CALLS_SECONDS,
    ADMIN_CONNECTIONS,
    ADMIN_MESSAGE_MAX_BYTES,
    DRAIN_SECONDS,
    HOLDERS_SHARE,
    HTTPS_DESCRIPTORS_SHARE,
    LOGOUT_DESCRIPTORS_SHARE,
    PUBLIC_REQUEST_MAX_BYTES,
    REMOTE_DESCRIPTORS_SHARE,
    TRUST_DESCRIPTORS_SHARE,
)
from sojourn.net.held_sockets import HeldSocket
from sojourn.quota.turns import Turns
from sojourn.runtime.clock import SystemClock
from sojourn.runtime.logs import Level
from sojourn.runtime.recent_failures import Failures
from sojourn.runtime.service_manager import ServiceManager
from sojourn.runtime.wait_breaker import WaitBreaker
from sojourn.store.pruning import most_of

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Start:
    """How the agent is started. `ready` is called when all sockets answer, with the addresses of the listeners for
    other machines by name, and what people must hear of the task types. `read` reads `file` and the rest of the
    configuration once more, and raises InvalidConfig. `held`: the sockets that systemd holds, by name.
    """

    loaded: Loaded
    ready: Callable[[dict[str, str], str], None]
    read: Callable[[], Loaded]
    file: Path | None = None
    held: Mapping[str, HeldSocket] = field(default_factory=dict)
    manager: ServiceManager = field(default_factory=ServiceManager)


async def run(start: Start, level: Level, failures: Failures) -> None:
    """Run until SIGTERM or SIGINT, then drain. Raise CannotStart.

    SIGHUP has the configuration and the task types read again.
    """
    config = start.loaded.config
    process.check_proc()
    if config.server is None:
        container.check(config)
    descriptors = process.harden()
    async with AsyncExitStack() as stack:
        stack.enter_context(data_folder.claim(config.data_dir))
        service_status.starting(start.manager, config.data_dir)
        stop = asyncio.Event()
        stack.enter_context(process.hear((signal.SIGTERM, signal.SIGINT), stop.set))
        rooms = await _built(Rooms.build(config, descriptors, stack), stop)
        if rooms is None:
            return
        standstills = Standstills(rooms.clock)
        stack.enter_context(closing(Watchdog(standstills, WaitBreaker())))
        async with asyncio.TaskGroup() as group:
            upkeep = [
                group.create_task(rooms.alarms.run()),
                group.create_task(rooms.audit.run()),
                group.create_task(rooms.signed_log.run()),
                group.create_task(rooms.sinks.run()),
                group.create_task(rooms.witnesses.run()),
                group.create_task(rooms.journal_index.run()),
                group.create_task(rooms.pruning.run()),
                group.create_task(rooms.usage_upkeep.run()),
                group.create_task(rooms.recertifying.run()),
                group.create_task(rooms.probe.run()),
                group.create_task(rooms.last_backup.run()),
                *([] if rooms.marking is None else [group.create_task(rooms.marking.run())]),
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
            for poller in rooms.hearing.pollers:
                poller.counted = ssf_events.count
            hearing = group.create_task(rooms.hearing.run())
            upkeep.append(hearing)
            stack.callback(hearing.cancel)  # before what it asks by is closed
            reload = ConfigReload(start.loaded, start.file, start.read, rooms.audit, rooms.clock)
            _apply_at_once(reload, rooms, level, config.data_dir)
            status = service_status.ServiceStatus(start.manager, lambda: service_status.line_of(rooms, reload))
            stack.callback(status.close)
            reload.on_read = lambda: status.was_read(service_status.CONFIGURATION)
            rooms.policies.folder.on_read = lambda: status.was_read(service_status.TASK_TYPES)

            def again() -> None:
                status.reloading()
                reload.wake()
                rooms.policies.wake()

            stack.enter_context(process.hear((signal.SIGHUP,), again))
            upkeep.append(group.create_task(rooms.signing.run()))
            rooms.alarms.on_step(rooms.issuing.check_clock)
            rooms.alarms.on_step(rooms.registry.check_clock)
            if rooms.followed is not None:
                await rooms.followed.look()
                upkeep.append(group.create_task(rooms.followed.run()))
            if not rooms.registry.of_all_nodes:
                adoption.tell(rooms.registry)
            rooms.engine.holding.look()
            api, listeners = _http_api(config, rooms), list[Listener]()
            documents = TrustDocuments(rooms.authority, config.issuer, config.listen.trust_url)
            measuring = None if config.metrics.listen is None else Measuring(config, rooms, listeners)
            told = (level, failures, reload, standstills, measuring)
            doors = await _open_doors(config, rooms, api, documents, listeners, told, descriptors, start.held, stack)
            upkeep.append(group.create_task(reload.run()))
            listeners += await open_listeners(config, rooms, api, documents, descriptors, stack)
            if config.metrics.listen is not None and measuring is not None:
                gauges = gauges_of(rooms, reload)
                served = await metrics.start(config.metrics.listen, gauges, measuring.collectors(), rooms.readiness)
                stack.callback(served.close)
            rooms.audit.note("agent_started", epoch=rooms.engine.epoch, pid=os.getpid(), uid=os.geteuid())
            rooms.recovery.open_window()
            rooms.federating.start()
            stack.push_async_callback(rooms.federating.close)
            stack.push_async_callback(rooms.attestation.close)
            upkeep.append(group.create_task(rooms.attestation.check()))
            process.settle()
            status.ready()
            start.ready({each.name: each.address for each in listeners}, rooms.policies.caution)
            await stop.wait()
            status.stopping()
            log.info("agent_draining")
            if start.held:  # the next agent has the same sockets
                for door in doors:
                    door.leave_in_line()
                await asyncio.sleep(ACCEPTED_CALLS_SECONDS)
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


async def _built(building: Coroutine[Any, Any, Rooms], stop: asyncio.Event) -> Rooms | None:
    """The rooms; None: the agent is to stop before they are there. What is left of them is taken down in order then,
    since a join token may have been used up by now.
    """
    rooms, stopped = asyncio.ensure_future(building), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({rooms, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if not rooms.done():
            rooms.cancel()
            await asyncio.wait({rooms})
    return None if rooms.cancelled() else rooms.result()


def _http_api(config: Config, rooms: Rooms) -> HttpApi:
    lines = Lines()
    return HttpApi(
        rooms.engine,
        rooms.authority,
        TokenRequests(rooms.granting, lines, rooms.audit, rooms.clock),
        TokenState(rooms.clients, rooms.introspection, rooms.token_revocation, lines, rooms.audit),
        MetadataDocuments(
            rooms.engine, rooms.audiences, rooms.authority, config.listen, id_jags=rooms.people.takes_id_jags
        ),
    )


async def _open_doors(
    config: Config,
    rooms: Rooms,
    api: HttpApi,
    documents: TrustDocuments,
    listeners: Sequence[Listener],
    told: tuple[Level, Failures, ConfigReload, Standstills, Measuring | None],
    descriptors: int,
    held: Mapping[str, HeldSocket],
    stack: AsyncExitStack,
) -> tuple[Door, Door]:
    level, failures, reload, standstills, measuring = told
    elsewhere = 0 if config.listen.tcp is None else REMOTE_DESCRIPTORS_SHARE
    elsewhere += 0 if config.listen.https is None else HTTPS_DESCRIPTORS_SHARE
    elsewhere += 0 if config.listen.trust is None else TRUST_DESCRIPTORS_SHARE
    elsewhere += 0 if config.listen.people is None else LOGOUT_DESCRIPTORS_SHARE
    admission = Admission.within(descriptors, 1 - HOLDERS_SHARE - elsewhere, config.limits, rooms.clock)

    async def limit(new: Config) -> None:
        admission.allow(new.limits)

    reload.on([f"limits.{key}" for key in type(config.limits).model_fields], limit)
    lists = status_lists.routes(rooms.engine)
    turns = Turns()
    events = ssf_events.EventsApi(rooms.signals, rooms.identities, rooms.clock, rooms.alarms)
    stack.push_async_callback(events.close)
    http = HttpProtocols(api.app([*events.routes(), *lists]), turns)
    public = Door(admission, rooms.subordinates, turns=turns, http=http.of_peer)
    owners = frozenset({0, os.geteuid()})
    # A door of its own, so that no workload can take the operator's place.
    operators = Admission(
        rooms.clock, connections=ADMIN_CONNECTIONS, per_uid=ADMIN_CONNECTIONS, per_uid_per_second=ADMIN_CONNECTIONS
    )
    private = Door(operators, rooms.subordinates, admit=owners, name="admin")
    if measuring is not None:
        measuring.follow(public, private)

    services = Services(config, rooms)
    calls, admin_calls = Calls(rooms.audit, header=True), Calls(rooms.audit, header=False, whole=True, door="admin")
    envoy_calls = Calls(rooms.audit, header=False)
    envoy = _handlers(envoy_calls, services.of_envoy())
    own = _handlers(calls, services.of_workloads()) | envoy
    administration = _handlers(
        admin_calls, services.of_operators(Run(level, failures, reload, public, listeners, documents, standstills))
    )
    for door, path, mode, name, made, common, maximum in (
        (public, config.socket, 0o777, "agent", own, envoy_calls, PUBLIC_REQUEST_MAX_BYTES),
        (private, config.admin_socket, 0o600, "admin", administration, admin_calls, ADMIN_MESSAGE_MAX_BYTES),
    )[config.server is not None :]:  # a server has no workloads
        listener = listen(path, mode, held.get(name), stack)
        door.server = serve(made, common, rooms.readiness, message_max_bytes=maximum, turns=door.turns)
        stack.push_async_callback(door.drain)
        await door.open(listener)
        follow_socket(rooms.readiness, path)
        stack.callback(door.stop_accepting)
    stack.callback(http.close)
    return public, private


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
        retain(rooms.pruning, new.audit, rooms.audit)

    async def usage(new: Config) -> None:
        rooms.usage_upkeep.keep = new.audit.usage_keep

    async def types(new: Config) -> None:
        await rooms.policies.move(new.tasks.types_dir, require_cases=new.tasks.require_cases)

    async def candidate(new: Config) -> None:
        await rooms.policies.follow_candidate(new.tasks.shadow_types_dir)

    reload.on(["log.level"], log_level)
    reload.on(["services"], services)
    reload.on(["audit.keep", "audit.max_bytes"], audit)
    reload.on(["audit.usage_keep"], usage)
    reload.on(["tasks.types_dir", "tasks.require_cases"], types)
    reload.on(["tasks.shadow_types_dir"], candidate)


def _handlers(calls: Calls, services: Mapping[str, dict[str, Method]]) -> dict[str, Mapping[str, Handler]]:
    return {name: calls.service(name, methods) for name, methods in services.items()}


def main(start: Start) -> None:
    """Run the agent in the foreground until it is told to stop. Raise CannotStart and its kin."""
    import uvloop

    from sojourn.runtime import logs

    failures = Failures(SystemClock())
    level = logs.configure(start.loaded.config.log.level, failures.hear)
    log.info(
        "agent_starting",
        version=version("sojourn"),
        node=str(start.loaded.config.node_id),
        python=platform.python_version(),
        kernel=os.uname().release,
        pid=os.getpid(),
        uid=os.geteuid(),
    )
    try:
        uvloop.run(run(start, level, failures))
    except BaseExceptionGroup as group:
        for error in group.exceptions:
            if isinstance(error, SojournError):
                raise error from group
        raise
