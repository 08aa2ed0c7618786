"""Policies about the person whom a task is for: what they can read, and what becomes of whoever does not fit."""

import json
from dataclasses import replace

import pytest
from fakes.policies import ACTIONS, PARAMS, principal, question, user
from fakes.task_types import TICKETS, task_type
from hypothesis import given, settings
from hypothesis import strategies as st
from sojourn.errors import InvalidInput, InvalidPolicy
from sojourn.policy import cases, lint
from sojourn.policy.asked_user import read_user, some_user
from sojourn.policy.cedar import Allow, Deny, Policy
from sojourn.policy.cedar_schema import Context, Fields, inputs_of
from sojourn.policy.conditions import conditions
from sojourn.policy.explanation import explain
from sojourn.policy.questions import RULES, ask
from sojourn.policy.user import UNKNOWN_AGE, UserFields

CLAIMS = {"department": "string", "level": "long", "manager": "boolean"}
REQUIRED, OPTIONAL = UserFields(CLAIMS), UserFields(CLAIMS, required=False)
SALES = (("department", "string", "sales"), ("level", "long", 3), ("manager", "boolean", True))
RULE = '{need = "required", issuers = ["corp"], claims = {department = "string"}}'


def policy(condition, declared=REQUIRED):
    return Policy(
        f'@id("a") permit (principal, action, resource) when {{ {condition} }};', ACTIONS, PARAMS, user=declared
    )


def decide(of, who):
    return of.decide(principal(user=who), "ticket:read", TICKETS, Context())


def about(condition, **changes):
    """A type whose one policy has this condition."""
    return task_type(cedar=f'@id("a") permit (principal, action, resource) when {{ {condition} }};', **changes)


class TestReading:
    @pytest.mark.parametrize(
        ("condition", "allowed"),
        [
            ('principal.user == Sojourn::User::"corp|u1"', True),
            ('principal.user == Sojourn::User::"partner|u1"', False),
            ('principal.user in Sojourn::Group::"corp/support"', True),
            ('principal.user in [Sojourn::Group::"corp/board", Sojourn::Group::"corp/lead"]', True),
            ('principal.user in Sojourn::Group::"partner/support"', False),
            ('principal.user in Sojourn::Group::"support"', False),
            ('principal.user.issuer == "corp" && principal.user.subject == "u1"', True),
            ('principal.user.acr == "mfa"', True),
            ('principal.user.amr.containsAll(["otp", "pwd"])', True),
            ('principal.user.amr.contains("sms")', False),
            ('principal.user.groups.contains("support")', True),
            ('principal.user.groups.contains("corp/support")', False),
            ("principal.user.auth_age <= 60", True),
            ("principal.user.auth_age < 60", False),
            ('principal.user has department && principal.user.department == "sales"', True),
            ("principal.user has level && principal.user.level > 2", True),
            ("principal.user has manager && principal.user.manager", True),
        ],
    )
    def test_attributes(self, condition, allowed):
        """A policy reads who a person is, in which groups, how and when they logged in, and the declared claims."""
        assert allowed == bool(decide(policy(condition), user(claims=SALES)))

    @pytest.mark.parametrize(
        "condition",
        [
            'principal.user.department == "sales"',
            'principal.user.email == "a@b"',
            'principal.user.auth_age == "60"',
            'principal.user in Sojourn::Team::"corp/support"',
            "principal.user.level > 2",
        ],
    )
    def test_what_cannot_be_read(self, condition):
        """What a person may not have, or what nobody declared, is a fault of the policy and no surprise later."""
        with pytest.raises(InvalidPolicy):
            policy(condition)

    def test_optional(self):
        """Where nobody need be there, a policy must ask whether somebody is."""
        with pytest.raises(InvalidPolicy):
            policy('principal.user.acr == "mfa"', OPTIONAL)
        of = policy('principal has user && principal.user.acr == "mfa"', OPTIONAL)
        assert [True, False, False] == [bool(decide(of, who)) for who in (user(), user(acr="pwd"), None)]

    def test_no_people(self):
        """In a type that is for nobody a policy cannot name people."""
        with pytest.raises(InvalidPolicy):
            policy("principal.user.auth_age < 60", None)
        with pytest.raises(InvalidPolicy):
            policy('principal.user in Sojourn::Group::"corp/support"', None)

    def test_the_login_that_nobody_dates(self):
        """A login whose time nobody says is not fresh for any policy, and counting on from it is a deny."""
        of = policy("principal.user.auth_age < 2592000")
        assert not decide(of, user(auth_age=UNKNOWN_AGE))
        assert not decide(policy("principal.user.auth_age * 1000 > 0"), user(auth_age=UNKNOWN_AGE))

    def test_approval(self):
        """The condition of an approval may ask of the person, and only what there is."""
        of = task_type(person=RULE, approval="""{when = 'principal.user in Sojourn::Group::"corp/interns"'}""")
        asked = [question("ticket:read", TICKETS, user=user(groups=groups)) for groups in (("interns",), ("lead",))]
        assert [True, False] == [ask(of, each).approval for each in asked]
        for there in ("principal.user has depratment", "principal.user has manager"):
            with pytest.raises(InvalidPolicy, match=r"there is no principal\.user"):
                task_type(person=RULE, approval=f"{{when = '{there}'}}")
        with pytest.raises(InvalidPolicy, match=r"there is no principal\.user"):
            task_type(approval="{when = 'principal has user'}")


