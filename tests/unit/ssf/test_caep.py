"""caep.py: what events say, and about whom."""

from datetime import UTC, datetime, timedelta

import pytest
from fakes.signed_events import (
    AUDIENCE,
    CAEP,
    IDP,
    RISC,
    RISK,
    TASK,
    WEB,
    in_session,
    iss_sub,
    issuer_key,
    risk,
    signed,
    uri,
)
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidEvent
from sojourn.limits import JWT_LEEWAY_SECONDS
from sojourn.spiffe.ids import TrustDomain
from sojourn.ssf.caep import Finding, PersonFinding, told_by
from sojourn.ssf.security_events import Rules, parse_unverified_event, verify
from sojourn.ssf.subjects import PeopleIssuer, Subjects, Whose

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
AT = NOW.timestamp()
HERE = TrustDomain("example.org")
KEY = issuer_key()
OTHER = "spiffe://example.org/other"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def found(**changes):
    token = signed(KEY, AT, **changes)
    event = verify(parse_unverified_event(token), Rules(IDP, AUDIENCE, 600), {"k1": KEY.public}, NOW)
    return tuple(told_by(event, Subjects(HERE), NOW).findings)


def subject_of(sub_id, **members):
    """The subject of the one finding, or None if the subject is none of ours."""
    made = found(sub_id=sub_id, events=risk(**members))
    return made[0].subject if made else None


def told(kind, **payload):
    """Name and value of the one fact that an event of this kind tells."""
    (each,) = found(events={f"{CAEP}{kind}": payload})
    return each.name, each.value


class TestMeaning:
    @pytest.mark.parametrize(
        ("kind", "payload", "name", "value"),
        [
            ("risk-level-change", {"current_level": "LOW"}, "risk_level", "LOW"),
            ("risk-level-change", {"current_level": "MEDIUM"}, "risk_level", "MEDIUM"),
            ("risk-level-change", {"current_level": "HIGH", "previous_level": "LOW"}, "risk_level", "HIGH"),
            ("device-compliance-change", {"current_status": "compliant"}, "device_compliant", True),
            ("device-compliance-change", {"current_status": "not-compliant"}, "device_compliant", False),
            ("session-revoked", {"reason_admin": {"en": "x"}}, "session_revoked", True),
            ("credential-change", {"change_type": "revoke", "credential_type": "x509"}, "credential_change", "revoke"),
            ("assurance-level-change", {"current_level": "nist-aal2"}, "assurance_level", "nist-aal2"),
        ],
    )
    def test_events_are_facts(self, kind, payload, name, value):
        """Each event of a known type is the fact that the reference says."""
        assert (name, value) == told(kind, **payload)

    @pytest.mark.parametrize(
        ("kind", "payload"),
        [
            ("risk-level-change", {}),
            ("risk-level-change", {"current_level": "high"}),
            ("risk-level-change", {"current_level": ["HIGH"]}),
            ("risk-level-change", {"current_level": "CRITICAL"}),
            ("device-compliance-change", {"current_status": True}),
            ("device-compliance-change", {"current_status": "unknown"}),
            ("device-compliance-change", {"current_status": ["compliant"]}),
            ("credential-change", {"change_type": ""}),
            ("credential-change", {"change_type": "renew"}),
            ("assurance-level-change", {"current_level": ""}),
            ("assurance-level-change", {"current_level": "x" * 201}),
            ("assurance-level-change", {"current_level": "a\nb"}),
            ("assurance-level-change", {"current_level": "\ud800"}),
            ("assurance-level-change", {"current_level": 3}),
        ],
    )
    def test_a_payload_that_is_not_as_defined_is_refused(self, kind, payload):
        """A value that the event's definition does not have is refused, not guessed at."""
        with pytest.raises(InvalidEvent) as caught:
            told(kind, **payload)
        assert "invalid_request" == caught.value.err

    @pytest.mark.parametrize(
        "kind",
        [
            "https://schemas.openid.net/secevent/ssf/event-type/verification",
            "https://schemas.openid.net/secevent/ssf/event-type/stream-updated",
            f"{CAEP}session-established",
            f"{CAEP}token-claims-change",
            f"{RISK}/",
            "anything",
        ],
    )
    def test_other_events_say_nothing(self, kind):
        """Events of other types are good and tell no fact, with or without a subject."""
        assert () == found(events={kind: {"state": "x"}}, sub_id=None)

    def test_several_events(self):
        """Each event of a token is told; one that is malformed takes the whole token with it."""
        both = {**risk(), f"{CAEP}session-revoked": {}}
        assert ["risk_level", "session_revoked"] == [each.name for each in found(events=both)]
        with pytest.raises(InvalidEvent):
            found(events={f"{CAEP}session-revoked": {}, **risk("none")})


