"""attestation/plugin_attestor.py and plugin_host.py: whatever an attestor does in its own process, here it is one that cannot tell."""

import asyncio
import os
import signal
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace
from datetime import date
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from harness.looking import OpenFiles, command_lines
from sojourn.attestation import plugin_attestor
from sojourn.attestation.attestor import Answer
from sojourn.attestation.plugin_attestor import HostedAttestor
from sojourn.errors import AttestationFailed
from sojourn.limits import HOST_FILES_MAX, HOST_LINES_PER_SECOND, HOST_MEMORY_MAX_BYTES, HOST_STUCK_MAX
from sojourn.net.sockets import take_no_descriptors
from sojourn.runtime.clock import SystemClock
from sojourn.testing.processes import child
from structlog.testing import capture_logs

pytestmark = pytest.mark.full


def refuses_descriptors():
    """Whether this kernel can."""
    with socket.socket(socket.AF_UNIX) as probe:
        return take_no_descriptors(probe)


STOOD = "stood still for"
HOSTILE = "fakes.hostile_attestor:HostileAttestor"
# What ends the process, or has it ended, and how that is told.
ENDS = {
    "by itself": {
        "leave": "ended with status 7",
        "segfault": "killed by SIGSEGV",
        "abort": "killed by SIGABRT",
        "breed": "ended with status 4",
    },
    "standing still": {"stand": STOOD, "spin": STOOD, "flood": STOOD},
    "taking all": {"hog": f"bytes of memory|MemoryError|{STOOD}", "close_all": f"closed its connection|{STOOD}"},
    "speaking out of turn": {
        "speak": "said what nobody had asked",
        "babble": "a message of 4294967295 bytes",
        "nest": "a message that is no JSON",
        **({} if refuses_descriptors() else {"hand_over": "said what nobody had asked"}),
    },
}
# What only the one question comes to nothing of.
FAILS = {
    "huge": "failed: ValueError",
    "nothing": "failed: TypeError",
    "numbers": "gave what is no answer",
    "raw_bytes": "failed: TypeError",
    "old": "gave what is no answer",
    "raises": "failed: RuntimeError",
    "system_exit": "failed: SystemExit",
    "cannot": "the moon is down",
    **({"hand_over": "failed: PermissionError"} if refuses_descriptors() else {}),
    "open_all": "failed: OSError",
}


@asynccontextmanager
async def started(settings=None, value=HOSTILE):
    attestor = HostedAttestor(EntryPoint("hostile", value, "sojourn.attestors"), settings or {}, SystemClock())
    await attestor.start()
    try:
        yield attestor
    finally:
        await attestor.close()


@pytest.fixture
async def attestor():
    before = OpenFiles()
    async with started() as attestor:
        yield attestor
    assert [] == before.opened_since()


@pytest.fixture
def subject():
    with child() as subject:
        yield subject


def doing(subject, deed):
    return replace(subject, cgroup=f"0::/{deed}\n")


async def good(attestor, subject):
    """It is asked, and answers as it should."""
    async with asyncio.timeout(20):
        assert frozenset({f"pid:{subject.pid}"}) == (await attestor.attest(subject)).values


