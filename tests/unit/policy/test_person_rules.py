"""person_rules.py: whom a task may be for, by its type's [person]."""

from datetime import UTC, datetime

import pytest
from fakes.policies import principal, user
from fakes.task_types import TICKETS, TRIAGE, task_type
from sojourn.errors import InvalidPolicy, LimitExceeded, PolicyDenied
from sojourn.errors.people import PersonRefused
from sojourn.limits import CLAIMS_PER_TYPE, LOGIN_AGE_MAX_SECONDS, PERSON_TASKS
from sojourn.people.person import Person
from sojourn.policy import rules
from sojourn.policy.cedar_schema import Context
from sojourn.policy.person_rules import check_person, check_room, check_user
from sojourn.policy.user import UNKNOWN_AGE, User, login_age
from sojourn.tasktoken.grants import Authority, Grant

NOW = datetime(2026, 11, 29, tzinfo=UTC).timestamp()


def person(**changes):
    fields = {
        "issuer": "corp",
        "url": "https://kc.example.org/realms/corp",
        "subject": "u1",
        "issued_at": int(NOW) - 10,
        "expires_at": int(NOW) + 290,
        "ends_at": int(NOW) + 290,
        "auth_time": int(NOW) - 60,
        "acr": "mfa",
        "amr": ("pwd", "otp"),
        "groups": ("lead", "support"),
        "claims": {"department": "sales"},
    }
    return Person(**{**fields, **changes})


def kind(**rule):
    """A type with a [person] that says this; strings are TOML."""
    lines = {"need": '"required"', **rule}
    return task_type(person="{" + ", ".join(f"{name} = {text}" for name, text in lines.items()) + "}")


def refusal(of, who):
    with pytest.raises(PersonRefused) as refused:
        check_person(of, who, NOW)
    return refused.value


class TestNeed:
    def test_no_table(self):
        """A type that says nothing of people begins for nobody, and refuses a person's token."""
        check_person(task_type(), None, NOW)
        assert "person_not_taken" == refusal(task_type(), person()).code

    def test_required(self):
        """One that needs a person does not begin without."""
        check_person(kind(), person(), NOW)
        assert "person_required" == refusal(kind(), None).code

    def test_optional(self):
        """One that may have a person begins with and without."""
        for who in (None, person()):
            check_person(kind(need='"optional"'), who, NOW)

    def test_optional_is_not_anybody(self):
        """Whoever is named where nobody need be must be one whom the type takes all the same."""
        assert "unknown_issuer" == refusal(kind(need='"optional"', issuers='["other"]'), person()).code


class TestWho:
    def test_issuers(self):
        """Where issuers are named people of others are refused; where none are, of none."""
        for issuers in ('["corp"]', '["other", "corp"]'):
            check_person(kind(issuers=issuers), person(), NOW)
        assert "unknown_issuer" == refusal(kind(issuers='["other"]'), person()).code

    @pytest.mark.parametrize(
        ("groups", "issuer", "fits"),
        [
            pytest.param(("support",), "corp", True, id="in one"),
            pytest.param(("a", "lead", "z"), "corp", True, id="in the other"),
            pytest.param((), "corp", False, id="in none"),
            pytest.param(("Support",), "corp", False, id="other letters"),
            pytest.param(("corp/support",), "corp", False, id="with a prefix of its own"),
            pytest.param(("support",), "partner", False, id="of another issuer"),
            pytest.param(("corp/support",), "partner", False, id="of another issuer that says corp"),
        ],
    )
    def test_groups(self, groups, issuer, fits):
        """The person must be in one of the groups, of the very issuer: another that gives the same name gives nothing."""
        of = kind(groups='["corp/support", "corp/lead"]')
        if fits:
            check_person(of, person(groups=groups, issuer=issuer), NOW)
            return
        with pytest.raises(PolicyDenied, match="groups"):
            check_person(of, person(groups=groups, issuer=issuer), NOW)

    @pytest.mark.parametrize(
        ("declared", "value"),
        [
            ('"string"', 7),
            ('"string"', True),
            ('"long"', True),
            ('"long"', "7"),
            ('"boolean"', 1),
            ('"boolean"', "true"),
        ],
    )
    def test_claims_of_another_type(self, declared, value):
        """A claim that is not of the declared type refuses the person; one that is not there does not."""
        of = kind(claims=f"{{department = {declared}}}")
        assert "person_not_taken" == refusal(of, person(claims={"department": value})).code
        check_person(of, person(claims={}), NOW)

    def test_what_no_type_declares(self):
        """A claim that the type does not declare is not looked at."""
        check_person(kind(), person(claims={"department": 7, "other": True}), NOW)


