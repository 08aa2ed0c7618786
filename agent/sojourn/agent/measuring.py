"""What is counted for Prometheus: from the start of a run on, where it is to be scraped."""

from collections.abc import Sequence

from prometheus_client.registry import Collector

from sojourn.agent.build import Rooms
from sojourn.config.model import Config
from sojourn.config.reload import ConfigReload
from sojourn.endpoints.admin import attestors
from sojourn.endpoints.admin.credentials import CredentialMetrics
from sojourn.endpoints.api import metrics
from sojourn.endpoints.api.notice_metrics import NoticeMetrics
from sojourn.endpoints.api.task_metrics import TaskMetrics
from sojourn.endpoints.listener.tls import Listener
from sojourn.endpoints.listener.unix_listener import Door
from sojourn.endpoints.metrics.authority import AuthorityMetrics, count_issued
from sojourn.endpoints.metrics.decisions import DecisionMetrics
from sojourn.endpoints.metrics.doors import DoorMetrics, count_no_identity
from sojourn.endpoints.metrics.node import NodeMetrics
from sojourn.endpoints.metrics.nodes import NodesMetrics
from sojourn.endpoints.metrics.run import RunMetrics, count_steps
from sojourn.endpoints.metrics.signals import SignalMetrics
from sojourn.endpoints.metrics.sinks import SinkMetrics
from sojourn.endpoints.metrics.store import COMMIT, StoreMetrics
from sojourn.endpoints.metrics.upstream_authority import UpstreamAuthorityMetrics
from sojourn.endpoints.metrics.witnesses import WitnessMetrics
from sojourn.tasks.type_folder import LAST_GOOD


class Measuring:
    """Hooks into the rooms, which count at each cause, and collectors, which look when they are asked."""

    def __init__(self, config: Config, rooms: Rooms, listeners: Sequence[Listener]) -> None:
        """`listeners` grows as they are opened."""
        self._doors = DoorMetrics()
        self._listeners = listeners
        self._tasks = TaskMetrics(rooms.engine, rooms.audit, rooms.judging.uses, rooms.refusals)
        self._decisions = DecisionMetrics()
        rooms.engine.on_decision(self._decisions.decided)
        attestors.measure(rooms.attestation.tally)
        count_issued(rooms.audit)
        count_no_identity(rooms.identities)
        count_steps(rooms.alarms)
        rooms.on_commit(COMMIT.observe)
        node = rooms.signing.told
        self._others = [
            RunMetrics(rooms.readiness, rooms.restarts),
            AuthorityMetrics(rooms.authority, rooms.issuing, listeners),
            UpstreamAuthorityMetrics(rooms.authority) if node is None else NodeMetrics(node),
            *([] if rooms.signing.nodes is None else [NodesMetrics(rooms.signing.nodes)]),
            StoreMetrics(config.data_dir, rooms.pruning, rooms.audit, rooms.signed_log, rooms.readiness),
            CredentialMetrics(rooms.book, rooms.recalling, rooms.outlets, rooms.clock),
            *([] if rooms.notices is None else [NoticeMetrics(rooms.notices)]),
            SinkMetrics(rooms.sinks),
            WitnessMetrics(rooms.witnesses),
            SignalMetrics(rooms.hearing.issuers),
        ]

    def follow(self, public: Door, private: Door) -> None:
        """Count at the sockets from now on."""
        self._doors.follow({"workload": public, "admin": private})

    def collectors(self) -> list[Collector]:
        """All of them, once every listener is open."""
        self._doors.follow({each.name: each.door for each in self._listeners})
        return [self._doors, self._tasks, self._decisions, *self._others]


def gauges_of(rooms: Rooms, reload: ConfigReload) -> metrics.Gauges:
    """What is one number, each with its name and what it tells."""
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
        (
            "sojourn_backup_last_success_timestamp_seconds",
            "When the last backup of the data folder was made; 0: never, as far as is known.",
            lambda: rooms.last_backup.timestamp,
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
        (
            "sojourn_reviews_due",
            "Task types whose review is due within two weeks, and not overdue.",
            rooms.recertifying.due,
        ),
        (
            "sojourn_reviews_overdue",
            "Task types whose review is overdue.",
            lambda: len(rooms.recertifying.overdue()),
        ),
        ("sojourn_validators", "Validators that watch.", lambda: len(rooms.engine.feed)),
    )
