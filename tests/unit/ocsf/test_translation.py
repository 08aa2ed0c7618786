"""translation.py: each event is a good one by OCSF's own schema, whatever its fields are, with the record within."""

import json
from typing import Any

import pytest
from fakes.recorded_events import AT_MS, record, recorded, records
from harness.ocsf import faults
from hypothesis import given
from hypothesis import strategies as st
from sojourn.audit.events import DENIALS, EVENTS
from sojourn.audit.journal import Record
from sojourn.audit.leaves import line_of
from sojourn.ocsf.parts import LIST_MAX, TEXT_MAX
from sojourn.ocsf.translation import OcsfLines
from sojourn.ocsf.within import line_within
from sojourn.spiffe.ids import SpiffeId

NODE = "spiffe://example.org/spire/agent/sojourn/here"
LINES = OcsfLines(SpiffeId.parse(NODE))
# Names that some event or the translation reads, so that hostile values stand where they are looked at.
NAMES = sorted({name for fields in recorded().values() for name in fields} | {"address", "trace_id", "by_login_uid"})
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "x" * 4_096, "\u202etxt.exe", "\ud800", "\x00", "é" * 4_096, '"}]', "spiffe://a", "psn_x"]),
)
LEAVES = st.one_of(
    st.none(), st.booleans(), TEXTS, st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    LEAVES, lambda below: st.lists(below, max_size=5) | st.dictionaries(TEXTS, below, max_size=5), max_leaves=15
)
FIELDS = st.dictionaries(st.sampled_from(NAMES) | TEXTS, VALUES, max_size=12)


def made(event: str, fields: object) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(LINES.record(record(event, fields)))
    return value


class TestSchema:
    @pytest.mark.parametrize("event", sorted(EVENTS))
    def test_each_event(self, event: str) -> None:
        """Each event of the journal is a good event of OCSF, with no attribute that the schema does not have."""
        assert [] == faults(made(event, recorded()[event]))

    @pytest.mark.parametrize("event", sorted(EVENTS))
    def test_without_fields(self, event: str) -> None:
        """An event is a good one, too, if its record says nothing at all."""
        assert [] == faults(made(event, {}))

    @given(event=st.sampled_from(sorted(EVENTS)), fields=FIELDS)
    def test_any_fields(self, event: str, fields: dict[str, Any]) -> None:
        """Whatever somebody gets into a record, it is a good event of OCSF, and has the record within, byte for byte."""
        ours = record(event, {name: value for name, value in fields.items() if value is not None})
        line = LINES.record(ours)
        assert [] == faults(_without_lone_surrogates(json.loads(line)))
        assert line_of(ours) == line_within(line)
        assert b"\n" not in line
        assert line.isascii()

    @given(event=st.sampled_from(sorted(EVENTS)), value=VALUES)
    def test_the_same_in_all_fields(self, event: str, value: Any) -> None:
        """The same hostile value in every field that an event has breaks nothing."""
        ours = record(event, dict.fromkeys(NAMES, value))
        assert [] == faults(_without_lone_surrogates(json.loads(LINES.record(ours))))

    @pytest.mark.parametrize("kind", ["checkpoint", "gap"])
    def test_notices(self, kind: str) -> None:
        """What a sink gets beside records is a good event, too, with our line within."""
        ours = b'{"from_seq":1,"kind":"%s","until_seq":7}' % kind.encode()
        line = LINES.notice(kind, 7, AT_MS, ours)
        assert [] == faults(json.loads(line))
        assert ours == line_within(line)
        assert (7, AT_MS) == (json.loads(line)["metadata"]["sequence"], json.loads(line)["time"])

    def test_an_event_of_another_release(self) -> None:
        """An event that this release does not know is a Base Event with the record within."""
        value = made("not_in_the_table", {"spiffe_id": "spiffe://example.org/a"})
        assert [] == faults(value)
        assert (0, "not_in_the_table") == (value["class_uid"], value["metadata"]["event_code"])

    @pytest.mark.parametrize("fields", ["", "{", "[]", "[" * 100_000])
    def test_a_damaged_record(self, fields: str) -> None:
        """A record whose fields are no JSON is sent all the same, as the text that it is."""
        ours = record("task_begun", fields)
        line = LINES.record(ours)
        assert [] == faults(json.loads(line))
        assert line_of(ours) == line_within(line)

    def test_faults_are_found(self) -> None:
        """The schema that events are held to refuses what is missing, unknown, of another type, or deprecated."""
        good = made("token_issued", recorded()["token_issued"])
        assert faults({**good, "colour": 1})
        assert faults({name: value for name, value in good.items() if name != "user"})
        assert faults({**good, "time": "now"})
        assert faults({**good, "activity_id": 77})
        assert faults({**good, "user": {**good["user"], "credential_uid": "a"}})
        assert faults({**good, "metadata": {**good["metadata"], "profiles": ["host"]}})
        assert faults({**good, "type_uid": 300203})


