"""What can be read of a person's token, and of who they are, wherever an agent leaves something."""

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import sojourn
from fakes.logouts import logout_token
from harness.agent import COMMAND
from harness.exchanges import form
from harness.looking import until
from harness.peopleplace import CHAT, People, people_place
from harness.ports import free_port
from sojourn.errors import SojournError

pytestmark = pytest.mark.forked

METRICS_PORT = free_port()
# What a person has that is found nowhere else.
SUBJECT, SESSION, DEPARTMENT = "subject-7f3a91c4", "session-5b2e88d0", "department-c91d37aa"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
LINES = 'recheck = "5s"\n'  # so that the agent keeps the text in its memory
TABLES = f'[metrics]\nlisten = "127.0.0.1:{METRICS_PORT}"\n[log]\nlevel = "debug"\n'


@pytest.fixture(scope="module")
def people_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    with people_place(tmp_path_factory.mktemp("people"), LINES, TABLES) as running:
        yield running


def token(people: People, **changes: object) -> str:
    return people.idp.text(SUBJECT, **{"sid": SESSION, "department": DEPARTMENT, **changes})


def parts(text: str) -> list[str]:
    """What of a token is to be found nowhere: claims and signature, which is what makes it one."""
    return text.split(".")[1:]


def on_disk(people: People) -> bytes:
    """Every file of the agent's, but for the programs' own."""
    files = [each for each in people.agent.folder.rglob("*") if each.is_file() and each.name != "agent.toml"]
    return b"".join(each.read_bytes() for each in files)


def processes() -> str:
    """What `ps` shows to everybody."""
    lines = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(each.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(lines)


def test_while_it_is_used(people: People, tmp_path: Path) -> None:
    """While tasks live by a token its text is in no file, log, record, metric or argument of a process, whichever way it
    came, and by what is refused neither; who the person is, is in none of what is kept for good.
    """
    text, refused = token(people), token(people, aud="another-app", azp="another-app")
    file = tmp_path / "person"
    file.write_text(text)
    said = ""
    run = [*COMMAND, "task", "run", "--type", "for-many", "--person-token-file", str(file)]
    environment = {**os.environ, **people.agent.environment}
    with (
        sojourn.task("for-many", person=sojourn.PersonToken.id_token(text), spiffe_id=CHAT) as task,
        subprocess.Popen([*run, "--", "sleep", "60"], env=environment, stderr=subprocess.PIPE, text=True) as command,
    ):
        until(lambda: len(people.agent.json("task", "list", "--person", f"corp/{SUBJECT}")["tasks"]) == 2)
        with sojourn.acting_for(task.person):
            seen = people.told(task.token().token)
        assert SUBJECT in seen  # the service is to know whose it is
        with httpx.Client(transport=httpx.HTTPTransport(uds=people.agent.socket)) as client:
            details = json.dumps([{"type": "for-many", "actions": ["order:read"], "locations": [people.url]}])
            for subject in (text, refused):
                wanted = form(subject, audience=people.url, authorization_details=details, subject_token_type=ID_TOKEN)
                answer = client.post("http://agent/token", data=wanted)
                said += answer.text if answer.status_code != 200 else ""
        with pytest.raises(SojournError) as error:
            task.renew_person(sojourn.PersonToken.id_token(refused))
        said += repr(error.value) + str(error.value) + repr(sojourn.PersonToken.id_token(text))
        time.sleep(6)  # the issuer is asked again meanwhile
        told = httpx.get(f"http://127.0.0.1:{METRICS_PORT}/metrics").text
        assert "sojourn_" in told
        records = people.agent.run("audit", "tail", "-n", "1000", "--output", "json").stdout
        assert records.count("task_begun") >= 2
        kept = people.agent.log.read_text() + records + told + said
        for each in (*parts(text), *parts(refused)):
            assert each not in kept + processes()
            assert each.encode() not in on_disk(people)
        for each in (SUBJECT, SESSION, DEPARTMENT):
            assert each not in kept
        command.send_signal(signal.SIGTERM)
        command.wait(timeout=20)
        assert command.stderr is not None
        complaint = command.stderr.read()
        assert not any(each in complaint for each in parts(text))


def test_a_core(people: People) -> None:
    """An agent that is made to crash leaves no core, and nobody but root reads its memory meanwhile."""
    pid = people.agent.pid
    assert (0, 0) == resource.prlimit(pid, resource.RLIMIT_CORE)
    owner = os.stat(f"/proc/{pid}/mem")
    assert (0, 0o600) == (owner.st_uid, owner.st_mode & 0o777)  # not dumpable: not even its own user's
    with sojourn.task("for-one", person=sojourn.PersonToken.id_token(token(people)), spiffe_id=CHAT):
        people.agent.stop(signal.SIGABRT)
    assert [] == [*people.agent.folder.rglob("core*"), *Path.cwd().glob("core*")]
    people.agent.start()


def test_after_a_logout(people: People) -> None:
    """Who logs out says who they are to the agent, and nothing of it is in its log, its records or its files by then."""
    session = f"{SESSION}-that-ends"
    text = token(people, sid=session)
    with sojourn.task("for-many", person=sojourn.PersonToken.id_token(text), spiffe_id=CHAT) as task:
        people.idp.issuer.at = int(time.time())
        said = logout_token(people.idp.issuer, jti="j-privacy", sid=session, sub=SUBJECT)
        with httpx.Client(verify=people.trust) as client:
            url = f"https://{people.agent.people}/people/corp/logout"
            assert 200 == client.post(url, data={"logout_token": said}).status_code
        until(lambda: task.ended)
    records = people.agent.run("audit", "tail", "-n", "1000", "--output", "json").stdout
    assert "person_session_ended" in records
    for each in (SUBJECT, SESSION, *parts(said), *parts(text)):
        assert each not in records + people.agent.log.read_text()
    for each in (*parts(said), *parts(text)):
        assert each.encode() not in on_disk(people)