READ_ALL = (
    'principal.user.acr != ""',
    "principal.user.auth_age > 0",
    'principal.user.groups.contains("support")',
    "(if principal.user has level then principal.user.level > 0 else true)",
)


class TestWhoeverDoesNotFit:
    """Cedar takes no task that is not as its type says: then nothing is permitted."""

    @pytest.mark.parametrize(
        ("declared", "who"),
        [
            pytest.param(REQUIRED, None, id="nobody where somebody must be"),
            pytest.param(None, user(), id="somebody where nobody may be"),
            pytest.param(REQUIRED, user(claims=(("level", "string", "3"),)), id="a claim of another type"),
            pytest.param(REQUIRED, user(claims=(("level", "boolean", True),)), id="true for a number"),
            pytest.param(REQUIRED, user(auth_age=1.5), id="an age in parts of seconds"),
            pytest.param(REQUIRED, user(auth_age=True), id="an age that is true"),
            pytest.param(REQUIRED, user(auth_age="60"), id="an age as text"),
            pytest.param(REQUIRED, user(groups=("support", 7)), id="a group that is a number"),
            pytest.param(REQUIRED, user(groups=["support"]), id="groups that may change"),
            pytest.param(REQUIRED, user(acr=None), id="no acr"),
        ],
    )
    def test_denied(self, declared, who):
        """A task for somebody that its type does not have is denied, also after a yes for one that it has."""
        reading = "" if declared is None else f"when {{ {' && '.join(READ_ALL)} }}"
        of = Policy(f'@id("a") permit (principal, action, resource) {reading};', ACTIONS, PARAMS, user=declared)
        fitting = None if declared is None else user()
        assert isinstance(decide(of, fitting), Allow)
        answer = decide(of, who)
        assert isinstance(answer, Deny)
        assert "could not be asked" in answer.reason

    def test_claims_that_the_type_does_not_declare(self):
        """They are not seen, so that another type of the same issuer may have them."""
        assert decide(policy("!(principal.user has department)"), user(claims=(("email", "string", "a@b"),)))