class TestAnswers:
    async def test_as_given(self, attestor, subject):
        """What it says comes here as it is: values, what is withheld, and the age; it has the process's own handle."""
        answer = await attestor.attest(doing(subject, "tell"))
        ids = f"ids:{subject.uid},{subject.gid},{sorted(subject.groups)}"
        assert frozenset({ids, f"pidfd:{subject.pid}", "odd:\udcff"}) == answer.values
        assert ({"colour": "not seen"}, {"shape": "it is dark"}, 2.5) == (answer.withheld, answer.untold, answer.age)
        assert {"values", "withheld", "untold", "age"} == {each.name for each in fields(Answer)}

    async def test_many_at_once(self, attestor):
        """Of each of many that are asked about at once it says what is so of that one."""
        with child() as first, child() as second:
            answers = await asyncio.gather(*(attestor.attest(each) for each in [first, second] * 100))
        assert [{f"pid:{each.pid}"} for each in [first, second] * 100] == [each.values for each in answers]
        assert 1 == attestor.starts

    async def test_settings(self, subject):
        """An attestor's table of the configuration reaches its process, dates as text."""
        async with started(
            {"text": "ü", "numbers": [1, 2.5], "day": date(2026, 1, 2), "deep": {"a": True}}
        ) as attestor:
            answer = await attestor.attest(doing(subject, "look"))
        settings = {"text": "ü", "numbers": [1, 2.5], "day": "2026-01-02", "deep": {"a": True}}
        assert f"settings:{settings}" in answer.values

    async def test_little_is_passed_on(self, attestor, subject, monkeypatch):
        """An attestor's process has none of the agent's files and variables, and is limited by the kernel."""
        with open("/dev/zero") as held:
            os.set_inheritable(held.fileno(), True)
            monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
            os.kill(attestor.pid, signal.SIGKILL)
            while attestor.starts < 2:
                await asyncio.sleep(0.01)
            values = (await attestor.attest(doing(subject, "look"))).values
        (environment,) = [each for each in values if each.startswith("environment:")]
        assert "SECRET" not in environment
        assert "PYTHONPATH" not in environment
        files = [each.split(":", 2)[2] for each in values if each.startswith("fd:")]
        assert {"/dev/null"} == {each for each in files if each.startswith("/dev/")}
        assert not [each for each in files if each.startswith("/") and each != "/dev/null"]
        assert 1 == len([each for each in files if each.startswith("anon_inode:[pidfd]")])
        assert {"privs:1", "oom:1000", "cwd:/"} <= values
        (limits,) = [each for each in values if each.startswith("limits:")]
        assert f"{HOST_MEMORY_MAX_BYTES}" in limits
        assert f"{HOST_FILES_MAX}" in limits

    async def test_what_it_prints_is_logged(self, attestor, subject):
        """Lines that it prints are in the log, up to a limit a second."""
        with capture_logs() as logs:
            await attestor.attest(doing(subject, "chat"))
            while "attestor_says_too_much" not in [each["event"] for each in logs]:
                await asyncio.sleep(0.01)
        said = [each for each in logs if each["event"] == "attestor_said"]
        assert ("line 0", "hostile", attestor.pid) == tuple(
            said[0][each] for each in ("text", "attestor", "attestor_pid")
        )
        assert len(said) < 100