class TestTime:
    def test_event_timestamp_counts(self):
        """A fact is as old as its event, or as the token if the event does not say."""
        (each,) = found(events=risk(event_timestamp=AT - 3600))
        assert Finding("risk_level", WEB, "HIGH", NOW - timedelta(hours=1)) == each
        assert NOW == found()[0].happened_at

    def test_a_future_event_is_refused(self):
        """An event ahead of time would outlive all that follow: only the allowed skew is."""
        assert found(events=risk(event_timestamp=AT + JWT_LEEWAY_SECONDS))
        with pytest.raises(InvalidEvent, match="future"):
            found(events=risk(event_timestamp=AT + JWT_LEEWAY_SECONDS + 1))

    @pytest.mark.parametrize("value", [None, "1", True, -1, 2**60, AT * 1000])
    def test_a_timestamp_that_is_none(self, value):
        """A timestamp that is no number of seconds up to now is refused."""
        with pytest.raises(InvalidEvent):
            found(events=risk(event_timestamp=value))


class TestSubject:
    @pytest.mark.parametrize(
        ("sub_id", "subject"),
        [
            (uri(WEB), WEB),
            ({"format": "opaque", "id": WEB}, WEB),
            ({"format": "opaque", "id": TASK}, TASK),
            ({"format": "iss_sub", "iss": "https://any/", "sub": WEB}, WEB),
            ({"subject_type": "iss-sub", "iss": "https://any/", "sub": WEB}, WEB),
            ({"format": "complex", "user": uri(WEB)}, WEB),
            ({"format": "complex", "device": uri(WEB)}, WEB),
            ({"user": uri(WEB)}, WEB),
            ({"format": "complex", "user": uri(OTHER), "session": {"format": "opaque", "id": TASK}}, TASK),
            ({"format": "complex", "user": uri(OTHER), "workload": uri(WEB)}, WEB),
            ({"format": "complex", "session": {"format": "opaque", "id": "idp-7"}, "user": uri(WEB)}, WEB),
        ],
    )
    def test_ours(self, sub_id, subject):
        """Our workloads and tasks are found in each format; of a complex subject the most specific member counts."""
        assert subject == subject_of(sub_id)

    @pytest.mark.parametrize(
        "sub_id",
        [
            {"format": "email", "email": WEB},
            {"format": "account", "uri": "acct:a@example.net"},
            {"format": "aliases", "identifiers": [uri(WEB)]},
            {"format": "jwt_id", "iss": IDP, "jti": TASK},
            {"format": "opaque", "id": "11112222"},
            {"format": "opaque", "id": TASK + "x"},
            {"format": "opaque", "id": TASK + "\n"},
            {"format": "opaque", "id": TASK[:-1]},
            uri("spiffe://other.org/web"),
            uri("spiffe://example.org"),
            uri("spiffe://example.org/spire/server"),
            uri("spiffe://EXAMPLE.org/web"),
            uri("SPIFFE://example.org/web"),
            uri("https://example.org/web"),
            uri(WEB + "/"),
            {"format": "complex", "session": uri(WEB), "tenant": uri(WEB)},
            {"format": "complex", "user": {"format": "opaque", "id": TASK}},
            {"format": "complex"},
            {},
        ],
    )
    def test_none_of_ours(self, sub_id):
        """A subject that is neither a workload of our trust domain nor a task tells no fact."""
        assert subject_of(sub_id) is None

    @pytest.mark.parametrize(
        "sub_id",
        [
            None,
            WEB,
            [uri(WEB)],
            {"format": "uri"},
            {"format": "uri", "uri": ""},
            {"format": "uri", "uri": ["x"]},
            {"format": "opaque", "uri": WEB},
            {"format": "iss_sub", "sub": None},
            {"format": 7, "uri": WEB},
            {"format": "complex", "user": WEB},
            {"format": "complex", "user": uri(WEB), "device": {"format": "uri"}},
        ],
    )
    def test_malformed(self, sub_id):
        """A subject that is missing or not as its format says is refused."""
        with pytest.raises(InvalidEvent):
            subject_of(sub_id)

    def test_in_the_event(self):
        """Older drafts have the subject within the event; two that differ are refused."""
        assert WEB == subject_of(None, subject=uri(WEB))
        assert WEB == subject_of(uri(WEB), subject=uri(WEB))
        with pytest.raises(InvalidEvent, match="two subjects"):
            subject_of(uri(WEB), subject=uri(OTHER))

    @given(json_values, json_values)
    @examples(300)
    def test_ours_or_nothing(self, sub_id, payload):
        """Whatever a token says of its subject and event, it is understood or refused by an error of ours."""
        try:
            made = found(sub_id=sub_id, events={RISK: payload, f"{CAEP}session-revoked": {"subject": sub_id}})
        except InvalidEvent:
            return
        assert all(each.subject.startswith(("tsk_", "spiffe://example.org/")) for each in made)


