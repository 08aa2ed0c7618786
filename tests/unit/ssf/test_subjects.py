"""subjects.py: whom an event is about, of people."""

import json

import pytest
from fakes.signed_events import IDP, TASK, WEB, in_session, iss_sub, uri
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidEvent
from sojourn.spiffe.ids import TrustDomain
from sojourn.ssf.subjects import PeopleIssuer, Subject, Subjects, Whose

URL = "https://kc.example.org/realms/corp"
HERE = TrustDomain("example.org")
TIED = Subjects(HERE, PeopleIssuer("corp", URL, is_itself=False))
ITSELF = Subjects(HERE, PeopleIssuer("corp", URL, is_itself=True))
UNTIED = Subjects(HERE)
NOBODY = Subject()
ALICE = Subject(person=Whose("alice"))


def read(sub_id, subjects=TIED):
    return subjects.read({"sub_id": sub_id}, {})


class TestPeople:
    def test_by_issuer_and_subject(self):
        """A person is named by the `iss` and `sub` of their tokens, alone or as the user of a complex subject."""
        assert ALICE == read(iss_sub(URL, "alice"))
        assert ALICE == read({"format": "complex", "user": iss_sub(URL, "alice")})
        assert ALICE == read({"subject_type": "iss-sub", "iss": URL, "sub": "alice"})

    def test_a_session(self):
        """A session stands beside its person, by the `sid` of their tokens."""
        assert Subject(person=Whose("alice", "s1")) == read(in_session(URL, "alice", "s1"))

    @pytest.mark.parametrize(
        "session",
        [
            {"format": "opaque", "id": "ALL"},
            {"format": "jwt_id", "iss": URL, "jti": "x"},
            {"format": "opaque", "id": "x" * 256},
            {"format": "opaque", "id": "a\nb"},
            {"format": "opaque", "id": "\ud800"},
        ],
    )
    def test_all_sessions(self, session):
        """`ALL` is all sessions of the person; so is one that is named as no token names it."""
        assert ALICE == read({**in_session(URL, "alice", "s1"), "session": session})

    @pytest.mark.parametrize(
        "issuer",
        [f"{URL}/", URL.upper(), URL.replace("https", "http"), f"{URL}#", f"{URL} ", IDP, "corp"],
    )
    def test_of_another_issuer(self, issuer):
        """A person of an issuer that is not theirs byte for byte is nobody, in a session or not."""
        assert NOBODY == read(iss_sub(issuer, "alice"))
        assert NOBODY == read(in_session(issuer, "alice", "s1"))
        assert NOBODY == read(in_session(issuer, "alice", "s1"), ITSELF)

    def test_untied(self):
        """An issuer of events that is tied to no people speaks of none."""
        for each in (iss_sub(URL, "alice"), in_session(URL, "alice", "s1"), in_session(IDP, "alice", "s1")):
            assert NOBODY == read(each, UNTIED)

    @pytest.mark.parametrize(
        "subject",
        [
            {"format": "email", "email": "alice@example.org"},
            {"format": "phone_number", "phone_number": "+1"},
            {"format": "account", "uri": "acct:alice@example.org"},
            {"format": "aliases", "identifiers": [iss_sub(URL, "alice")]},
            {"format": "opaque", "id": "alice"},
            {"format": "did", "url": "did:example:alice"},
            {"format": "uri", "uri": URL},
        ],
    )
    def test_by_what_no_token_names_them_by(self, subject):
        """By an e-mail address, a number or an account nobody of ours is named, nor by such a user of a session."""
        assert NOBODY == read(subject)
        assert NOBODY == read({"format": "complex", "user": subject, "session": {"format": "opaque", "id": "s1"}})

    @pytest.mark.parametrize("subject", ["", None, 5, ["alice"]])
    def test_malformed(self, subject):
        """A subject without its `sub` or `iss` is malformed, not nobody's."""
        with pytest.raises(InvalidEvent):
            read({"format": "iss_sub", "iss": URL, "sub": subject})
        with pytest.raises(InvalidEvent):
            read({"format": "iss_sub", "iss": subject, "sub": "alice"})

    @pytest.mark.parametrize("subject", ["spiffe://elsewhere.org/x", "x" * 256, "a\u202eb", "a\0b", "e\u0301"])
    def test_whom_no_task_can_be_for(self, subject):
        """A subject that no person's token of ours may have is nobody."""
        assert NOBODY == read(iss_sub(URL, subject))

    def test_a_session_by_itself(self):
        """A session without its person is one of the people's issuer alone, and never all."""
        alone = {"format": "complex", "session": {"format": "opaque", "id": "s1"}}
        assert Subject(person=Whose(session="s1")) == read(alone, ITSELF)
        assert NOBODY == read(alone)
        assert NOBODY == read({**alone, "session": {"format": "opaque", "id": "ALL"}}, ITSELF)

    def test_workloads_and_tasks(self):
        """A task of ours is what is meant where it stands beside its person; a workload is not."""
        assert Subject(TASK, Whose("alice")) == read(in_session(URL, "alice", TASK))
        assert Subject(TASK) == read({"format": "complex", "session": {"format": "opaque", "id": TASK}}, ITSELF)
        assert Subject(WEB) == read(iss_sub(URL, WEB))
        both = {"format": "complex", "user": iss_sub(URL, "alice"), "workload": uri(WEB), "device": uri(WEB)}
        assert ALICE == read(both)
        assert Subject(WEB) == read({**both, "user": iss_sub(IDP, "alice")})

    def test_a_person_who_looks_like_a_task(self):
        """Somebody whose `sub` is as the ID of a task of ours is a person at the people's issuer, and nowhere else."""
        assert Subject(person=Whose(TASK)) == read(iss_sub(URL, TASK))
        assert Subject(person=Whose(TASK, "s1")) == read(in_session(URL, TASK, "s1"))
        assert Subject(TASK) == read(iss_sub(IDP, TASK))
        assert Subject(TASK) == read(iss_sub(URL, TASK), UNTIED)


_members = st.sampled_from(["format", "iss", "sub", "user", "session", "device", "workload", "id", "uri"])
_formats = st.sampled_from(["iss_sub", "opaque", "complex", "uri", "email"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from([URL, "alice", "ALL", TASK, WEB]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_members, inner, max_size=4),
    max_leaves=8,
)


class TestAnything:
    @examples(300)
    @given(st.dictionaries(_members, json_values | _formats, max_size=6))
    def test_is_read_or_refused(self, subject):
        """Whatever a subject is, it is read or refused by our own error, and a person is named by the issuer alone."""
        try:
            found = read(subject, ITSELF)
        except InvalidEvent:
            return
        if found.person is not None and found.person.subject:
            assert json.dumps(URL) in json.dumps(subject)
