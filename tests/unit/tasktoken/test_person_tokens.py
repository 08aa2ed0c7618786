"""tokens.py and person_claims.py: tokens of tasks that are for a person, and what is taken for none."""

import pytest
from fakes.tasktokens import CLAIMS, DB, ISSUER, KEY, NOW, TASK, WEB, issue, refusal, token, verify
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidInput, InvalidSpiffeId, InvalidToken
from sojourn.limits import DELEGATION_DEPTH, PERSON_SUBJECT_MAX_BYTES
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken import tokens
from sojourn.tasktoken.person_claims import PersonClaims, check_subject, check_told
from sojourn.tasktoken.task_claim import APPROVED, TaskClaim

LOGIN = "https://login.example.org/realms/corp"
ALICE = PersonClaims(LOGIN, "8a1c-alice", 1795800000, "urn:example:mfa", ("pwd", "otp"))
OPS, DESK = (SpiffeId.parse(f"spiffe://example.org/{name}") for name in ("ops", "desk"))
SUB_ID = {"format": "iss_sub", "iss": LOGIN, "sub": "8a1c-alice"}
GOOD = {"sub": "8a1c-alice", "sub_id": SUB_ID, "act": {"sub": str(WEB)}}
APPROVED_TASK = TaskClaim("t1", "report", 3, "normal", approved=True)


def chain(*workloads: SpiffeId) -> dict:
    """The claim `act` of these, the present one first."""
    act: dict = {}
    for each in reversed(workloads):
        act = {"sub": str(each), **({"act": act} if act else {})}
    return act


class TestIssue:
    def test_claims(self):
        """A person's token names them by their issuer, every workload in `act`, and how they logged in; no more."""
        claims = issue(person=ALICE).claims
        assert {**GOOD, "client_id": str(WEB)} == {name: claims[name] for name in (*GOOD, "client_id")}
        assert (1795800000, "urn:example:mfa", ["pwd", "otp"]) == (claims["auth_time"], claims["acr"], claims["amr"])
        assert {"sub_id", "act", "auth_time", "acr", "amr"} == claims.keys() - issue().claims.keys()

    def test_a_task_that_was_handed_on(self):
        """The present workload is outermost and the client; the first is innermost, and is whose line it is."""
        issued = issue(person=ALICE, actors=(OPS, DESK))
        assert chain(OPS, DESK, WEB) == issued.claims["act"]
        assert (str(OPS), OPS, (OPS, DESK, WEB), WEB) == (
            issued.claims["client_id"],
            issued.actor,
            issued.actors,
            issued.spiffe_id,
        )
        assert issued == verify(issued.token)

    def test_without_a_person_nothing_changes(self):
        """The token of a task that is for nobody has the claims that it had before there were people."""
        issued = issue()
        assert set(CLAIMS) == set(issued.claims)
        assert (str(WEB), None, (), WEB) == (issued.subject, issued.person, issued.actors, issued.actor)
        assert "act" not in issued.claims

    def test_what_the_service_may_read(self):
        """Claims that a service is told stand in `person` alone, whole, and come back as they were given."""
        told = {"groups": ("corp/lead", "corp/support"), "department": "toys", "level": 2**60, "staff": True}
        issued = issue(person=ALICE._replace(claims=told))
        assert {**told, "groups": ["corp/lead", "corp/support"]} == issued.claims["person"]
        assert {"person"} == issued.claims.keys() - issue(person=ALICE).claims.keys()
        assert told == verify(issued.token).person.claims
        assert {"groups": ()} == verify(issue(person=ALICE._replace(claims={"groups": ()})).token).person.claims

    def test_names_of_our_own(self):
        """Nothing that a token says of itself is told as a claim of the person, in whichever case."""
        issued = issue(person=ALICE._replace(claims={"level": 1}), actors=(OPS,), task=APPROVED_TASK).claims
        for name in [*issued, "cnf", "status", "sid", "azp", "active", "EXP", "Sub_Id"]:
            with pytest.raises(InvalidInput):
                check_told(name)
        for name in ("groups", "department", "email", "roles", "level"):
            check_told(name)

    def test_what_their_issuer_does_not_say(self):
        """A claim that says nothing is not there."""
        claims = issue(person=PersonClaims(LOGIN, "bob")).claims
        assert {"auth_time", "acr", "amr"}.isdisjoint(claims)

    def test_approval(self):
        """Somebody's approval stands in the task, beside the person's own `acr`; without a person in `acr` as well."""
        for_alice, for_none = issue(person=ALICE, task=APPROVED_TASK), issue(task=APPROVED_TASK)
        assert (True, "urn:example:mfa") == (for_alice.claims["task"]["approved"], for_alice.claims["acr"])
        assert (True, APPROVED) == (for_none.claims["task"]["approved"], for_none.claims["acr"])
        assert [True, True, False, False] == [
            each.approved for each in (for_alice, verify(for_none.token), issue(), issue(person=ALICE))
        ]

    def test_an_older_agents_approval(self):
        """A token of an agent that says approval by `acr` alone is approved, and one of another `acr` is not."""
        assert verify(token({"acr": APPROVED})).approved
        assert not verify(token({"acr": "urn:example:mfa"})).approved

    def test_an_issuer_that_says_our_acr(self):
        """An issuer whose `acr` is our own name approves nothing: it is left out, and a token that has it is refused."""
        issued = issue(person=ALICE._replace(acr=APPROVED))
        assert (False, False) == ("acr" in issued.claims, issued.approved)
        assert "malformed" == refusal(token({**GOOD, "acr": APPROVED}))

    @pytest.mark.parametrize("subject", ["", "spiffe://example.org/web", "SPIFFE:x", "a\0b", "a\u202eb", "x" * 256])
    def test_subjects_that_are_not_carried(self, subject):
        """No token is signed for a subject that is empty, long, hidden, or looks like a workload."""
        with pytest.raises(InvalidInput):
            issue(person=ALICE._replace(subject=subject))


