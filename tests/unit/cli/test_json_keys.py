"""The keys of the command's JSON, from answers in which every field of the agent's messages has something."""

import json
from typing import Any

import pytest
from google.protobuf.message import Message
from harness.clioutput import keys_of
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.cli.root import app
from sojourn.sdk.client.connection import AgentConnection

STRUCT = "google.protobuf.Struct"
NODE = "spiffe://example.org/spire/agent/sojourn/a"
# Fields that the command reads further, each with a text that it can read.
TEXTS = {"node_id": NODE, "spiffe_bundle": "{}"}


def fill(message: Message, around: tuple[str, ...] = ()) -> Message:
    """Give every field of a message something, to any depth that does not repeat itself."""
    for field in message.DESCRIPTOR.fields:
        kind = field.message_type
        if field.name == "next_page_token" or (kind is not None and kind.full_name in around):
            continue
        value = getattr(message, field.name)
        if kind is not None and (kind.full_name == STRUCT or kind.GetOptions().map_entry):
            continue  # its keys are nobody's names
        if kind is not None:
            fill(value.add() if field.is_repeated else value, (*around, message.DESCRIPTOR.full_name))
        elif field.is_repeated:
            value.append(simple(field, field.name))
        else:
            setattr(message, field.name, simple(field, field.name))
    return message


def simple(field: Any, name: str) -> Any:
    """A text, a number or a truth."""
    if field.cpp_type == field.CPPTYPE_STRING:
        return b"a" if field.type == field.TYPE_BYTES else TEXTS.get(name, "a")
    return 1


async def answered(_self: AgentConnection, _method: str, _request: Message, answer: Any) -> Any:
    return fill(answer())


async def streamed(_self: AgentConnection, _method: str, _request: Message, answer: Any) -> Any:
    yield fill(answer())


