"""asking.py: a question that is asked until it is answered."""

import asyncio

import pytest
from fakes.roots import Pauses
from harness.looking import WAIT_SECONDS
from sojourn.authority import asking
from sojourn.authority.asking import JITTER, Asking
from sojourn.limits import ROOT_RETRY_MAX_SECONDS, ROOT_RETRY_SECONDS


class Question:
    """Fails so many times before it is answered."""

    def __init__(self, failures: int) -> None:
        self.failures, self.asked, self.answers, self.failed = failures, 0, [], []
        self.pauses = Pauses()
        self.asking: Asking[str] = Asking(self.failed.append, self.pauses)

    async def ask(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        if self.asked <= self.failures:
            raise RuntimeError(f"no {self.asked}")
        return "yes"

    def begin(self) -> None:
        self.asking.begin(self.ask, self.answers.append)


async def test_answered():
    """An answer is taken, and nothing is asked after it."""
    question = Question(0)
    question.begin()
    assert await question.asking.wait(WAIT_SECONDS)
    assert (["yes"], 1, []) == (question.answers, question.asked, question.failed)


async def test_asked_for_ever():
    """After each failure there is a pause, twice as long as the one before by at most what chance takes off, up to the
    longest; and however many failures there are, it is asked again.
    """
    question = Question(40)
    question.begin()
    assert await question.asking.wait(30)
    assert (["yes"], 40) == (question.answers, len(question.failed))
    for place, taken in enumerate(question.pauses.taken):
        most = min(ROOT_RETRY_SECONDS * 2**place, ROOT_RETRY_MAX_SECONDS)
        assert most * (1 - JITTER) <= taken <= most
    assert 1 < len(set(question.pauses.taken[-10:]))


async def test_one_at_a_time():
    """While it is asked it is not asked beside that."""
    question = Question(0)
    question.begin()
    question.begin()
    await question.asking.wait(WAIT_SECONDS)
    assert 1 == question.asked


async def test_no_answer(monkeypatch):
    """What does not answer in time is a failure, and is asked anew."""
    monkeypatch.setattr(asking, "ROOT_SECONDS", 0.02)
    failed, tries, answers = [], [], []
    asked: Asking[str] = Asking(failed.append, Pauses())

    async def ask() -> str:
        tries.append(1)
        if len(tries) == 1:
            await asyncio.Event().wait()
        return "yes"

    asked.begin(ask, answers.append)
    assert await asked.wait(10)
    assert (["yes"], [TimeoutError]) == (answers, [type(each) for each in failed])


async def test_an_answer_that_is_not_good():
    """An answer that whoever takes it refuses is a failure, and it is asked again."""
    question, taken = Question(0), []

    def take(answer: str) -> None:
        taken.append(answer)
        if len(taken) == 1:
            raise ValueError(answer)

    question.asking.begin(question.ask, take)
    assert await question.asking.wait(WAIT_SECONDS)
    assert (2, [ValueError]) == (question.asked, [type(each) for each in question.failed])


async def test_hurry():
    """A pause ends when there is reason to ask at once."""
    question = Question(1)
    question.pauses.held = True
    question.begin()
    assert not await question.asking.wait(0.05)
    question.asking.hurry()
    assert await question.asking.wait(WAIT_SECONDS)
    assert 2 == question.asked


@pytest.mark.parametrize("failures", [0, 1_000_000])
async def test_close(failures):
    """Once it is closed nothing is asked any more."""
    question = Question(failures)
    question.pauses.held = True
    question.begin()
    await question.asking.wait(0.05)
    await question.asking.close()
    asked = question.asked
    await asyncio.sleep(0.01)
    assert (asked, False) == (question.asked, question.asking.under_way)