class TestFaults:
    @pytest.mark.parametrize("how", ENDS)
    async def test_it_ends(self, attestor, subject, how, monkeypatch):
        """What ends its process, or makes it useless, is told as such, and it is started again and answers."""
        monkeypatch.setattr(plugin_attestor, "HOST_RESTART_EVERY_SECONDS", 0.01)
        monkeypatch.setattr(plugin_attestor, "HOST_SILENT_SECONDS", 1.0)
        for deed, told in ENDS[how].items():
            pid = attestor.pid
            with pytest.raises(AttestationFailed, match=told):
                await attestor.attest(doing(subject, deed))
            await good(attestor, subject)
            assert pid != attestor.pid
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    async def test_it_fails(self, attestor, subject):
        """What is wrong with one answer is told, without what the attestor said of it, and it goes on."""
        pid = attestor.pid
        for deed, told in FAILS.items():
            with pytest.raises(AttestationFailed, match=told) as caught:
                await attestor.attest(doing(subject, deed))
            assert "secret" not in str(caught.value)
        await good(attestor, subject)
        assert pid == attestor.pid

    async def test_tracebacks_do_not_flood_the_log(self, attestor, subject, monkeypatch):
        """Of what it raises time and again a few tracebacks a second are logged."""
        monkeypatch.setattr(attestor._logged, "_now", lambda: 7.0)  # however slow this machine is
        with capture_logs() as logged:
            for _ in range(2 * HOST_LINES_PER_SECOND):
                with pytest.raises(AttestationFailed, match="RuntimeError"):
                    await attestor.attest(doing(subject, "raises"))
        assert HOST_LINES_PER_SECOND == sum(each["event"] == "attestor_raised" for each in logged)

    async def test_what_it_raised(self, attestor, subject):
        """The log has what it raised, as a reason that `sojourn status` shows, and the traceback for its author."""
        with capture_logs() as logs, pytest.raises(AttestationFailed):
            await attestor.attest(doing(subject, "raises"))
        [raised] = [each for each in logs if each["event"] == "attestor_raised"]
        assert "attest raised RuntimeError" == raised["reason"]
        assert "RuntimeError" in raised["traceback"]

    async def test_a_million_selectors(self, attestor, subject):
        """So many selectors are none, whether it gets to giving them or stands still over them."""
        with pytest.raises(AttestationFailed, match=f"failed: ValueError|{STOOD}"):
            await attestor.attest(doing(subject, "million"))
        with suppress(AttestationFailed):  # it may have given its answer, and stand still over letting go of them
            await attestor.attest(subject)
        await good(attestor, subject)

    @pytest.mark.parametrize("deed", ["leave", "stand"])
    async def test_others_are_answered(self, attestor, deed):
        """Who was asked about beside the one that it breaks on is answered, and so is who comes meanwhile."""
        with child() as guilty, child() as other, child() as late:
            asked = [asyncio.ensure_future(attestor.attest(doing(guilty, deed)))]
            asked += [asyncio.ensure_future(attestor.attest(other)) for _ in range(2)]
            waiting = asyncio.ensure_future(attestor.attest(doing(other, "wait")))
            await asyncio.sleep(0)
            asked.append(asyncio.ensure_future(attestor.attest(late)))
            async with asyncio.timeout(20):
                first, *others = await asyncio.gather(*asked, return_exceptions=True)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert isinstance(first, AttestationFailed)
        assert f"asked about process {guilty.pid}" in first.reason
        assert [{f"pid:{each.pid}"} for each in (other, other, late)] == [each.values for each in others]

    async def test_a_question_that_nobody_waits_for(self, attestor, subject):
        """A question that is given up ends there too, and the process goes on."""
        pid = attestor.pid
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await attestor.attest(doing(subject, "wait"))
        await good(attestor, subject)
        assert pid == attestor.pid

    async def test_one_that_does_not_stop(self, attestor, subject, monkeypatch):
        """An attestor that goes on after it was told to stop is started anew."""
        monkeypatch.setattr(plugin_attestor, "HOST_SILENT_SECONDS", 0.2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await attestor.attest(doing(subject, "swallow"))
        while attestor.starts < 2:
            await asyncio.sleep(0.01)
        await good(attestor, subject)

    async def test_one_that_answers_nothing(self, attestor, subject, monkeypatch):
        """An attestor that lets many questions in a row pass the deadline is started anew: its threads may be stuck."""
        monkeypatch.setattr(plugin_attestor, "HOST_UNANSWERED_MAX", 3)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await attestor.attest(doing(subject, "wait"))
        while attestor.starts < 2:
            await asyncio.sleep(0.01)
        await good(attestor, subject)

    async def test_killed_while_idle(self, attestor, subject):
        """A process that somebody kills is started again, whether or not anybody asks, and is counted."""
        ends = []
        attestor.on_end(ends.append)
        os.kill(attestor.pid, signal.SIGKILL)
        while attestor.starts < 2:
            await asyncio.sleep(0.01)
        await good(attestor, subject)
        assert ["hostile"] == ends

    async def test_what_it_started_ends_too(self, attestor, subject):
        """Programs that it started end with its process."""
        with pytest.raises(AttestationFailed):
            await attestor.attest(doing(subject, "breed"))
        while "3599.5" in command_lines():
            await asyncio.sleep(0.02)

    async def test_again_and_again(self, attestor, subject, monkeypatch):
        """An attestor that ends again and again is started less often, and says for how long it is not."""
        monkeypatch.setattr(plugin_attestor, "HOST_RESTARTS_AT_ONCE", 2)
        monkeypatch.setattr(plugin_attestor, "HOST_RESTART_EVERY_SECONDS", 60)
        for _ in range(3):
            with pytest.raises(AttestationFailed, match="it ended with status 7, asked about process"):
                await attestor.attest(doing(subject, "leave"))
        said = "its process ended: it ended with status 7; it is started again in [0-9]+ s"
        with pytest.raises(AttestationFailed, match=said):
            await attestor.attest(subject)
        assert 3 == attestor.starts

    async def test_stuck_ones_do_not_heap_up(self, attestor, subject, monkeypatch):
        """If processes cannot even be killed, no more than a few of them are there."""
        monkeypatch.setattr(plugin_attestor, "HOST_RESTART_EVERY_SECONDS", 0.01)

        class Stuck:
            gone = False

        attestor._ended = [Stuck()] * HOST_STUCK_MAX
        attestor._process.end("a test")
        while "wait for a file system" not in attestor._why:
            await asyncio.sleep(0.01)
        assert (1, 0) == (attestor.starts, attestor.pid)
        attestor._ended = []
        await good(attestor, subject)

    async def test_last_words(self, attestor, subject):
        """What it printed just before it ended is in the log."""
        with capture_logs() as logs:
            with pytest.raises(AttestationFailed):
                await attestor.attest(doing(subject, "say_and_leave"))
            await good(attestor, subject)
        assert "these are my last words" in [each.get("text") for each in logs]
        (ended,) = [each for each in logs if each["event"] == "attestor_ended"]
        assert ("it ended with status 3", [subject.pid]) == (ended["reason"], ended["asked_about"])

    async def test_a_handle_that_it_closes(self, attestor, subject):
        """An attestor that closes the handle on the process closes its own copy."""
        await good(attestor, doing(subject, "close_handle"))
        os.fstat(subject.pidfd)
        await good(attestor, subject)


class TestStart:
    FAULTS = (
        ({"deed": "fault"}, HOSTILE, ["colour: is not there", ": is no good"]),
        ({}, "no_such_module:Attestor", [": cannot be loaded: ModuleNotFoundError"]),
        ({}, "fakes.hostile_attestor:Nothing", [": cannot be loaded: AttributeError"]),
        ({"deed": "raises"}, HOSTILE, [": cannot be loaded: RuntimeError"]),
        ({"deed": "system_exit"}, HOSTILE, [": cannot be loaded: SystemExit"]),
        ({"deed": "leave"}, HOSTILE, [": its process: it ended with status 7"]),
        ({"deed": "segfault"}, HOSTILE, [": its process: it was killed by SIGSEGV"]),
    )

    async def test_that_fails(self):
        """An attestor that cannot be made is a fault of the configuration, and leaves nothing behind."""
        before = OpenFiles()
        made = [
            HostedAttestor(EntryPoint("x", value, "x"), settings, SystemClock()) for settings, value, _ in self.FAULTS
        ]
        failed = await asyncio.gather(*(each.start() for each in made), return_exceptions=True)
        assert [faults for _, _, faults in self.FAULTS] == [each.faults for each in failed]
        assert [] == before.opened_since()

    async def test_that_does_not_end(self, monkeypatch):
        """An attestor that is not made in time is a fault too, whatever it prints meanwhile."""
        monkeypatch.setattr(plugin_attestor, "HOST_START_SECONDS", 4.0)
        before = OpenFiles()
        deeds = ("stand", "flood")
        made = [HostedAttestor(EntryPoint("x", HOSTILE, "x"), {"deed": each}, SystemClock()) for each in deeds]
        failed = await asyncio.gather(*(each.start() for each in made), return_exceptions=True)
        assert [[": did not start within 4 s"]] * 2 == [each.faults for each in failed]
        assert [] == before.opened_since()

    async def test_closes(self, tmp_path):
        """An attestor's process is told when the agent ends, and has time to let go of what it holds."""
        async with started({"closed": str(tmp_path / "closed")}) as attestor:
            pid = attestor.pid
        assert "closed" == Path(tmp_path / "closed").read_text()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(AttestationFailed, match="the agent ends"), child() as subject:
            await attestor.attest(subject)
