"""What the journal calls people: nobody reads who they are there, unless the configuration says that it is to be read."""

import json
from pathlib import Path

import pytest
import sojourn
from harness.peopleplace import CHAT, people_place


def test_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `audit = "plain"` the records of a task, and of a logout, have the issuer's name and the subject, which the
    command tells beside the pseudonym; the token itself is in none.
    """
    with people_place(tmp_path, 'audit = "plain"') as place:
        monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{place.agent.socket}")
        text = place.idp.text("erin")
        with sojourn.task("for-one", person=sojourn.PersonToken.id_token(text), spiffe_id=CHAT) as task:
            task.token()
            place.agent.run("person", "end", "corp/erin", "--reason", "laptop stolen")
        found = place.agent.json("person", "pseudonym", place.idp.issuer.url, "erin")
        assert (True, "corp|erin") == (found["pseudonym"].startswith("psn_"), found["plain"])
        told = place.agent.run("person", "pseudonym", place.idp.issuer.url, "erin").stdout.split()
        assert [found["pseudonym"], "corp|erin"] == told
        assert place.agent.json("person", "pseudonym", "https://elsewhere.example.org", "erin")["plain"] is None
        kept = place.agent.json("audit", "tail", "-n", "1000")["records"]
        events = {"task_begun", "token_issued", "task_ended", "person_session_ended"}
        assert events <= {each["event"] for each in kept if "corp|erin" in json.dumps(each)}
        records = json.dumps(kept)
        assert found["pseudonym"] not in records
        assert not any(each in records for each in (text, text.split(".")[2]))