# Each command with the keys of its JSON, at any depth. A field that the agent tells from now on is to be named here.
KEYS = {
    "status": """
        accepted accepted_at address applied_at approvals_waiting asked attestors authority authority_id bundle
        config connections count created_at digest endpoint_id entries entry_id epoch exe failed failed_at
        failing failure failures fault fault_code federation fetched_at file first_at folder followed issuer
        issuer_not_after issuer_serial jwt_key_ids keys kind last_at last_caller last_computing_seconds
        last_doing last_push last_seconds lifetime limitations listeners live live_tasks loaded_at login_uid
        longest_seconds method name next_at node node_id not_after origin other_nodes pid policy profile pushes
        read_at reason refresh_seconds refused repeated restart_needed reviews root_not_after root_serial
        rotate_at seconds serial shadow signals since spiffe_id standstills started_at status streams
        streams_left_out subject svids svids_left_out tainted task task_types trust_domain type uid url version
        what without
    """,
    "authority show": """
        authority_id created_at issuer_not_after issuer_serial jwt_key_ids keys kind not_after root_not_after
        root_serial status tainted
    """,
    "svid revoked": """
        entry_id expires_at id identities kind left_out revoked revoked_at spiffe_id written x509_svids
    """,
    "bundle show": """
        bundle pem trust_domain
    """,
    "bundle list": """
        bundles jwt_authorities refresh_hint sequence trust_domain x509_authorities
    """,
    "federation list": """
        bundle endpoint_id failures fault fault_code fetched_at next_at profile refresh_seconds relationships
        trust_domain url
    """,
    "audit tail": """
        at digest event fields records seq
    """,
    "audit verify": """
        first_bad_seq first_seq intact reason records unwritten
    """,
    "explain --pid 1": """
        age_seconds also_missing attestors conclusion entry_id exe failed_attestors failure gid jwt_claims
        lifetime missing name needed not_after pid priority reason rotate_at seconds selectors
        selectors_left_out serial spiffe_id template uid verdict verdicts what withheld x509_svid
    """,
    "entry list": """
        additional_attributes admin created_at disable_x509_svid_prefetch dns_names downstream entries
        expires_at federates_with hint id jwt_claims jwt_svid_include_jti jwt_svid_ttl origin parent_id priority
        revision selectors spiffe_id store_svid x509_svid_ttl
    """,
    "task list --all": """
        action actions actors calls code count counted created_at cut depth details expires_at explanation
        grants holder_pid id kind limit method outside params parent_id passes provider reason refusals refused
        refused_at resource spiffe_id state target tasks tokens tokens_issued type uses version
    """,
    "task blocks": """
        blocks reason since spiffe_id type
    """,
    "approval list": """
        actions approvals approvers asked_at break_glass consequence cut description digest expires_at given
        grants holder_pid holder_program id life_seconds login_uid needed params pid program requester resource
        role spiffe_id task type uid when
    """,
    "review list": """
        live login_uid reviews since spiffe_id task type uid
    """,
    "fact list": """
        age_seconds cut facts happened_at name read_by source subject valid_seconds value written
    """,
    "provider list": """
        circuit circuit_until exchanges failures fault held kind name offline providers recall residual
        task_types
    """,
    "policy reload --dry-run": """
        actions digest digest_before dry_run left_out lost outcome resource spiffe_id task tasks type why
    """,
    "policy shadow-report": """
        accepted_at action allowed beyond candidate_allows candidate_policies candidate_rule compared count
        differences digest errors fault first_at folder last_at loaded_at origin policies resource shadow
        spiffe_id task_types type without
    """,
    "approval show a": """
        actions approvers asked_at break_glass consequence cut description digest expires_at given grants
        holder_pid holder_program id life_seconds login_uid needed params pid program requester resource role
        spiffe_id task type uid when
    """,
    "entry show a": """
        additional_attributes admin created_at disable_x509_svid_prefetch dns_names downstream expires_at
        federates_with hint id jwt_claims jwt_svid_include_jti jwt_svid_ttl origin parent_id priority revision
        selectors spiffe_id store_svid x509_svid_ttl
    """,
    "entry count": """
        count
    """,
    "federation show a.example": """
        bundle endpoint_id failures fault fault_code fetched_at next_at profile refresh_seconds trust_domain url
    """,
    "federation refresh a.example": """
        bundle endpoint_id failures fault fault_code fetched_at next_at profile refresh_seconds trust_domain url
    """,
    "provider show a": """
        circuit circuit_until exchanges failures fault held kind name offline recall residual task_types
    """,
    "task why a": """
        at digest event fields left_out left_out_events records seq task
    """,
    "task block --type a": """
        created_at ended expires_at explanation id left_out reason spiffe_id state type version
    """,
    "svid rotate --all": """
        rotated
    """,
    "svid revoke --spiffe-id spiffe://example.org/a": """
        ended_tasks entry_id expires_at id identity kind left_out revoked revoked_at spiffe_id unknown written
        x509_svids
    """,
    "entry adopt": """
        adopted dry_run from id left spiffe_id to
    """,
    "task show a": """
        action actions actors calls code count counted created_at cut depth details expires_at explanation
        grants holder_pid id kind limit method outside params parent_id passes provider reason refusals refused
        refused_at resource spiffe_id state target tokens tokens_issued type uses version
    """,
    "task suspend a": """
        action actions actors calls code count counted created_at cut depth details error expires_at explanation
        grants holder_pid id kind limit method outside params parent_id passes provider reason refusals refused
        refused_at resource spiffe_id state target tokens tokens_issued type uses version
    """,
    "authority prepare x509": """
        authority_id kind not_after
    """,
    "fact set a true": """
        age_seconds cut fact happened_at name otherwise otherwise_left_out read_by source subject valid_seconds
        value written
    """,
    "fact unset a": """
        name source subject unset
    """,
    "task resume a": """
        action actions actors calls code count counted created_at cut depth details error expires_at explanation
        grants holder_pid id kind limit method outside params parent_id passes provider reason refusals refused
        refused_at resource spiffe_id state target tokens tokens_issued type uses version
    """,
    "task revoke a": """
        action actions actors calls code count counted created_at cut depth details error expires_at explanation
        grants holder_pid id kind limit method outside params parent_id passes provider reason refusals refused
        refused_at resource spiffe_id state target tokens tokens_issued type uses version
    """,
    "approval deny a": """
        approval digest given needed reason state task verdict
    """,
}


@pytest.mark.parametrize("command", KEYS)
def test_json_keys(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What a command prints as JSON has the keys that scripts rely on, one for each field that the agent may tell."""
    monkeypatch.setattr(AgentConnection, "unary", answered)
    monkeypatch.setattr(AgentConnection, "stream", streamed)
    app([*command.split(), "--output", "json"], standalone_mode=False)
    keys = keys_of(json.loads(capsys.readouterr().out))
    assert sorted(KEYS[command].split()) == sorted(keys)
    assert [] == [key for key in keys if not key.isidentifier() or key != key.lower()]


def test_every_field_is_filled() -> None:
    """The answers of these tests have every field that a message may have, so that no key can be forgotten unseen."""
    made = fill(pb.ListTasksResponse())
    assert isinstance(made, pb.ListTasksResponse)
    assert [] == [field.name for field, value in made.tasks[0].ListFields() if not value]
    unset = {field.name for field in made.tasks[0].DESCRIPTOR.fields} - {
        field.name for field, _ in made.tasks[0].ListFields()
    }
    assert {"params"} == unset