class TestKept:
    def test_age_that_nobody_reads(self):
        """Where no policy reads the age of the login, a yes is as good a second later."""
        of = policy('principal.user.acr == "mfa"')
        for age in (1, 2, 3):
            assert decide(of, user(auth_age=age))
        assert 1 == of._made.cache_info().misses
        assert 1 == len(of._allowed)

    def test_people_who_are_alike(self):
        """People who are in the same groups of those that policies name are one to them, whatever else they are."""
        of = policy(
            'principal.user in Sojourn::Group::"corp/support" && !(principal.user in Sojourn::Group::"corp/out")'
        )
        for number in range(5):
            more = tuple(f"team-{number}-{each}" for each in range(20))
            assert decide(of, user(subject=f"u{number}", groups=("support", *more), amr=(), acr=str(number)))
        assert 1 == len(of._allowed)
        assert not decide(of, user(groups=("out", "support")))
        assert not decide(of, user(groups=("team", "out")))
        assert not decide(of, user(issuer="partner", groups=("support",)))

    @pytest.mark.parametrize(
        "condition",
        [
            'principal.user == Sojourn::User::"corp|u1"',
            '[Sojourn::User::"corp|u1", Sojourn::User::"corp|u9"].contains(principal.user)',
            'principal.user in [Sojourn::User::"corp|u1"]',
            'principal.user.subject == "u1"',
            'principal["user"]["subject"] == "u1"',
            'principal.user has subject && principal.user.subject like "u1*"',
            'if principal.user.subject == "u1" then true else false',
        ],
    )
    def test_one_is_not_the_other(self, condition):
        """However a policy names one person, it is for that one, whoever was decided before."""
        of = policy(condition)
        asked = [decide(of, user(subject=name)) for name in ("u2", "u1", "u2", "u1")]
        assert [False, True, False, True] == [bool(each) for each in asked]

    def test_age_that_is_read(self):
        """Where one does, a yes is good for that second, and no second longer than the policy says."""
        of = policy("principal.user.auth_age < 3")
        assert [True, True, False, True] == [bool(decide(of, user(auth_age=age))) for age in (1, 2, 3, 2)]

    def test_age_beside_the_policies(self):
        """The condition of an approval that reads the age gets the age, though no policy reads it."""
        of = task_type(person=RULE, approval="{when = 'principal.user.auth_age > 60'}")
        asked = [question("ticket:read", TICKETS, user=user(auth_age=age)) for age in (60, 61, 60)]
        assert [False, True, False] == [ask(of, each).approval for each in asked]

    @given(
        st.lists(st.tuples(*(st.sampled_from(each) for each in (("corp", "b"), ("u1", "u2"), ((), ("x",)), (1, 9)))))
    )
    @settings(max_examples=40)
    def test_never_another(self, asked):
        """However people come and go, each is answered as if they had been the only one."""
        of = policy(
            'principal.user.auth_age < 5 && (principal.user in Sojourn::Group::"corp/x" ||'
            ' principal.user == Sojourn::User::"b|u2")'
        )
        for issuer, subject, groups, age in asked:
            expected = age < 5 and ((issuer == "corp" and "x" in groups) or (issuer, subject) == ("b", "u2"))
            who = user(issuer=issuer, subject=subject, groups=groups, auth_age=age)
            assert expected == bool(decide(of, who))


class TestHidden:
    WHO = user(subject="alice-8a1c", groups=("support-tier-2",), claims=(("department", "string", "mergers"),))

    def test_no_word_of_them(self):
        """What digests of the audit are made of has no subject, group or claim in clear."""
        made = json.dumps(inputs_of(principal(user=self.WHO), Context(), b"key"))
        for word in ("alice", "support", "mergers", "corp", "mfa", "otp"):
            assert word not in made

    def test_a_key_is_needed(self):
        """Nobody without the key can try whether it was somebody; with it the same is the same, whenever they logged in."""
        one, other = (inputs_of(principal(user=self.WHO), Context(), key)["principal"]["user"] for key in (b"a", b"b"))
        again = inputs_of(principal(user=user(**_fields(self.WHO, auth_age=61))), Context(), b"a")["principal"]["user"]
        assert one["hmac"] == again["hmac"] != other["hmac"]
        assert (60, 61) == (one["auth_age"], again["auth_age"])