def _without_lone_surrogates(value: Any) -> Any:
    """What a validator can take. In the record itself they stay as they are."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


class TestBytes:
    def test_the_same_each_time(self) -> None:
        """The same record gives the same bytes, whoever makes them, and whatever was made before."""
        firsts = [LINES.record(each) for each in records()]
        others = OcsfLines(SpiffeId.parse(NODE))
        assert firsts == [others.record(each) for each in reversed([*records()])][::-1]

    def test_only_what_is_within_is_as_long_as_it_is(self) -> None:
        """A long text or list is cut beside the record, and whole within it."""
        grants = [{"resource": "https://a.example", "actions": [f"a{number}" for number in range(400)]}]
        value = made("task_begun", {"grants": grants, "spiffe_id": "x" * 5_000, "reason": "é" * 5_000})
        assert (LIST_MAX, TEXT_MAX, TEXT_MAX) == (
            len(value["privileges"]),
            len(value["user"]["uid"]),
            len(value["status_detail"]),
        )
        assert grants == value["unmapped"]["sojourn"]["fields"]["grants"]

    def test_a_short_record_makes_no_long_event(self) -> None:
        """However a record is made, its event is at most some tens of KiB longer than the record."""
        grants = [{"resource": "r" * 1_000, "actions": [str(number) for number in range(400)]}]
        fields = {**dict.fromkeys(NAMES, "x" * 1_024), "grants": grants}
        for event in sorted(EVENTS):
            ours = record(event, fields)
            assert len(LINES.record(ours)) < len(line_of(ours)) + 40_000

    def test_identity(self) -> None:
        """Two records of one number, as after a restore, are two events; each has the number of its record."""
        one, other = (json.loads(LINES.record(record("agent_started", {"epoch": each}, 5))) for each in (1, 2))
        assert one["metadata"]["uid"] != other["metadata"]["uid"]
        assert 5 == one["metadata"]["sequence"] == other["metadata"]["sequence"]
        assert one["metadata"]["uid"] == one["unmapped"]["sojourn"]["digest"]


class TestWhatIsSaid:
    def test_a_token(self) -> None:
        """A token says who has it, for which task and resource, until when, and by which policy."""
        value = made("token_issued", recorded()["token_issued"])
        fields = recorded()["token_issued"]
        assert fields["spiffe_id"] == value["user"]["uid"] == value["actor"]["app_uid"]
        assert (fields["task"], fields["resource"]) == (value["session"]["uid"], value["service"]["uid"])
        token = value["authentication_token"]
        assert (fields["jti"], fields["expires_at"] * 1000) == (token["uid"], token["expiration_time"])
        allowed = {"decision": "allow", "policy": {"name": fields["policies"][0], "uid": fields["policy_set"]}}
        assert allowed == value["authorizations"][0]
        assert (1, 1) == (value["action_id"], value["status_id"])

    def test_a_task(self) -> None:
        """A task says what it may do, and which process has it."""
        value = made(
            "task_begun",
            {
                "grants": [{"actions": ["read", "write"], "resource": "https://a"}],
                "pid": 7,
                "uid": 1000,
                "task": "tsk_1",
            },
        )
        assert ["read https://a", "write https://a"] == value["privileges"]
        assert (7, "1000") == (value["actor"]["process"]["pid"], value["actor"]["process"]["user"]["uid"])
        assert "tsk_1" == value["session"]["uid"] == value["metadata"]["correlation_uid"]

    @pytest.mark.parametrize("event", sorted(DENIALS - {"denials_suppressed"}))
    def test_a_refusal(self, event: str) -> None:
        """Each refusal is a failure that was denied, with code and reason."""
        value = made(event, {"code": "policy_denied", "reason": "no policy permits it", "uid": 1000})
        assert (2, 2, 2) == (value["status_id"], value["action_id"], value["disposition_id"])
        assert ("policy_denied", "no policy permits it") == (value["status_code"], value["status_detail"])

    def test_an_operator(self) -> None:
        """What an operator does has them as its actor, also by their login, and not the workload that it is about."""
        fields = {
            "entry_id": "e1",
            "spiffe_id": "spiffe://example.org/a",
            "by_uid": 0,
            "by_login_uid": 1000,
            "by_pid": 9,
        }
        value = made("entry_created", fields)
        assert {"type": "Unix user", "type_id": 99, "uid": "0", "uid_alt": "1000"} == value["actor"]["user"]
        assert ({"pid": 9}, "e1") == (value["actor"]["process"], value["entity"]["uid"])
        followed = made("entry_created", {"entry_id": "e1", "spiffe_id": "spiffe://example.org/a", "folder": "/x"})
        assert {"app_name": "Sojourn", "app_uid": NODE} == followed["actor"]

    def test_a_decision(self) -> None:
        """An approval that was denied is a failure; one that was given is none."""
        assert (1, 1) == tuple(made("approval_decided", {"verdict": "approve"})[x] for x in ("status_id", "action_id"))
        assert (2, 2) == tuple(made("approval_decided", {"verdict": "deny"})[x] for x in ("status_id", "action_id"))

    def test_break_glass(self) -> None:
        """The review of a break-glass task closes the finding that it opened."""
        owed, begun, done = (
            made(event, {"task": "tsk_1"}) for event in ("review_owed", "break_glass_begun", "review_done")
        )
        assert {"tsk_1"} == {each["finding_info"]["uid"] for each in (owed, begun, done)}
        assert [1, 2, 3] == [each["activity_id"] for each in (owed, begun, done)]
        assert 4 == begun["severity_id"]

    def test_where_a_call_came_from(self) -> None:
        """A caller over the network is told by its address, and one on this machine by the machine."""
        assert {"ip": "192.0.2.1", "name": "192.0.2.1"} == made("call_denied", {"address": "192.0.2.1"})["src_endpoint"]
        assert {"name": "2001:db8::/64"} == made("call_denied", {"address": "2001:db8::/64"})["src_endpoint"]
        scoped = made("call_denied", {"address": "fe80::1%" + "x" * 60})
        assert ([], {"name"}) == (faults(scoped), set(scoped["src_endpoint"]))
        assert NODE == made("call_denied", {"uid": 1})["src_endpoint"]["uid"]

    def test_a_person(self) -> None:
        """A task for a person has the person as its user, beside the workload; a person's logout is theirs."""
        fields = {"task": "tsk_1", "person": "psn_1", "spiffe_id": "spiffe://example.org/a", "uid": 1000}
        value = made("token_denied", fields)
        assert ("psn_1", "spiffe://example.org/a") == (value["actor"]["user"]["uid"], value["actor"]["app_uid"])
        assert "psn_1" == made("person_session_ended", {"person": "psn_1", "issuer": "corp"})["user"]["uid"]


def test_records_of_the_table_are_good_records() -> None:
    """What is tried here is in the form that the journal has."""
    assert all(isinstance(each, Record) and json.loads(each.fields) is not None for each in records())