class TestLogin:
    def test_acr(self):
        """Where ways to log in are named, another one is not enough, and the refusal says which are."""
        check_person(kind(acr='["phr", "mfa"]'), person(), NOW)
        for acr in ("pwd", "", "MFA"):
            refused = refusal(kind(acr='["phr", "mfa"]', max_auth_age='"5m"'), person(acr=acr))
            assert ("insufficient_user_authentication", ("phr", "mfa"), 300) == (
                refused.code,
                refused.acr_values,
                refused.max_age,
            )

    @pytest.mark.parametrize(("ago", "fits"), [(0, True), (299, True), (300, True), (301, False), (10**6, False)])
    def test_max_auth_age(self, ago, fits):
        """A login that is older than the type allows is not enough."""
        of = kind(max_auth_age='"5m"')
        if fits:
            check_person(of, person(auth_time=int(NOW) - ago), NOW)
        else:
            refused = refusal(of, person(auth_time=int(NOW) - ago))
            assert ("insufficient_user_authentication", (), 300) == (refused.code, refused.acr_values, refused.max_age)

    @pytest.mark.parametrize("auth_time", [0, int(NOW) + 61, int(NOW) + 10**6])
    def test_nobody_says_when(self, auth_time):
        """A token that says no time of the login, or one that is yet to come, has no fresh login."""
        assert UNKNOWN_AGE == login_age(auth_time, NOW)
        assert (
            "insufficient_user_authentication" == refusal(kind(max_auth_age='"30d"'), person(auth_time=auth_time)).code
        )
        check_person(kind(), person(auth_time=auth_time), NOW)

    def test_a_clock_that_is_a_little_ahead(self):
        """An issuer's clock may be ahead as much as hosts' clocks may differ: the login is now."""
        assert 0 == login_age(int(NOW) + 60, NOW)

    def test_a_live_task(self):
        """Of a task that lives the age of the login is no matter, and the way is."""
        of = kind(acr='["mfa"]', max_auth_age='"5m"')
        check_user(of, user(auth_age=10**6), login=False)
        with pytest.raises(PersonRefused, match="another way"):
            check_user(of, user(acr="pwd"), login=False)


class TestRoom:
    def test_five(self):
        """A person may have five live tasks of a type unless that says otherwise."""
        check_room(kind(), 4)
        check_room(kind(max_live="2"), 1)
        check_room(task_type(), 10**6)
        for of, live in ((kind(), 5), (kind(max_live="2"), 2), (kind(max_live="2"), 3)):
            with pytest.raises(LimitExceeded, match=f"{live} live tasks"):
                check_room(of, live)


class TestReload:
    HELD = Authority((Grant(TICKETS, ("ticket:read",)),))

    @pytest.mark.parametrize(
        ("of", "who", "why"),
        [
            pytest.param(task_type(), user(), "is for nobody", id="for nobody now"),
            pytest.param(kind(), None, "is for a person", id="for people now"),
            pytest.param(kind(issuers='["other"]'), user(), "issuer", id="another issuer"),
            pytest.param(kind(groups='["corp/board"]'), user(), "groups", id="another group"),
            pytest.param(kind(acr='["phr"]'), user(), "log in", id="another login"),
        ],
    )
    def test_what_another_version_takes(self, of, who, why):
        """A live task whose person its type does not take any more is left nothing, with the reason."""
        task = principal(workload=TRIAGE, user=who)
        left, _, reason = rules.left_by(of, task, self.HELD, Context(), "stream")
        assert () == left.grants
        assert why in reason

    def test_what_it_leaves(self):
        """One whose person it takes keeps what it has, however old the login is by now."""
        task = principal(user=user(auth_age=10**6))
        left, _, _ = rules.left_by(kind(max_auth_age='"5m"'), task, self.HELD, Context(), "stream")
        assert self.HELD == left


