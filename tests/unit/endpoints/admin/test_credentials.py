"""endpoints/admin/credentials.py: what operators are shown of the credentials of providers, and the metrics of them."""

import pytest
from fakes.credentials import CORP_TYPE, READ, CascadeRoom, RecallingProvider
from fakes.task_room import READ_TICKETS, Room
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.endpoints.admin.credentials import CredentialMetrics, CredentialsApi
from sojourn.errors import InvalidInput
from sojourn.providers.errors import ProviderUnavailable


@pytest.fixture
async def room(clock):
    async with Room(clock, {"triage": CORP_TYPE}).running() as made:
        yield made


@pytest.fixture
async def cascade(room, clock, tmp_path):
    corp = RecallingProvider(clock)
    corp.down = ProviderUnavailable("it is down")
    async with CascadeRoom(
        room, {"corp": corp, "mute": RecallingProvider(clock, recall="none")}, tmp_path
    ).running() as made:
        yield made


@pytest.fixture
def ask(cascade):
    api = CredentialsApi(cascade.book, cascade.outlets)
    return lambda **fields: api.list(None, pb.ListExternalCredentialsRequest(**fields))


async def test_all_that_is_known(room, cascade, ask, clock):
    """A credential is shown with whose it is, for what, in which state, since when, and why it could not be taken back."""
    task = await room.begin(wanted=READ_TICKETS)
    credential = await cascade.held(task, life=300)
    clock.advance(2.5)
    room.engine.end(task, "completed", "success")
    await cascade.settled()
    (shown,) = (await ask()).credentials
    now = clock.now().timestamp()
    assert shown == pb.ExternalCredential(
        id=credential.id,
        task_id=task.id,
        task_type="triage",
        spiffe_id=str(task.spiffe_id),
        provider="corp",
        recall="revoke",
        resource=READ.resource,
        actions=READ.actions,
        state="ending",
        asked_at=int(now - 2.5),
        expires_at=int(now - 2.5) + 300,
        over_at=now,
        attempts=1,
        fault="it is down",
        details={"sid": "7"},
    )


async def test_selected(room, cascade, ask, clock):
    """Credentials are listed by task, or those alone that outlive their tasks, the oldest first."""
    first, second = [await room.begin(wanted=READ_TICKETS) for _ in range(2)]
    held = []
    for each in (first, second, first):
        held.append(await cascade.held(each))
        clock.advance(1)
    room.engine.end(second, "completed", "success")
    await cascade.settled()
    assert [each.id for each in held] == [each.id for each in (await ask()).credentials]
    assert [held[0].id, held[2].id] == [each.id for each in (await ask(task_id=first.id)).credentials]
    assert [held[1].id] == [each.id for each in (await ask(residual=True)).credentials]
    assert [] == list((await ask(task_id=first.id, residual=True)).credentials)
    assert [] == list((await ask(task_id="tsk_unknown")).credentials)


async def test_a_provider_that_is_not_there(room, cascade, ask):
    """Of a provider that is not configured any more nothing can be taken back."""
    await cascade.held(await room.begin(wanted=READ_TICKETS), "gone")
    assert ["none"] == [each.recall for each in (await ask()).credentials]


async def test_no_more_than_an_answer_takes(room, cascade, ask, clock):
    """What is too much for one answer is in the next, also when what was told last has gone meanwhile."""
    task, other = await room.begin(wanted=READ_TICKETS), await room.begin(wanted=READ_TICKETS)
    held = []
    for of in (task, other, task, task):
        held.append((await cascade.held(of)).id)
        clock.advance(1)
    first = await ask(page_size=2)
    assert held[:2] == [each.id for each in first.credentials]
    room.engine.end(other, "completed", "success")
    rest = await ask(page_size=2, page_token=first.next_page_token)
    assert (held[2:], "") == ([each.id for each in rest.credentials], rest.next_page_token)


async def test_a_size_that_is_none(ask):
    """A page of less than nothing is refused."""
    with pytest.raises(InvalidInput, match="page_size"):
        await ask(page_size=-1)


async def test_metrics(room, cascade, clock):
    """The metrics have how many there are in each state, how long the oldest outlives its task, and what became of all."""
    tasks = [await room.begin(wanted=READ_TICKETS) for _ in range(2)]
    for each in tasks:
        await cascade.held(each)
        await cascade.held(each, "mute", life=10)
    room.engine.end(tasks[0], "completed", "success")
    await cascade.settled()
    await cascade.later(10)
    metrics = CredentialMetrics(cascade.book, cascade.recalling, cascade.outlets, clock)
    found = {
        (sample.name.removeprefix("sojourn_external_"), *sample.labels.values()): sample.value
        for family in metrics.collect()
        for sample in family.samples
    }
    assert (1, 1, 0, 0) == tuple(found["credentials", "corp", each] for each in ("held", "ending", "open", "asking"))
    assert (10, 0) == (found["residual_seconds_max", "corp"], found["residual_seconds_max", "mute"])
    assert (1, 10) == tuple(found[f"residual_seconds_{each}", "mute", "unrecallable"] for each in ("count", "sum"))
    assert found["recalls_total", "corp", "failed"] >= 1
