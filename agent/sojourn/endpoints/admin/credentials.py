"""Of sojourn.v1.Admin: the credentials of providers outside that are not gone; and the metrics of them."""

from collections.abc import Iterable
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.credentials.credential import ASKING, ENDING, HELD, OPEN, Credential
from sojourn.credentials.ledger import CredentialLedger
from sojourn.credentials.provider_routes import ProviderRoutes
from sojourn.credentials.recall import Recalling
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.pages import Pages
from sojourn.runtime.clock import Clock


class CredentialsApi:
    """What tasks have, and what outlives them. Nothing here is secret, and nothing changes anything."""

    def __init__(self, book: CredentialLedger, outlets: ProviderRoutes) -> None:
        self._book = book
        self._outlets = outlets
        self._pages = Pages((datetime, str), lambda each: (each.asked_at, each.id), self._message)

    def admin_methods(self) -> dict[str, Method]:
        return {"ListExternalCredentials": Method("unary", pb.ListExternalCredentialsRequest, self.list)}

    async def list(self, _call: Call, request: pb.ListExternalCredentialsRequest) -> pb.ListExternalCredentialsResponse:
        found = self._book.of(request.task_id) if request.task_id else self._book.index.all()
        wanted = (each for each in found if each.over_at is not None or not request.residual)
        page, token = self._pages.page(wanted, request)
        return pb.ListExternalCredentialsResponse(credentials=page, next_page_token=token)

    def _message(self, credential: Credential) -> pb.ExternalCredential:
        outlet = self._outlets.find(credential.provider)
        return pb.ExternalCredential(
            id=credential.id,
            task_id=credential.task_id,
            task_type=credential.task_type,
            spiffe_id=str(credential.spiffe_id),
            provider=credential.provider,
            recall=outlet.provider.recall if outlet is not None else "none",
            resource=credential.grant.resource,
            actions=credential.grant.actions,
            state=credential.state,
            asked_at=int(credential.asked_at.timestamp()),
            expires_at=int(credential.expires_at.timestamp()),
            over_at=0 if credential.over_at is None else credential.over_at.timestamp(),
            attempts=credential.attempts,
            fault=credential.fault,
            details=credential.public,
        )


class CredentialMetrics(Collector):
    """Figures of the book and of its recalls. They are collected in a thread of their own."""

    def __init__(self, book: CredentialLedger, recalling: Recalling, outlets: ProviderRoutes, clock: Clock) -> None:
        self._book = book
        self._recalling = recalling
        self._names = [outlet.name for outlet in outlets.all()]
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        index = self._book.index
        states = GaugeMetricFamily(
            "sojourn_external_credentials",
            "Credentials of providers outside that are not gone, by state.",
            labels=["provider", "state"],
        )
        none = dict.fromkeys(((name, state) for name in self._names for state in (ASKING, HELD, ENDING, OPEN)), 0)
        for (provider, state), number in {**none, **index.counts()}.items():
            states.add_metric([provider, state], number)
        oldest = GaugeMetricFamily(
            "sojourn_external_residual_seconds_max",
            "For how long the oldest credential that is not gone has outlived its task.",
            labels=["provider"],
        )
        boot = self._clock.boot()
        for provider, since in {**dict.fromkeys(self._names, boot), **index.oldest()}.items():
            oldest.add_metric([provider], max(0.0, boot - since))
        recalls = CounterMetricFamily(
            "sojourn_external_recalls", "Attempts to take a credential back, by result.", labels=["provider", "result"]
        )
        for (provider, result), number in dict(self._recalling.results).items():
            recalls.add_metric([provider, result], number)
        windows = SummaryMetricFamily(
            "sojourn_external_residual_seconds",
            "For how long credentials that are gone outlived their tasks.",
            labels=["provider", "how"],
        )
        for (provider, how), (number, seconds) in dict(self._book.windows).items():
            windows.add_metric([provider, how], number, seconds)
        return [states, oldest, recalls, windows]