class TestPeople:
    URL = "https://kc.example.org/realms/corp"

    def told(self, kind, sub_id, **payload):
        token = signed(KEY, AT, sub_id=sub_id, events={kind: payload})
        event = verify(parse_unverified_event(token), Rules(IDP, AUDIENCE, 600), {"k1": KEY.public}, NOW)
        return told_by(event, Subjects(HERE, PeopleIssuer("corp", self.URL, is_itself=True)), NOW)

    @pytest.mark.parametrize(
        ("kind", "deeds", "session"),
        [
            (f"{CAEP}session-revoked", ["end"], "s1"),
            (f"{RISC}sessions-revoked", ["end"], ""),
            (f"{RISC}account-disabled", ["end", "block"], ""),
            (f"{RISC}account-purged", ["end", "block"], ""),
            (f"{RISC}account-enabled", ["unblock"], ""),
        ],
    )
    def test_what_is_done(self, kind, deeds, session):
        """Each event about a person does what the reference says: only `session-revoked` is of one session."""
        told = self.told(kind, in_session(self.URL, "alice", "s1"), event_timestamp=AT - 9)
        assert [(deed, "alice", session) for deed in deeds] == [
            (each.deed, each.whose.subject, each.whose.session) for each in told.acts
        ]
        assert {NOW - timedelta(seconds=9)} == {each.happened_at for each in told.acts}
        assert {kind.rpartition("/")[2]} == {each.event for each in told.acts}
        assert ([], [], []) == (told.findings, told.of_people, told.others)

    @pytest.mark.parametrize("kind", ["sessions-revoked", "account-disabled", "account-purged", "account-enabled"])
    def test_of_an_account(self, kind):
        """What is about an account is about nobody where a session is named alone, or a workload."""
        alone = {"format": "complex", "session": {"format": "opaque", "id": "s1"}}
        for subject in (alone, uri(WEB), {"format": "email", "email": "a@example.org"}):
            told = self.told(f"{RISC}{kind}", subject)
            assert ([], [], [f"{RISC}{kind}"]) == (told.acts, told.findings, told.others)

    def test_a_task_beside_its_person(self):
        """A task that is named as a person's session is what `session-revoked` is about, and both are told, so that
        they can be compared; what is about an account is about the person all the same.
        """
        subject = in_session(self.URL, "alice", TASK)
        told = self.told(f"{CAEP}session-revoked", subject)
        assert ([TASK], []) == ([each.subject for each in told.findings], told.acts)
        assert [(TASK, Whose("alice"))] == told.tasks
        told = self.told(f"{RISC}account-disabled", subject)
        assert [Whose("alice")] * 2 == [each.whose for each in told.acts]
        assert [(TASK, Whose("alice"))] == told.tasks
        assert [] == self.told(f"{CAEP}session-revoked", in_session(self.URL, "alice", "s1")).tasks

    def test_a_session_alone(self):
        """A session that is revoked may be named alone by the issuer whose it is."""
        alone = {"format": "complex", "session": {"format": "opaque", "id": "s1"}}
        [act] = self.told(f"{CAEP}session-revoked", alone).acts
        assert ("end", Whose(session="s1")) == (act.deed, act.whose)

    def test_facts_about_people(self):
        """What is told of a person and ends nothing is read as strictly as of a workload, and stands by itself."""
        told = self.told(f"{CAEP}credential-change", iss_sub(self.URL, "alice"), change_type="update")
        assert [PersonFinding("credential_change", Whose("alice"), "update", NOW)] == told.of_people
        assert ([], [], []) == (told.findings, told.acts, told.others)
        with pytest.raises(InvalidEvent):
            self.told(f"{CAEP}credential-change", iss_sub(self.URL, "alice"), change_type="renew")

    @pytest.mark.parametrize("payload", [{"reason": 5}, {"reason": ""}, {"reason": None}, {"event_timestamp": "x"}])
    def test_malformed(self, payload):
        """An event about an account that is not as RISC has it is refused."""
        with pytest.raises(InvalidEvent):
            self.told(f"{RISC}account-disabled", iss_sub(self.URL, "alice"), **payload)

    def test_a_workload_is_as_before(self):
        """`session-revoked` of a workload or a task is a fact."""
        told = self.told(f"{CAEP}session-revoked", uri(WEB))
        assert ([("session_revoked", WEB)], []) == ([(each.name, each.subject) for each in told.findings], told.acts)