class TestVerify:
    def test_good(self):
        """A person's token says whose it is, who acts, and on whose line that is."""
        read = verify(token(GOOD))
        assert (PersonClaims(LOGIN, "8a1c-alice"), "8a1c-alice") == (read.person, read.subject)
        assert (WEB, (WEB,), WEB) == (read.actor, read.actors, read.spiffe_id)

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"act": None}, id="act-null"),
            pytest.param({"act": {}}, id="act-empty"),
            pytest.param({"act": []}, id="act-list"),
            pytest.param({"act": [{"sub": str(WEB)}, {"sub": str(OPS)}]}, id="two-acts"),
            pytest.param({"act": {"sub": str(WEB), "iss": LOGIN}}, id="act-of-an-issuer"),
            pytest.param({"act": {"sub": "8a1c-alice"}}, id="act-person"),
            pytest.param({"act": {"sub": str(OPS)}}, id="act-not-client"),
            pytest.param({"act": chain(OPS, WEB)}, id="client-innermost"),
            pytest.param({"act": chain(WEB, WEB)}, id="workload-twice"),
            pytest.param({"client_id": "8a1c-alice"}, id="client-person"),
            pytest.param({"client_id": None}, id="client-null"),
            pytest.param({"sub": str(WEB)}, id="sub-workload"),
            pytest.param({"sub": "8A1C-alice"}, id="sub-of-another-case"),
            pytest.param({"sub": ["8a1c-alice"]}, id="sub-list"),
            pytest.param({"sub": None}, id="sub-null"),
            pytest.param({"sub": str(WEB), "sub_id": {**SUB_ID, "sub": str(WEB)}}, id="person-called-as-workload"),
            pytest.param({"sub": "spiffe:", "sub_id": {**SUB_ID, "sub": "spiffe:"}}, id="person-called-spiffe"),
            pytest.param({"sub": "", "sub_id": {**SUB_ID, "sub": ""}}, id="person-of-no-name"),
            pytest.param({"sub": 7, "sub_id": {**SUB_ID, "sub": 7}}, id="sub-number"),
            pytest.param({"sub_id": None}, id="sub_id-null"),
            pytest.param({"sub_id": "8a1c-alice"}, id="sub_id-text"),
            pytest.param({"sub_id": [SUB_ID]}, id="sub_id-list"),
            pytest.param({"sub_id": {**SUB_ID, "format": "opaque"}}, id="opaque"),
            pytest.param({"sub_id": {"format": "opaque", "id": "8a1c-alice"}}, id="opaque-id"),
            pytest.param({"sub_id": {"format": "email", "email": "a@example.org"}}, id="email"),
            pytest.param({"sub_id": {"format": "aliases", "identifiers": [SUB_ID]}}, id="aliases"),
            pytest.param({"sub_id": {**SUB_ID, "format": ["iss_sub"]}}, id="format-list"),
            pytest.param({"sub_id": {**SUB_ID, "more": 1}}, id="sub_id-with-more"),
            pytest.param({"sub_id": {"iss": LOGIN, "sub": "8a1c-alice"}}, id="no-format"),
            pytest.param({"sub_id": {"format": "iss_sub", "sub": "8a1c-alice"}}, id="no-issuer"),
            pytest.param({"sub_id": {**SUB_ID, "iss": ""}}, id="issuer-of-no-name"),
            pytest.param({"sub_id": {**SUB_ID, "iss": 1}}, id="issuer-number"),
            pytest.param({"auth_time": "1795800000"}, id="auth_time-text"),
            pytest.param({"auth_time": True}, id="auth_time-true"),
            pytest.param({"auth_time": -1}, id="auth_time-negative"),
            pytest.param({"auth_time": 1.5}, id="auth_time-fraction"),
            pytest.param({"acr": ["urn:example:mfa"]}, id="acr-list"),
            pytest.param({"amr": "pwd"}, id="amr-text"),
            pytest.param({"amr": [1]}, id="amr-numbers"),
            pytest.param({"person": None}, id="told-null"),
            pytest.param({"person": ["lead"]}, id="told-list"),
            pytest.param({"person": {"exp": 1}}, id="told-of-our-name"),
            pytest.param({"person": {"Sub": "bob"}}, id="told-of-our-name-nearly"),
            pytest.param({"person": {"level": 1.5}}, id="told-fraction"),
            pytest.param({"person": {"level": None}}, id="told-value-null"),
            pytest.param({"person": {"level": {"is": 1}}}, id="told-object"),
            pytest.param({"person": {"level": ["a"]}}, id="told-texts"),
            pytest.param({"person": {"groups": "corp/lead"}}, id="told-groups-text"),
            pytest.param({"person": {"groups": [1]}}, id="told-groups-numbers"),
        ],
    )
    def test_refused(self, changes):
        """What is not exactly a person with their issuer, and a chain that ends with the client, is refused."""
        assert "malformed" == refusal(token({**GOOD, **changes}))

    @pytest.mark.parametrize("name", ["sub_id", "act"])
    def test_either_alone(self, name):
        """A person's `sub` without `sub_id` is refused, and `sub_id` without anybody who acts."""
        assert "malformed" == refusal(token(GOOD, without=name))

    def test_what_is_told_of_nobody(self):
        """Claims of a person beside a workload's `sub` are refused: nobody is there whom they are of."""
        assert "malformed" == refusal(token({"person": {"groups": ["corp/lead"]}}))
        assert "malformed" == refusal(token({"person": {}}))

    def test_a_workload_with_the_persons_id_beside(self):
        """A `sub_id` beside a workload's `sub` is refused: it does not turn one into the other."""
        assert "malformed" == refusal(token({"sub_id": SUB_ID}))

    def test_depth(self):
        """A chain for a person is as long as hand-overs may be, with the workload that began it; and no longer."""
        workloads = [SpiffeId.parse(f"spiffe://example.org/w{number}") for number in range(DELEGATION_DEPTH + 2)]
        for count, good in ((DELEGATION_DEPTH + 1, True), (DELEGATION_DEPTH + 2, False)):
            some = workloads[:count]
            text = token({**GOOD, "act": chain(*some), "client_id": str(some[0])})
            if good:
                assert tuple(some) == verify(text).actors
            else:
                assert "malformed" == refusal(text)

    def test_a_member_twice(self):
        """A token with two `act`, or two `sub_id`, is refused: readers would differ about which counts."""
        import base64
        import json

        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from fakes.tasktokens import PRIVATE

        for twice in ('"act":{"sub":"spiffe://example.org/ops"}', '"sub_id":{}', '"sub":"bob"'):
            head = json.dumps({"alg": "ES256", "kid": "k1", "typ": "at+jwt"}).encode()
            body = json.dumps({**CLAIMS, **GOOD}).encode()[:-1] + b"," + twice.encode() + b"}"
            text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (head, body))
            r, s = decode_dss_signature(PRIVATE.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
            raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
            signed = f"{text}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"
            with pytest.raises(InvalidToken):
                verify(signed)


class TestSubjects:
    @examples(200)
    @given(st.text(max_size=40) | st.builds("spiffe:{}".format, st.text(max_size=20)))
    def test_never_taken_for_a_workload(self, text):
        """No subject of a person is a SPIFFE ID: readers that know workloads alone refuse each token for a person, as
        they parse `sub` as one.
        """
        try:
            check_subject(text)
        except InvalidInput:
            return
        with pytest.raises(InvalidSpiffeId):
            SpiffeId.parse(text)

    def test_readers_of_before(self):
        """What a reader of before there were people does first, to parse `sub` as a SPIFFE ID, fails for each of ours."""
        issued = issue(person=ALICE)
        with pytest.raises(InvalidSpiffeId):
            SpiffeId.parse(str(issued.claims["sub"]))

    @pytest.mark.parametrize(
        "text",
        [
            "Spiffe://x",
            " spiffe://x",
            "\u212bngstr\u00f6m",  # the sign, which NFC writes otherwise
            "e\u0301",
            "\uff53piffe:x",
            "a\ud800",
            "a\nb",
            "\u200b",
            "\u00e9" * 128,
        ],
        ids=["case", "space", "angstrom", "decomposed", "wide", "surrogate", "newline", "hidden", "bytes"],
    )
    def test_refused(self, text):
        """A subject that looks like another, or that cannot be seen, is none."""
        with pytest.raises(InvalidInput):
            check_subject(text)

    @pytest.mark.parametrize(
        "text", ["8a1c", "auth0|5f7c", "alice@example.org", "\u00e9", "a b", "x" * PERSON_SUBJECT_MAX_BYTES]
    )
    def test_taken(self, text):
        """Subjects as issuers give them are carried byte for byte."""
        assert text == check_subject(text) == verify(issue(person=ALICE._replace(subject=text)).token).subject


class TestPrefix:
    def test_before_the_subject(self):
        """Where the agent has people of several issuers, `sub` begins with what their issuer's do, and `sub_id` is theirs."""
        token = issue(person=ALICE._replace(prefix="corp|"))
        assert ("corp|8a1c-alice", "8a1c-alice") == (token.claims["sub"], token.claims["sub_id"]["sub"])
        read = verify(token.token)
        assert ("corp|8a1c-alice", "8a1c-alice", "corp|") == (read.subject, read.person.subject, read.person.prefix)

    @pytest.mark.parametrize("whole", ["corp|8a1c-alic", "8a1c-alice|corp", "bob", "", None])
    def test_of_another(self, whole):
        """A `sub` that does not end with that of `sub_id` is somebody else's."""
        claims = {**ALICE.claimed(), "sub": whole}
        with pytest.raises(InvalidInput):
            PersonClaims.read(claims)

    @pytest.mark.parametrize("prefix", ["spiffe:", " SPIFFE:", "a\n", "x" * PERSON_SUBJECT_MAX_BYTES])
    def test_what_cannot_stand_there(self, prefix):
        """A prefix that makes of a subject what none may be is refused as that is, written and read."""
        with pytest.raises(InvalidInput):
            ALICE._replace(prefix=prefix).claimed()
        with pytest.raises(InvalidInput):
            PersonClaims.read({**ALICE.claimed(), "sub": f"{prefix}8a1c-alice"})


PEOPLE = st.builds(
    PersonClaims,
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
    st.from_regex(r"[A-Za-z0-9|@._-]{1,40}", fullmatch=True).filter(
        lambda text: not text.casefold().startswith("spiffe:")
    ),
    st.integers(0, 2**40),
    st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda text: text != APPROVED),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=4).map(tuple),
    st.fixed_dictionaries(
        {},
        optional={
            "groups": st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=4).map(tuple),
            "department": st.text(st.characters(codec="utf-8"), max_size=8),
            "level": st.integers(-(2**63), 2**63 - 1),
            "staff": st.booleans(),
        },
    ),
    prefix=st.from_regex(r"([A-Za-z0-9|@._/-]{0,20}[|/])?", fullmatch=True),
)


