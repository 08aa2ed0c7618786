"""The keys of the command's JSON, from answers in which every field of the agent's messages has something."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fakes.ca import FakeCa
from fakes.filled_answers import JWT_SVID, READABLE, answer_all, fill
from harness.agent import SAMPLES
from harness.clioutput import keys_of
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.cli.root import COMMANDS, NOUNS, app, load

PLACE = "https://a.example"
TRIAGE = "spiffe://example.org/agent/triage"
TYPES = str(SAMPLES / "task-types")
ASKED = f"--workload {TRIAGE} --action ticket:read --resource https://tickets.example.org"
# Each command with the keys of its JSON, at any depth. A field that the agent tells from now on is to be named here.
KEYS = {
    "status": """
        accepted accepted_at address admin_socket answered_at chain code follows_at key needed_until own place renewal_at role roots signs upstream
        applied_at approvals_waiting asked attestors authority
        audit_log audit_sinks authority_id backup begun_at bundle checkpoint checkpoint_at config connections count created_at data_dir data_folder digest due earlier endpoint_id
        entries entry_id epoch exe failed failed_at failing failing_since failure failures fault fault_code faults federation
        fetched_at file first_at first_seq folder followed format found full gap held how issuer issuer_not_after issuer_serial journal_room jwt_key_ids keep_seconds key_uri keys
        items kind lag_records lag_seconds last_at last_caller last_computing_seconds last_doing last_push last_seconds lifetime limit limitations
        listeners live live_tasks loaded_at login_uid longest_seconds lost_records made_at mark max_bytes method name new_root
        next_at node node_id not_after not_ours not_sent origin other_nodes overdue people pid policy poll_fault polled polled_at profile
        pushes read_at reason refresh_seconds
        refused repeated required restart_needed restored restored_at review_dates reviews root_not_after root_serial rotate_at seconds seq
        serial sha256 shadow signals since size socket spiffe_id standstills started_at state status stream_status streams
        streams_left_out subject svids svids_left_out tainted taken_at task task_owners task_owners_left_out task_types tasks
        to trust_domain type uid unknown unknown_after unknown_until unsigned url version vkey what without
        age_seconds
        audit_timestamps
        audit_witnesses
        cosigned_at
        forked
        stamped_at
        until_seq
        attestor away_seconds last_svid_until left_out prefetched reattestable remedy server svid_until svids_near_end svids_until
        synced_at synced_seconds
    """,
    "authority show": """
        answered_at authority_id chain code created_at fault follows_at issuer_not_after issuer_serial jwt_key_ids key key_uri keys
        kind needed_until not_after own place renewal_at role root_not_after root_serial roots serial signs since status
        subject tainted upstream
    """,
    "agent list": """
        agent_version attestor banned can_reattest joined_at locked name nodes selectors serial spiffe_id svid_until
    """,
    "agent show a": """
        agent_version attestor banned can_reattest joined_at locked name selectors serial spiffe_id svid_until
    """,
    "agent ban a": """
        banned spiffe_id
    """,
    "agent unban a": """
        spiffe_id unbanned
    """,
    "agent evict a": """
        evicted spiffe_id
    """,
    "server status": """
        address attestor attestors banned connections entries faults listeners name nodes restart_needed server_id
        started_at state total trust_domain version what
    """,
    "token generate --node a": """
        expires_at join node parent_id token
    """,
    "authority test": """
        authority_id code fault key roots seconds status
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
    "audit tail --after 1 --lines 2": """
        at digest event fields next_after records seq
    """,
    "usage": """
        accepted action actions behind bindings began blind called calls children counted_since delegates denied denials depth digest enough facts first
        from_journal granted journal_since lacking last limit longest many max min most name number others p99 params policies resource resources
        seconds_max seconds_p99 since taken tasks tasks_before time tokens type types uncalled unread until unused unused_tokens values
        workload workloads
    """,
    "usage --standing": """
        about age_seconds counted_since kind name since standing until
    """,
    "audit key": """
        begun_at checkpoint checkpoint_at earlier fault first_seq origin reason size unsigned vkey
    """,
    "audit rotate-key": """
        begun_at checkpoint checkpoint_at earlier fault first_seq origin reason size unsigned vkey
    """,
    "audit sinks": """
        failing_since fault format gap head kind lag_records lag_seconds name refused required seq sinks taken_at to
    """,
    "audit list --limit 2": """
        at digest event fields next_page records seq
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
        expires_at federates_with hint id jwt_claims jwt_svid_include_jti jwt_svid_ttl origin owner parent_id priority sponsor
        revision selectors spiffe_id store_svid x509_svid_ttl
    """,
    "task list --all": """
        acr action actions actors auth_time calls code count counted created_at cut depth details
        expires_at explanation grants holder_pid id iss issuer kind limit method outside params
        parent_id passes person provider reason refusals refused refused_at resource several spiffe_id
        state subject target tasks tokens tokens_issued type until uses version
    """,
    "task blocks": """
        blocks person reason since spiffe_id type
    """,
    "approval list": """
        actions approvals approvers asked_at break_glass consequence cut description digest expires_at given
        grants holder_pid holder_program id life_seconds login_uid needed params person pid program requester
        resource role spiffe_id task type uid when
    """,
    "review list": """
        live login_uid reviews since spiffe_id task type uid
        block_new by_login_uid by_uid changed_at changed_by_login_uid changed_by_uid decided_at decision digest
        due_at every_seconds item items known_at last next_page overdue owners reason shown_at sponsors total
    """,
    "fact list": """
        age_seconds cut facts happened_at name read_by source subject valid_seconds value written
    """,
    "provider list": """
        circuit circuit_until exchanges failures fault held kind name offline providers recall residual
        task_types
    """,
    "policy reload --dry-run": """
        actions digest digest_before dry_run left_out lost outcome resource review_blocked spiffe_id task tasks type why
    """,
    "policy shadow-report": """
        accepted_at action allowed beyond candidate_allows candidate_policies candidate_rule compared count
        differences digest errors fault first_at folder last_at loaded_at origin policies resource shadow
        spiffe_id task_types type without
    """,
    "approval show a": """
        actions approvers asked_at break_glass consequence cut description digest expires_at given grants
        holder_pid holder_program id life_seconds login_uid needed params person pid program requester resource
        role spiffe_id task type uid when
    """,
    "entry show a": """
        additional_attributes admin created_at disable_x509_svid_prefetch dns_names downstream expires_at
        federates_with hint id jwt_claims jwt_svid_include_jti jwt_svid_ttl origin owner parent_id priority sponsor revision
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
        acr action actions actors auth_time calls code count counted created_at cut depth details
        expires_at explanation grants holder_pid id iss issuer kind limit method outside params
        parent_id passes person provider reason refusals refused refused_at resource several spiffe_id
        state subject target tokens tokens_issued type until uses version
    """,
    "task suspend a": """
        acr action actions actors auth_time calls code count counted created_at cut depth details error
        expires_at explanation grants holder_pid id iss issuer kind limit method outside params
        parent_id passes person provider reason refusals refused refused_at resource several spiffe_id
        state subject target tokens tokens_issued type until uses version
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
        acr action actions actors auth_time calls code count counted created_at cut depth details error
        expires_at explanation grants holder_pid id iss issuer kind limit method outside params
        parent_id passes person provider reason refusals refused refused_at resource several spiffe_id
        state subject target tokens tokens_issued type until uses version
    """,
    "task revoke a": """
        acr action actions actors auth_time calls code count counted created_at cut depth details error
        expires_at explanation grants holder_pid id iss issuer kind limit method outside params
        parent_id passes person provider reason refusals refused refused_at resource several spiffe_id
        state subject target tokens tokens_issued type until uses version
    """,
    "approval deny a": """
        approval digest given needed reason state task verdict
    """,
    "entry create --spiffe-id spiffe://example.org/agent/triage --selector unix:uid:1": """
        additional_attributes admin created_at disable_x509_svid_prefetch dns_names downstream expires_at
        federates_with hint id jwt_claims jwt_svid_include_jti jwt_svid_ttl origin owner parent_id priority sponsor
        revision selectors spiffe_id store_svid warnings x509_svid_ttl
    """,
    "entry update a --hint h": """
        additional_attributes admin created_at disable_x509_svid_prefetch dns_names downstream expires_at
        federates_with hint id jwt_claims jwt_svid_include_jti jwt_svid_ttl origin owner parent_id priority sponsor
        revision selectors spiffe_id store_svid warnings x509_svid_ttl
    """,
    "entry delete a": """
        deleted id message results
    """,
    "entry apply --file {folder}/entries.yaml": """
        action additional_attributes admin changed created_at disable_x509_svid_prefetch dns_names
        downstream dry_run entry expires_at federates_with hint id jwt_claims jwt_svid_include_jti
        jwt_svid_ttl origin owner parent_id priority sponsor revision selectors spiffe_id steps store_svid unchanged
        warnings x509_svid_ttl
    """,
    "entry export": """
        additional_attributes admin disable_x509_svid_prefetch dns_names downstream entries expires_at
        federates_with hint id jwt_svid_include_jti jwt_svid_ttl owner parent_id priority selectors spiffe_id sponsor
        store_svid x509_svid_ttl
    """,
    "bundle set a.example {folder}/bundle.pem": """
        jwt_authorities refresh_hint sequence trust_domain x509_authorities
    """,
    "bundle delete a.example": """
        deleted
    """,
    "federation create a.example --url https://a.example --profile https_web": """
        bundle endpoint_id failures fault fault_code fetched_at next_at profile refresh_seconds trust_domain
        url
    """,
    "federation update a.example --url https://a.example --profile https_web": """
        bundle endpoint_id failures fault fault_code fetched_at next_at profile refresh_seconds trust_domain
        url
    """,
    "federation delete a.example": """
        deleted
    """,
    "task unblock --type a": """
        unblocked
    """,
    "approval approve a": """
        approval digest given needed reason state task verdict
    """,
    "review show a": """
        at digest event fields records seq task
    """,
    "review done a --finding f": """
        finding task
    """,
    "fact publish a true": """
        fact name subject valid_seconds value
    """,
    "policy shadow --off": """
        accepted_at digest fault folder loaded_at origin shadow task_types without
    """,
    "provider check a": """
        hint milliseconds name ok outcome provider steps told
    """,
    "person check a --token-file {folder}/ticket --spiffe-id spiffe://example.org/agent/triage": """
        hint issuer milliseconds name ok outcome steps told
    """,
    "person list": """
        auth_time issuer people pseudonym sessions subject tasks until
    """,
    "person show a/b": """
        auth_time blocked created_at expires_at explanation id issuer live pseudonym reason sessions since spiffe_id
        state subject tasks type until version
    """,
    "person end a/b": """
        created_at ended expires_at explanation id left_out reason spiffe_id state type version
    """,
    "person pseudonym a b": """
        issuer plain pseudonym subject
    """,
    "provider residuals": """
        actions asked_at attempts credentials details expires_at fault id more over_at provider recall
        resource spiffe_id state task_id task_type
    """,
    "authority activate a": """
        authority_id kind not_after
    """,
    "authority rotate x509": """
        authority_id kind not_after
    """,
    "authority taint a": """
        authority_id kind not_after
    """,
    "authority revoke a": """
        authority_id kind not_after
    """,
    f"policy explain a {ASKED}": """
        action allowed applies approval approvers attributes break_glass changes conditions count delegation
        digest effect facts id limits line max_age_seconds max_children max_depth misses name needs_approval
        on_deny policies reason required rule sources standings to type uses what when within_seconds
        block_new due_at every_seconds overdue review
        acr claims groups issuers max_auth_age_seconds max_live need person several
    """,
    "svid jwt --audience a": """
        audience expires_at hint spiffe_id token
    """,
}
# What these print is made of files, or of their arguments alone.
LOCAL = {
    "config show": """
        values
    """,
    "config show socket": """
        key value
    """,
    "config explain socket": """
        at_once default flag kind limits meaning name variable
    """,
    "policy check {types}": """
        action actions approval approvers bound break_glass ceiling conditions consequence count delegation
        description digest facts high injected limits max_age_seconds max_children max_depth name on_deny
        policies required resource sources task_types to type uses warnings when within_seconds
        owner review sponsor
        acr claims groups issuers max_auth_age_seconds max_live need person several
    """,
    "policy test {types}": """
        cases failed task_type task_types undecided_policies
    """,
    f"policy explain triage-ticket {ASKED} --folder {{types}}": """
        allowed applies approval attributes break_glass changes conditions delegation digest effect facts id
        limits line max_children max_depth misses name needs_approval person policies reason review rule standings to type
        value what
    """,
    "task digest --method GET --target /a": """
        params_digest
    """,
}
# What the SDK reads on the way, as a workload's own.
OF_WORKLOADS = {
    "svid x509": """
        bundle dns_names files hint not_after not_before serial spiffe_id svids x509_svid
    """,
    "validate a --audience b": """
        acr actors amr auth_time claims code issuer kind person prefix reason spiffe_id subject valid
    """,
    "task begin --type a": """
        actions actors details expires_at explanation grants id kind outside parent_id person provider
        reason resource spiffe_id state type
    """,
    "task accept --ticket-file {folder}/ticket": """
        actions actors details expires_at explanation grants id kind outside parent_id person provider
        reason resource spiffe_id state type
    """,
    "task narrow a --resource https://a.example --action x:y": """
        actions actors details expires_at explanation grants id kind outside parent_id person provider
        reason resource spiffe_id state type
    """,
    "task complete a": """
        actions actors details expires_at explanation grants id kind outside parent_id person provider
        reason resource spiffe_id state type
    """,
    "task delegate a --to spiffe://example.org/agent/triage": """
        expires_at task_id ticket to
    """,
    "task token a": """
        access_token actions expires_at issued_token_type provider recall resource task_id token_type
    """,
    "task proof a --url https://a.example --token-file {folder}/ticket": """
        method proof task_id url
    """,
}
# What needs more than an answer: a socket that speaks HTTP, or documents that are read whole.
ELSEWHERE = {
    "approval history": "test_reviews.py",
    **dict.fromkeys(["review show", "review decide", "review export", "review import"], "test_reviews.py"),
    "fact deliver": "test_signals.py",
    "policy narrow": "test_policy_narrow.py",
    "policy replay": "test_policy_replay.py",
    "bundle publish": "test_publish.py",
    "agent health": "test_health.py",
    **dict.fromkeys(["agent join", "agent detach"], "test_node_outage.py"),
    "doctor": "test_doctor.py",
    **dict.fromkeys(["backup create", "backup check", "restore"], "test_backup.py"),
    **dict.fromkeys(["agent install", "agent uninstall"], "test_agent_install.py"),
    **dict.fromkeys(["audit export", "audit check", "audit prove"], "test_audit_evidence.py"),
    "audit follow": "test_audit_search.py",
    "evidence controls": "test_evidence_controls.py",
}


