"""What the agent says as JSON, and which call takes a request."""

import pytest
from google.protobuf.json_format import ParseDict
from sojourn._pb import workload_pb2
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn._pb.sojourn.v1 import approvals_pb2
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2
from sojourn.cli.messages import told
from sojourn.cli.remote import method_of
from sojourn.errors import Bug


def test_fields() -> None:
    """Each field has its name and its kind: times in UTC, maps sorted, what is absent None, what is empty empty."""
    verdict = pb.EntryVerdict(entry_id="e", missing=["unix:uid:1"], x509_svid=pb.Svid(not_after=1, serial="ab"))
    ParseDict({"b": 2, "a": [1, {"c": 0.5}]}, verdict.jwt_claims)
    value = told(verdict)
    assert ["unix:uid:1"] == value["missing"]
    assert {"a": [1, {"c": 0.5}], "b": 2} == value["jwt_claims"]
    assert ("1970-01-01T00:00:01Z", None) == (value["x509_svid"]["not_after"], value["x509_svid"]["rotate_at"])
    assert (None, {}) == (told(pb.EntryVerdict())["x509_svid"], told(pb.EntryVerdict())["jwt_claims"])
    credential = pb.ExternalCredential(details={"b": "2", "a": "1"}, over_at=0.5, attempts=3)
    assert [("a", "1"), ("b", "2")] == list(told(credential)["details"].items())
    assert ("1970-01-01T00:00:00.500000Z", 3) == (told(credential)["over_at"], told(credential)["attempts"])
    assert (None, 2.0) == tuple(told(each)["valid_seconds"] for each in (pb.Fact(), pb.Fact(valid_seconds=2)))
    assert [{"what": "a", "reason": "b"}] == told(pb.ExplainResponse(withheld=[{"what": "a", "reason": "b"}]))[
        "withheld"
    ]


def test_other_names() -> None:
    """Fields are left out, or told under another name."""
    value = told(pb.Review(task_id="t", type="x"), "since", "uid", task="task_id")
    assert {"task", "type", "spiffe_id", "login_uid", "live"} == set(value)
    assert "t" == value["task"]


def test_the_call_of_a_request() -> None:
    """A request is taken by the call that its file has for it, for an operator by Admin's, and by a named one of several."""
    assert ("/sojourn.v1.Admin/GetStatus", pb.GetStatusResponse) == method_of(pb.GetStatusRequest())[::2]
    assert "/spire.api.server.entry.v1.Entry/GetEntry" == method_of(entry_pb2.GetEntryRequest())[0]
    assert "/SpiffeWorkloadAPI/FetchJWTSVID" == method_of(workload_pb2.JWTSVIDRequest(), operator=False)[0]
    assert "/sojourn.v1.Admin/SuspendTasks" == method_of(pb.ChangeTasksRequest(), "SuspendTasks")[0]
    request = approvals_pb2.ListApprovalsRequest()
    assert "/sojourn.v1.Admin/ListApprovals" == method_of(request)[0]
    assert "/sojourn.v1.Approvals/ListApprovals" == method_of(request, operator=False)[0]
    with pytest.raises(Bug):
        method_of(pb.GetStatusResponse())
