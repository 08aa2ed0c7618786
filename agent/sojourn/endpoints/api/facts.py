"""Facts: said and seen by operators (of sojourn.v1.Admin), and said by workloads (of sojourn.v1.Tasks)."""

from collections.abc import Sequence

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.pages import Pages, cut
from sojourn.errors import InvalidInput, NotFound, PolicyDenied
from sojourn.facts.facts import Facts
from sojourn.facts.publications import Fact, Key, Publication
from sojourn.identity.identities import Identities
from sojourn.limits import FACTS_OTHERWISE_TOLD
from sojourn.policy.cedar_schema import Param
from sojourn.policy.task_type_tables import OPERATOR
from sojourn.sdk.client.facts import fact_value
from sojourn.tasks.people_names import PeopleNames
from sojourn.tasks.reevaluation import Reevaluation


class FactApi:
    """Operators may say anything; workloads what a task type believes them."""

    def __init__(self, facts: Facts, redeciding: Reevaluation, identities: Identities, names: PeopleNames) -> None:
        self._names = names
        self._facts = facts
        self._redeciding = redeciding
        self._identities = identities
        self._short = Pages((str, str, str), lambda key: key, lambda key: self._listed(key, cut_long=True))
        self._whole = Pages((str, str, str), lambda key: key, lambda key: self._listed(key, cut_long=False))

    def admin_methods(self) -> dict[str, Method]:
        return {
            "SetFact": Method("unary", pb.SetFactRequest, self.set),
            "UnsetFact": Method("unary", pb.UnsetFactRequest, self.unset),
            "ListFacts": Method("unary", pb.ListFactsRequest, self.list),
        }

    def public_methods(self) -> dict[str, Method]:
        return {"PublishFact": Method("unary", tasks_pb2.PublishFactRequest, self.publish)}

    async def set(self, call: Call, request: pb.SetFactRequest) -> pb.SetFactResponse:
        said = self._facts.find(await self._publish(call, request, OPERATOR))
        others = [] if said is None else self._redeciding.otherwise(said)
        told = [self._message(fact, types) for fact, types in others[:FACTS_OTHERWISE_TOLD]]
        return pb.SetFactResponse(otherwise=told, otherwise_left_out=len(others) - len(told))

    async def unset(self, call: Call, request: pb.UnsetFactRequest) -> pb.UnsetFactResponse:
        subject = self._subject(request)
        if not await self._facts.unset(request.name, subject, request.source or OPERATOR, call.by):
            raise NotFound("nothing was said under this name, subject and source: `sojourn fact list` shows what was")
        return pb.UnsetFactResponse()

    async def list(self, _call: Call, request: pb.ListFactsRequest) -> pb.ListFactsResponse:
        whose = self._names.pseudonym_of(request.person) if request.person else ""
        keys = [key for key in self._facts.known() if request.name in {"", key[0]} and (not whose or whose == key[1])]
        page, token = (self._whole if request.name else self._short).page(keys, request)
        return pb.ListFactsResponse(facts=page, next_page_token=token)

    def _listed(self, key: Key, *, cut_long: bool) -> pb.Fact | None:
        """What was said last under a key, if it is not over."""
        fact = self._facts.present(key)
        if fact is None:
            return None
        made = self._message(fact)
        if cut_long and len(made.value.string_value) > len(short := cut(made.value.string_value)):
            made.value.string_value, made.cut = short, True
        return made

    async def publish(self, call: Call, request: tasks_pb2.PublishFactRequest) -> tasks_pb2.PublishFactResponse:
        entries = await self._identities.of(call.peer)
        own = [str(entry.spiffe_id) for entry in entries if request.spiffe_id in {"", str(entry.spiffe_id)}]
        value = _value(request.value)
        # The same answer whatever the reason, so that it does not tell a stranger what task types read.
        for source in own:
            if self._redeciding.is_believed(request.name, source, value):
                await self._publish(call, request, source)
                return tasks_pb2.PublishFactResponse()
        raise PolicyDenied("no task type takes this fact, with a value of this type, from the caller")

    def _subject(self, request: pb.SetFactRequest | pb.UnsetFactRequest | tasks_pb2.PublishFactRequest) -> str:
        """Whom it is about. A person is so by their pseudonym, wherever the fact stands."""
        if not request.person:
            return request.subject
        if request.subject:
            raise InvalidInput("a fact is about a subject or about a person, and not about both")
        return self._names.pseudonym_of(request.person)

    async def _publish(self, call: Call, request: pb.SetFactRequest | tasks_pb2.PublishFactRequest, by: str) -> Key:
        """Return under what it is kept."""
        name, subject = request.name, self._subject(request)
        publication = Publication(
            name,
            subject,
            _value(request.value),
            by,
            request.valid_seconds or None,
            self._facts.happens_now(name, subject, by),
        )
        await self._facts.publish(publication, call.by)
        return name, subject, by

    def _message(self, fact: Fact, read_by: Sequence[str] | None = None) -> pb.Fact:
        age = self._facts.age(fact)
        readers = self._redeciding.readers(fact.name)
        if read_by is None:
            read_by = [kind.name for kind in readers if fact.source in kind.facts[fact.name].sources]
        return pb.Fact(
            name=fact.name,
            subject=fact.subject,
            source=fact.source,
            value=fact_value(fact.value),
            age_seconds=age,
            happened_at=int(fact.happened_at.timestamp()),
            valid_seconds=None if fact.until is None else fact.until - fact.since - age,
            unwritten=not self._facts.is_written(fact.key),
            read_by=sorted(read_by),
        )


def _value(message: tasks_pb2.FactValue) -> Param:
    which = message.WhichOneof("value")
    if which is None:
        raise InvalidInput("value must be specified")
    value: Param = getattr(message, which)
    return value
