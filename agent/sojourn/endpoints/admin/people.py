"""Of sojourn.v1.Admin: the people whom tasks are for, as operators see them and end what is done for them."""

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.endpoints.api.task_messages import brief
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.pages import Pages
from sojourn.errors import InvalidInput
from sojourn.limits import AUDITED_TEXT, OUTCOMES_TOLD
from sojourn.tasks.end_people import EndPeople
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.people_index import Key
from sojourn.tasks.people_names import PeopleNames
from sojourn.tasktoken.end_reasons import ADMIN, explanation_of


class PeopleApi:
    """Lists whom live tasks are for, and ends what is done for one. Nothing here grants anything."""

    def __init__(self, engine: TaskEngine, ending: EndPeople, names: PeopleNames) -> None:
        self._engine = engine
        self._ending = ending
        self._names = names
        self._pages = Pages((str, str), _key, self._listed)

    def admin_methods(self) -> dict[str, Method]:
        return {
            "ListPeople": Method("unary", pb.ListPeopleRequest, self.list),
            "GetPerson": Method("unary", pb.GetPersonRequest, self.get),
            "EndPerson": Method("unary", pb.EndPersonRequest, self.end),
        }

    async def list(self, _call: Call, request: pb.ListPeopleRequest) -> pb.ListPeopleResponse:
        people, token = await self._pages.page_of_many(self._engine.tasks.people.all(), request)
        return pb.ListPeopleResponse(people=people, next_page_token=token)

    async def get(self, _call: Call, request: pb.GetPersonRequest) -> pb.LivePerson:
        """Also somebody for whom there is no task: they may be blocked."""
        issuer, url, subject = self._names.named(request.person)
        pseudonym = self._engine.pseudonyms.named(url, subject)
        made = self._listed((url, subject)) or pb.LivePerson(pseudonym=pseudonym)
        made.issuer, made.subject = issuer, subject
        block = self._engine.blocks.of_person(pseudonym)
        if block is not None:
            made.block.CopyFrom(pb.Block(person=block.name, reason=block.reason, since=block.since))
        return made

    async def end(self, call: Call, request: pb.EndPersonRequest) -> pb.EndPersonResponse:
        if not request.person:
            raise InvalidInput("who it is must be specified, as ISSUER/SUBJECT")
        named = self._names.named(request.person)
        ended = await self._ending.end(
            named.issuer,
            session=request.session,
            subject=named.subject,
            reason=ADMIN,
            explanation=explanation_of(request.reason[:AUDITED_TEXT]),
            by=call.by,
        )
        left_out = max(0, len(ended) - OUTCOMES_TOLD)
        return pb.EndPersonResponse(ended=map(brief, ended[:OUTCOMES_TOLD]), left_out=left_out)

    def _listed(self, key: Key) -> pb.LivePerson | None:
        people = [task.person for task in self._engine.tasks.people.of_person(*key)]
        known = [each for each in people if each is not None]
        if not known:
            return None
        last = max(known, key=lambda each: each.issued_at)
        return pb.LivePerson(
            issuer=last.issuer,
            subject=last.subject,
            pseudonym=self._engine.pseudonyms.named(*key),
            sessions=len({each.session for each in known}),
            tasks=len(known),
            auth_time=last.auth_time,
            until=max(each.expires_at for each in known),
        )


def _key(key: Key) -> Key:
    return key