class TestQuestions:
    def test_the_rule(self):
        """Whoever does not fit is told by the rule person, before parameters and policy are looked at."""
        assert RULES.index("binding") < RULES.index("person") < RULES.index("params")
        of = task_type(person=RULE)
        answers = [ask(of, question("ticket:read", TICKETS, user=who)) for who in (user(), None, user(issuer="b"))]
        assert ["policy", "person", "person"] == [each.rule for each in answers]
        assert [True, False, False] == [bool(each) for each in answers]
        assert "person" == ask(task_type(), question("ticket:read", TICKETS, user=user())).rule

    def test_as_the_command_says_it(self):
        """A person is named ISSUER/SUBJECT; claims get the types that the task type declares."""
        of = task_type(person='{need = "required", claims = {level = "long", manager = "boolean"}}')
        read = read_user(of, "corp/a/b", ["y", "x", "y"], "mfa", ["otp"], 7, {"level": "3", "manager": "true"})
        claims = (("level", "long", 3), ("manager", "boolean", True))
        assert user(subject="a/b", groups=("x", "y"), amr=("otp",), auth_age=7, claims=claims) == read

    @pytest.mark.parametrize(
        ("name", "more", "fault"),
        [
            ("corp", {}, "ISSUER/SUBJECT"),
            ("/u1", {}, "ISSUER/SUBJECT"),
            ("corp/", {}, "ISSUER/SUBJECT"),
            ("corp/u1", {"auth_age": -1}, "auth_age"),
            ("corp/u1", {"auth_age": 10**19}, "auth_age"),
            ("corp/u1", {"claims": {"level": "x"}}, "whole number"),
            ("corp/u1", {"claims": {"other": "x"}}, "declares no claim"),
        ],
    )
    def test_what_is_no_person(self, name, more, fault):
        """What names nobody, or says what no type declares, is refused by its name."""
        with pytest.raises(InvalidInput, match=fault):
            read_user(task_type(person='{need = "required", claims = {level = "long"}}'), name, **more)

    def test_explained(self):
        """An explanation shows what policies see of the person, and what another group or login would change."""
        of = about(
            'principal.user in Sojourn::Group::"corp/board" && principal.user.auth_age <= 300',
            person=RULE,
        )
        found = explain(of, question("ticket:read", TICKETS, user=user(claims=(("department", "string", "sales"),))))
        assert {
            "principal.user": "corp|u1",
            "principal.user.issuer": "corp",
            "principal.user.subject": "u1",
            "principal.user.acr": "mfa",
            "principal.user.amr": '["pwd", "otp"]',
            "principal.user.groups": '["lead", "support"]',
            "principal.user.auth_age": "60",
            "principal.user.department": "sales",
        } == {name: text for name, text in found.attributes.items() if name.startswith("principal.user")}
        assert ("with group board", True) in [(each.what, each.allowed) for each in found.changes]
        allowed = explain(of, question("ticket:read", TICKETS, user=user(groups=("board",))))
        changes = [(each.what, each.allowed) for each in allowed.changes]
        assert ("with auth_age 301", False) in changes
        assert ("with no group board", False) in changes

    def test_without_a_person(self):
        """One about nobody shows no person."""
        found = explain(task_type(), question("ticket:read", TICKETS))
        assert [] == [name for name in found.attributes if "user" in name]

    def test_conditions(self):
        """Whom a type is for stands among its conditions, in words too."""
        of = task_type(
            person='{need = "optional", issuers = ["corp"], groups = ["corp/lead"], acr = ["mfa"], max_auth_age = "1h"}'
        )
        found = conditions(of, None)
        assert "person optional" == found.names()
        told = (
            "it may be for a person of corp, in corp/lead, logged in by mfa, at most 1h ago: one process for one at a"
            " time, and 5 tasks of theirs at most"
        )
        assert [told] == list(found.lines())
        assert "none" == conditions(task_type(), None).names()


class TestCases:
    def parse(self, said, of=None):
        text = f'[[case]]\nname = "a"\nexpect = "allow"\naction = "ticket:read"\nresource = "{TICKETS}"\n{said}\n'
        return cases.parse("a.test.toml", text, of or task_type(person=RULE))

    def test_user(self):
        """A case says whom its task is for, with the claims beside."""
        [case] = self.parse(
            'user = {issuer = "corp", subject = "u1", groups = ["support", "lead"], acr = "mfa", amr = ["pwd", "otp"],'
            ' auth_age = 60, department = "sales"}'
        )
        assert user(claims=(("department", "string", "sales"),)) == case.question.principal.user

    def test_default(self):
        """That of [default] counts where a case says none; false is nobody."""
        default = (
            f'[default]\nresource = "{TICKETS}"\naction = "ticket:read"\nuser = {{issuer = "corp", subject = "u1"}}\n'
        )
        each = '[[case]]\nname = "{}"\nexpect = "{}"\n{}\n'
        text = default + each.format("a", "allow", "") + each.format("b", "deny", 'user = false\nrule = "person"')
        found = cases.parse("a.test.toml", text, task_type(person=RULE))
        assert ["corp|u1", None] == [
            each.question.principal.user and each.question.principal.user.name for each in found
        ]
        assert [(), ()] == [each.differences for each in cases.run(task_type(person=RULE), found)]

    @pytest.mark.parametrize(
        ("said", "fault"),
        [
            ('user = {issuer = "corp"}', "subject"),
            ('user = {issuer = "", subject = "u1"}', "issuer"),
            ('user = {issuer = "corp", subject = "u1", groups = "lead"}', "groups"),
            ('user = {issuer = "corp", subject = "u1", auth_age = -1}', "auth_age"),
            ('user = {issuer = "corp", subject = "u1", auth_age = true}', "auth_age"),
            ('user = {issuer = "corp", subject = "u1", departmnet = "sales"}', "declares no claim"),
            ('user = {issuer = "corp", subject = "u1", department = [1]}', "department"),
            ("user = true", "user"),
        ],
    )
    def test_faults(self, said, fault):
        """What is no person is a fault of the file."""
        with pytest.raises(InvalidPolicy, match=fault):
            self.parse(said)