def printed(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command prints as JSON; `{folder}` and `{types}` in it are folders."""
    app([*shlex.split(command.format(folder=folder, types=TYPES)), "--output", "json"], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def folder(tmp_path: Path, ca: FakeCa) -> Path:
    """With what commands are given as files."""
    (tmp_path / "ticket").write_text("a")
    (tmp_path / "entries.yaml").write_text(f"entries: [{{spiffe_id: {TRIAGE}, selectors: [unix:uid:1]}}]")
    (tmp_path / "bundle.pem").write_bytes(ca.root.public_bytes(Encoding.PEM))
    return tmp_path


@pytest.fixture(scope="module")
def ca() -> FakeCa:
    return FakeCa.make()


@pytest.fixture(scope="module")
def svid(ca: FakeCa) -> Mapping[str, Any]:
    """Fields of the Workload API as a caller can read them."""
    made = ca.svid("/agent/triage")
    return {
        "spiffe_id": TRIAGE,
        "actors": TRIAGE,
        "resource": PLACE,
        "x509_svid": b"".join(each.public_bytes(Encoding.DER) for each in made.chain),
        "x509_svid_key": made.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "bundle": ca.root_der,
        "crl": ca.crl(),
    }


def check(keys: set[str], wanted: str) -> None:
    assert sorted(wanted.split()) == sorted(keys)
    assert [] == [key for key in keys if not key.isidentifier() or key != key.lower()]


@pytest.mark.full
@pytest.mark.parametrize("command", KEYS)
def test_json_keys(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a command prints as JSON has the keys that scripts rely on, one for each field that the agent may tell."""
    answer_all(monkeypatch.setattr, {**READABLE, "svid": JWT_SVID, "action": "create"})
    check(keys_of(printed(command, folder, capsys)), KEYS[command])


@pytest.mark.parametrize("command", LOCAL)
def test_json_keys_without_an_agent(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a command prints as JSON that asks no agent has the keys that scripts rely on."""
    check(keys_of(printed(command, folder, capsys)), LOCAL[command])


@pytest.mark.parametrize("command", OF_WORKLOADS)
def test_json_keys_of_workloads(
    command: str,
    folder: Path,
    svid: Mapping[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a command prints as JSON of what a workload is given has the keys that scripts rely on."""
    answer_all(monkeypatch.setattr, {**READABLE, **svid})
    check(keys_of(printed(command, folder, capsys)), OF_WORKLOADS[command])


def test_json_keys_of_the_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each value of the configuration is printed with its key and where it comes from."""
    values = printed("config show", folder, capsys)["values"]
    assert {"socket", "data_dir"} <= {each["key"] for each in values}
    assert {("key", "origin", "value")} == {tuple(sorted(each)) for each in values}


def test_every_command_has_its_keys_here() -> None:
    """Each command that prints JSON is in one of these tables, so that a new one cannot be forgotten."""
    pinned = {" ".join(command.split()[:2]) for command in (*KEYS, *LOCAL, *OF_WORKLOADS, *ELSEWHERE)}
    pinned |= {command.split()[0] for command in (*KEYS, *OF_WORKLOADS) if command.split()[0] in COMMANDS}
    verbs = {noun: getattr(load(noun), "commands", {"": load(noun)}) for noun in (*COMMANDS, *NOUNS)}
    prints = {
        f"{noun} {verb}".rstrip()
        for noun, commands in verbs.items()
        for verb, command in commands.items()
        if any("--output" in each.opts for each in command.params)
    }
    assert len(prints) > 60
    assert [] == sorted(prints - pinned)


def test_every_field_is_filled() -> None:
    """The answers of these tests have every field that a message may have, so that no key can be forgotten unseen."""
    made = fill(pb.ListTasksResponse())
    assert isinstance(made, pb.ListTasksResponse)
    assert [] == [field.name for field, value in made.tasks[0].ListFields() if not value]
    unset = {field.name for field in made.tasks[0].DESCRIPTOR.fields} - {
        field.name for field, _ in made.tasks[0].ListFields()
    }
    assert {"params"} == unset