@examples(100)
@given(PEOPLE, st.permutations([OPS, DESK]).map(tuple) | st.just(()))
def test_round_trip(person, actors):
    """Whoever a task is for, and through whomever it went, its token is read as it was issued."""
    issued = issue(person=person, actors=actors)
    read = verify(issued.token)
    assert (issued, person, WEB) == (read, read.person, read.spiffe_id)
    assert (actors or (WEB,))[0] == read.actor


@examples(100)
@given(
    st.dictionaries(
        st.sampled_from(["sub", "sub_id", "act", "client_id", "auth_time", "acr", "amr", "person"]),
        st.sampled_from(
            [None, 1, "", "8a1c-alice", str(WEB), str(OPS), SUB_ID, {**SUB_ID, "sub": str(WEB)}, [], {"sub": str(WEB)}]
        ),
    )
)
def test_a_person_or_a_workload(changes):
    """Whatever stands in its claims, a token that is read is a person's with `sub_id`, or a workload's without: never
    one that a service could take for both.
    """
    claims = {**CLAIMS, **GOOD, **changes}
    try:
        read = tokens.verify(
            KEY.sign(claims, typ="at+jwt"), keys={"k1": KEY.public}, issuer=ISSUER, audience=DB, now=NOW
        )
    except InvalidToken:
        return
    assert (read.person is not None) == ("sub_id" in claims)
    assert read.subject == claims["sub"]
    if read.person is not None:
        assert read.actors
        assert str(read.actors[0]) == claims["client_id"]
        assert not read.subject.startswith("spiffe:")
    assert TASK["id"] == read.task_id