class TestLint:
    def warnings(self, condition, person=RULE):
        return [each.message for each in lint.warnings(about(condition, person=person))]

    def test_nothing_to_say(self):
        """A policy that reads the person by what the type takes has no warning."""
        assert [] == self.warnings('principal.user in Sojourn::Group::"corp/support"')
        assert [] == self.warnings('principal.user.groups.contains("support") && principal.user.subject != "u1"')

    def test_never_read(self):
        """A type for people that treats all of them alike is told."""
        [told] = self.warnings("true")
        assert "no policy reads principal.user" in told

    def test_read_by_the_approval(self):
        """Reading the person in the condition of the approval is reading."""
        of = task_type(person=RULE, approval="""{when = 'principal.user.acr != "mfa"'}""")
        assert [] == lint.warnings(of)

    @pytest.mark.parametrize(
        ("condition", "told"),
        [
            ('principal.user in Sojourn::Group::"partner/support"', "does not take"),
            ('principal.user in Sojourn::Group::"support"', "ISSUER/GROUP"),
            ('principal.user == Sojourn::User::"partner|u1"', "does not take"),
            ('principal.user == Sojourn::User::"u1"', "ISSUER|SUBJECT"),
            ('principal.user.groups.contains("corp/support")', "without their issuer"),
            ('principal.user.groups.containsAny(["corp/a", "b"])', "without their issuer"),
            ('principal.user.issuer == "partner"', "does not take"),
            ('principal.user.acr == "mfa" && principal in Sojourn::Group::"corp/support"', "principal.user in"),
        ],
    )
    def test_of_another_issuer(self, condition, told):
        """Whoever is named in a way in which nobody of the type's issuers is named is told."""
        [found] = self.warnings(condition)
        assert told in found

    @pytest.mark.parametrize("issuers", ['issuers = ["corp", "partner"]', 'claims = {department = "string"}'])
    def test_by_name_alone(self, issuers):
        """Where people of several issuers may come, a group or subject that is read without the issuer is told."""
        person = f'{{need = "required", {issuers}}}'

        def warnings(condition):
            return [each for each in self.warnings(condition, person) if "tell" not in each]

        for condition in ('principal.user.groups.contains("admin")', 'principal.user.subject == "u1"'):
            [found] = warnings(condition)
            assert "not of which issuer" in found
            assert [] == warnings(f'{condition} && principal.user.issuer == "corp"')

    def test_one_subject_of_two_issuers(self):
        """A type of several named issuers is told that services may take two people of one subject for one, unless they
        have a name of their own there, or none.
        """
        person = '{need = "required", issuers = ["corp", "partner"]}'
        [found] = self.warnings('principal.user.acr == "mfa"', person)
        assert "tell" in found
        assert "https://tickets.example.org" in found
        assert [] == self.warnings('principal.user.acr == "mfa"', RULE)
        kind = about('principal.user.acr == "mfa"', person=person)
        for tell, expected in (("pairwise", 0), ("nothing", 0), ("subject", 1)):
            told = dict.fromkeys(kind.ceiling.resources, "pairwise") | {"https://tickets.example.org": tell}
            assert expected == len(lint.warnings(replace(kind, tell=told)))

    def test_over(self):
        """A type for people is looked at as any other: nothing is permitted once a task is over."""
        assert [] == lint.faults(about('principal.user.acr == "mfa"', person=RULE), None)
        assert (None, None) == (some_user(None), some_user(task_type(person='{need = "optional"}').person))


def test_no_person_no_difference():
    """A type without people asks Cedar by the schema that it always had: no kind User, Group, and no attribute."""
    schema = Policy('@id("a") permit (principal, action, resource);', ACTIONS, Fields())._schema_text
    assert not any(word in schema for word in ("User", "Group", "user"))


def _fields(who, **changes):
    names = ("issuer", "subject", "acr", "amr", "groups", "auth_age", "claims")
    return {**{name: getattr(who, name) for name in names}, **changes}
