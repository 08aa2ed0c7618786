"""notifiers.py: a real command and a real webhook, and those that behave badly."""

import asyncio
import json
import os
import signal
import time
from datetime import timedelta

import pytest
from harness.authserver import bomb, drop, held, huge, redirect, status
from harness.webhook import Webhook
from sojourn.config.approval_notifier import ApprovalNotifierConfig
from sojourn.limits import NOTICE_STDERR_MAX
from sojourn.notices.notifiers import Command, courier_of
from sojourn.notices.outbox import NotDelivered

MESSAGE = {"id": "apr_1.approval_requested", "event": "approval_requested", "text": "ü"}


def script(folder, text, mode=0o755):
    path = folder / "notify"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def command(folder, text, seconds=20.0, *arguments):
    return Command((str(script(folder, text)), *arguments), seconds)


class TestCommand:
    async def test_gets_the_json(self, tmp_path, monkeypatch):
        """A program gets the notice on its standard input, its arguments as they are, and no variable of the agent's
        but a few.
        """
        monkeypatch.setenv("SOJOURN_TEST_SECRET", "hidden")
        told = command(tmp_path, f'cat > {tmp_path}/in; env > {tmp_path}/env; echo "$1" > {tmp_path}/one', 20.0, "a; b")
        assert "" == told.check()
        await told.deliver(MESSAGE)
        assert MESSAGE == json.loads((tmp_path / "in").read_text())
        assert "a; b\n" == (tmp_path / "one").read_text()
        environment = (tmp_path / "env").read_text()
        assert "PATH=" in environment
        assert "hidden" not in environment

    async def test_fails(self, tmp_path):
        """Another status than 0 is a failure, with what the program said of it, cut."""
        with pytest.raises(NotDelivered, match=r"ended with status 3: .*no such channel") as failed:
            await command(tmp_path, "echo no such channel >&2; yes | head -c 100000 >&2; exit 3").deliver(MESSAGE)
        assert len(failed.value.public) < NOTICE_STDERR_MAX + 200

    async def test_does_not_read(self, tmp_path):
        """A program that does not read its input, or closes it, has been told all the same."""
        await command(tmp_path, "exec <&-; exit 0").deliver({**MESSAGE, "text": "x" * 200_000})

    async def test_too_slow(self, tmp_path):
        """A program that does not end in time is killed, with what it started."""
        slow = command(tmp_path, f"sleep 600 & echo $! > {tmp_path}/pid; echo waiting >&2; wait", 1.0)
        with pytest.raises(NotDelivered, match=r"did not end in 1 s: .*waiting"):
            await slow.deliver(MESSAGE)
        pid = int((tmp_path / "pid").read_text())
        deadline = time.monotonic() + 20
        while _runs(pid):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    async def test_what_it_leaves_holds_nobody_up(self, tmp_path):
        """A program that has ended has, although what it started keeps its standard error open."""
        leaving = command(tmp_path, f"sleep 30 & echo $! > {tmp_path}/pid", 25.0)
        async with asyncio.timeout(20):
            await leaving.deliver(MESSAGE)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)  # it still runs: nobody waited for it

    async def test_cancelled(self, tmp_path):
        """The agent's end ends the program too."""
        running = asyncio.ensure_future(command(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600").deliver(MESSAGE))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not _runs(int((tmp_path / "pid").read_text()))

    async def test_not_to_be_run(self, tmp_path):
        """A program that is not there, is none, or that others could have written is not run; the reason is told."""
        absent = Command((str(tmp_path / "absent"),), 5.0)
        assert "No such file" in absent.check()
        with pytest.raises(NotDelivered, match="No such file"):
            await absent.deliver(MESSAGE)
        assert "not executable" in Command((str(script(tmp_path, "", 0o644)),), 5.0).check() or 0 == os.geteuid()
        with pytest.raises(NotDelivered, match="can be written by others"):
            await Command((str(script(tmp_path, "true", 0o777)),), 5.0).deliver(MESSAGE)
        (tmp_path / "text").write_text("no program")
        (tmp_path / "text").chmod(0o755)
        with pytest.raises(NotDelivered, match="cannot be run"):
            await Command((str(tmp_path / "text"),), 5.0).deliver(MESSAGE)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class TestWebhook:
    @pytest.fixture
    def hook(self):
        with Webhook() as running:
            yield running

    def courier(self, hook, **more):
        return courier_of(ApprovalNotifierConfig(webhook=hook.url, timeout=timedelta(seconds=20), **more))

    async def test_is_posted_to(self, hook, tmp_path):
        """A webhook gets the notice as JSON, by whose header it can tell that it has had it, and the token of a file,
        which is read each time.
        """
        file = tmp_path / "token"
        file.write_text("first\n")
        courier = self.courier(hook, token_file=file)
        assert "" == courier.check()
        await courier.deliver(MESSAGE)
        file.write_text("second")
        await courier.deliver(MESSAGE)
        await courier.close()
        assert [MESSAGE, MESSAGE] == hook.taken
        assert ["Bearer first", "Bearer second"] == [each["authorization"] for each in hook.headers]
        assert [("application/json", MESSAGE["id"])] * 2 == [
            (each["content-type"], each["idempotency-key"]) for each in hook.headers
        ]

    @pytest.mark.parametrize(
        ("deed", "says"),
        [
            (status(500), "status 500"),
            (status(404, b"x" * 10_000), "status 404"),
            (redirect("http://127.0.0.1:1/"), "redirects"),
            (huge(), "bytes"),
            (bomb(), "encoding"),
            (drop, "broke off"),
        ],
        ids=["fault", "absent", "redirect", "huge", "bomb", "drop"],
    )
    async def test_answers_badly(self, hook, deed, says):
        """Whatever is not a plain yes is a failure, told without the path of the webhook, which may be its secret."""
        hook.always = deed
        courier = self.courier(hook)
        with pytest.raises(NotDelivered, match=says) as failed:
            await courier.deliver(MESSAGE)
        assert "hook?of" not in failed.value.public + failed.value.detail
        await courier.close()

    async def test_does_not_answer(self, hook):
        """One that does not answer in time has failed."""
        hook.always = held(hook.ending)
        courier = courier_of(ApprovalNotifierConfig(webhook=hook.url, timeout=timedelta(seconds=0.2)))
        with pytest.raises(NotDelivered, match="in time"):
            await courier.deliver(MESSAGE)
        await courier.close()

    @pytest.mark.parametrize("text", ["", "a b", "a\nb", "ü"])
    async def test_no_token(self, hook, tmp_path, text):
        """A file without a token in it, or that others could have written, sends nothing anywhere."""
        file = tmp_path / "token"
        file.write_text(text)
        courier = self.courier(hook, token_file=file)
        assert "token_file" in courier.check()
        with pytest.raises(NotDelivered, match="token_file") as failed:
            await courier.deliver(MESSAGE)
        assert not text or text not in failed.value.public
        await courier.close()
        assert [] == hook.posts


def test_nobody():
    """Without a command or a webhook nobody is told."""
    assert courier_of(ApprovalNotifierConfig()) is None
