"""How long what the agent gave is kept."""

import asyncio
from dataclasses import replace

import pytest
from fakes.cloudtask import AWS, S3, CloudTask, token
from sojourn.errors import TaskOver, Unavailable
from sojourn.errors.people import WrongPerson
from sojourn.sdk.cloud.credentials import CloudCredentials, followed
from sojourn.sdk.task.acting import acting_for
from sojourn.sdk.task.values import TaskPerson


class Clock:
    seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def task() -> CloudTask:
    return CloudTask(AWS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credentials(task: CloudTask, clock: Clock) -> CloudCredentials:
    return CloudCredentials(task, S3, followed=True, boot=clock)


class TestGet:
    async def test_kept_for_half_of_its_life(
        self, task: CloudTask, credentials: CloudCredentials, clock: Clock
    ) -> None:
        """A credential is asked for once, and again when half of its life is over."""
        first = await credentials.get()
        clock.seconds += 440
        assert first is await credentials.get()
        clock.seconds += 20
        await credentials.get()
        assert [S3, S3] == task.asked

    async def test_for_nobody_but_its_person(self, task: CloudTask, credentials: CloudCredentials) -> None:
        """What is kept for the task of one person is not given to a request of another."""
        ends = task.status.expires_at
        task.status = replace(task.status, person=TaskPerson("corp", "alice", None, "", ends, "https://kc.example.org"))
        for _ in range(2):
            with acting_for("corp|alice"):
                await credentials.get()
        with pytest.raises(WrongPerson), acting_for("corp|bob"):
            await credentials.get()
        assert [S3] == task.asked

    async def test_asked_once_for_all(self, task: CloudTask, credentials: CloudCredentials) -> None:
        """However many wait for it, the agent is asked once."""
        await asyncio.gather(*(credentials.get() for _ in range(50)))
        assert [S3] == task.asked

    async def test_the_task_has_changed(self, task: CloudTask, credentials: CloudCredentials) -> None:
        """What was given to the task before it changed is not given after."""
        await credentials.get()
        task.change()
        await credentials.get()
        assert [S3, S3] == task.asked

    async def test_suspended(self, task: CloudTask, credentials: CloudCredentials) -> None:
        """While the task is suspended the agent is asked, and what it says is said."""
        await credentials.get()
        task.status = replace(task.status, state="suspended")
        task.given[S3] = TaskOver("task is suspended")
        with pytest.raises(TaskOver, match="suspended"):
            await credentials.get()

    async def test_over(self, task: CloudTask, credentials: CloudCredentials) -> None:
        """When the task is over nothing is given, though it would be good for longer."""
        await credentials.get()
        task.end("revoked", "admin")
        with pytest.raises(TaskOver, match="revoked: admin"):
            await credentials.get()

    async def test_a_failure_is_not_kept(self, task: CloudTask, credentials: CloudCredentials) -> None:
        """After a failure the agent is asked anew."""
        task.given[S3] = Unavailable("the provider is down")
        with pytest.raises(Unavailable):
            await credentials.get()
        task.given[S3] = token(AWS)
        assert task.given[S3] is await credentials.get()

    async def test_a_task_that_hears_nothing(self, task: CloudTask) -> None:
        """Of a task that is not told of its end nothing is kept at all."""
        asking = CloudCredentials(task, S3, followed=False)
        await asking.get()
        await asking.get()
        assert [S3, S3] == task.asked

    async def test_repr(self, credentials: CloudCredentials) -> None:
        """The repr of a credential has the resource and no secret."""
        await credentials.get()
        assert f"Credentials({S3})" == repr(credentials)


def test_followed() -> None:
    """A task with a stream hears of its end; one that lives as long as a process does not."""
    assert followed(CloudTask())
    assert not followed(object())