class TestTable:
    @pytest.mark.parametrize(
        ("rule", "fault"),
        [
            pytest.param({"need": '"maybe"'}, "need", id="another need"),
            pytest.param({"needs": '"required"'}, "unknown key", id="an unknown key"),
            pytest.param({"issuers": "[]"}, "issuers", id="no issuer"),
            pytest.param({"issuers": '["a|b"]'}, "issuers", id="no name of an issuer"),
            pytest.param({"groups": "[]"}, "groups", id="no group"),
            pytest.param({"groups": '["support"]'}, "ISSUER/GROUP", id="a group of nobody"),
            pytest.param({"groups": '["/support"]'}, "ISSUER/GROUP", id="a group without an issuer"),
            pytest.param({"groups": '["corp/"]'}, "ISSUER/GROUP", id="an issuer without a group"),
            pytest.param({"issuers": '["corp"]', "groups": '["b/c"]'}, "not in issuers", id="a group of another"),
            pytest.param({"acr": "[]"}, "acr", id="no acr"),
            pytest.param({"acr": '[""]'}, "acr", id="an empty acr"),
            pytest.param({"max_auth_age": '"0s"'}, "max_auth_age", id="no age"),
            pytest.param({"max_auth_age": f'"{LOGIN_AGE_MAX_SECONDS + 1}s"'}, "max_auth_age", id="too old"),
            pytest.param({"claims": '{a = "text"}'}, "claims", id="another type of claim"),
            pytest.param({"claims": '{"a-b" = "string"}'}, "claims", id="no name of a claim"),
            pytest.param({"claims": '{subject = "string"}'}, "there already", id="a claim that is an attribute"),
            pytest.param({"claims": '{auth_age = "long"}'}, "there already", id="a claim that is the age"),
            pytest.param(
                {"claims": "{" + ", ".join(f'c{n} = "long"' for n in range(CLAIMS_PER_TYPE + 1)) + "}"},
                "claims",
                id="too many claims",
            ),
            pytest.param({"several": '"true"'}, "several", id="several in words"),
            pytest.param({"max_live": "0"}, "max_live", id="no task"),
            pytest.param({"max_live": str(PERSON_TASKS + 1)}, "max_live", id="too many tasks"),
            pytest.param({"max_live": "true"}, "max_live", id="no number"),
        ],
    )
    def test_faults(self, rule, fault):
        """What says nothing, or what nobody could mean, is a fault of the type."""
        with pytest.raises(InvalidPolicy, match=fault):
            kind(**rule)

    def test_need_has_no_default(self):
        """Whether each task must be for a person is said, and not guessed."""
        with pytest.raises(InvalidPolicy, match=r"person\.need"):
            task_type(person='{issuers = ["corp"]}')

    def test_another_type(self):
        """A type with another [person] has another digest."""
        digests = [of.digest for of in (task_type(), kind(), kind(need='"optional"'), kind(max_live="6"))]
        assert 4 == len(set(digests))


def test_as_policies_see_them():
    """Of a person policies see what their token says, the groups by the issuer's name, and the age of the login."""
    seen = User.of(person(), NOW + 0.9)
    expected = user(claims=(("department", "string", "sales"),))
    assert expected == seen
    assert ("corp|u1", ["corp/lead", "corp/support"]) == (seen.name, seen.group_names)
    assert person().name == seen.name
