"""task_types.py: task types of two files each, whole or not at all."""

import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, WIKI, task_type, toml
from harness.looking import OpenFiles
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import Fault, InvalidInput, InvalidPolicy
from sojourn.limits import (
    PARAM_MAX_BYTES,
    PARAMS_PER_TASK,
    TASK_MAX_SECONDS,
    TOKEN_TTL_HIGH_CLASS_SECONDS,
    TOKEN_TTL_MAX_SECONDS,
    USES_MAX,
)
from sojourn.policy import task_types as types_module
from sojourn.policy.task_types import load, parse

SAMPLES = Path(__file__).parent.parent.parent.parent / "deploy" / "samples" / "task-types"


def test_placed():
    """Faults are told with the whole path of their file, of the one that is meant, or of the folder."""
    found = [Fault("a.toml", 1, "x"), Fault("", 2, "y")]
    folder = Path("/etc/types")
    assert ["/etc/types/a.toml", "/etc/types"] == [each.file for each in types_module.placed(folder, found)]
    assert ["/etc/types/a.toml", "/etc/types/b.toml"] == [
        each.file for each in types_module.placed(folder, found, "b.toml")
    ]


class TestFacts:
    def test_read(self):
        """The texts of facts are read by their types, and one that the type does not read is refused by name."""
        kind = task_type(facts='{freeze = "boolean", level = {type = "long"}, note = "string"}')
        given = {"freeze": "true", "level": "7", "note": "7"}
        assert {"freeze": True, "level": 7, "note": "7"} == kind.read_facts(given)
        for wrong, said in (
            ({"level": "7", "other": "1"}, "reads no fact 'other'"),
            ({"level": "x"}, "fact 'level' is not a whole number"),
            ({"freeze": "yes"}, "fact 'freeze' is not true or false"),
        ):
            with pytest.raises(InvalidInput, match=said):
                kind.read_facts(wrong)

    @pytest.mark.parametrize(
        "source", ["operator", TRIAGE, "https://issuer.example.org", "https://issuer.example.org/a"]
    )
    def test_sources(self, source):
        """A fact is believed of the operator, of workloads, and of https issuers."""
        kind = task_type(facts=f'{{freeze = {{type = "boolean", sources = ["{source}"]}}}}')
        assert (source,) == kind.facts["freeze"].sources

    @pytest.mark.parametrize("source", ["http://issuer.example.org", "https://", "https:///a", "Operator", "x", ""])
    def test_no_source(self, source):
        """Nobody else is a source, an issuer without https or without a host neither."""
        with pytest.raises(InvalidPolicy, match="is not a SPIFFE ID"):
            task_type(facts=f'{{freeze = {{type = "boolean", sources = ["{source}"]}}}}')

    @pytest.mark.parametrize("approver", ["Operator", "https://issuer.example.org", ""])
    def test_no_approver(self, approver):
        """Whoever must agree is the operator or a workload."""
        with pytest.raises(InvalidPolicy, match="is not a SPIFFE ID"):
            task_type(approval=f'{{approvers = ["{approver}"]}}')


class TestParse:
    def test_all_of_it(self):
        """A task type has everything that its file says."""
        kind = task_type(description='"Sort tickets"')
        assert ("triage", "Sort tickets", {TRIAGE}, timedelta(minutes=15), timedelta(seconds=60)) == (
            kind.name,
            kind.description,
            {str(each) for each in kind.allowed_workloads},
            kind.max_duration,
            kind.token_ttl,
        )
        assert (("ticket:read", "ticket:write"), ("page:read",)) == (kind.ceiling.at(TICKETS), kind.ceiling.at(WIKI))

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"token_ttl": None}, TOKEN_TTL_MAX_SECONDS),
            ({"consequence": '"high"'}, TOKEN_TTL_HIGH_CLASS_SECONDS),
            ({"consequence": '"high"', "token_ttl": '"5s"'}, 5),
            ({"consequence": '"normal"', "token_ttl": '"30s"'}, 30),
        ],
    )
    def test_life_of_tokens(self, changes, expected):
        """Tokens of high consequence live shorter, whatever the file says."""
        assert timedelta(seconds=expected) == task_type(**changes).token_ttl

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"allowed_workloads": None}, "allowed_workloads"),
            ({"allowed_workloads": "[]"}, "allowed_workloads"),
            ({"allowed_workloads": '["not an ID"]'}, "allowed_workloads"),
            ({"ceiling": None}, "ceiling"),
            ({"ceiling": "[]"}, "ceiling"),
            ({"ceiling": '[{resource = "x y", actions = ["a"]}]'}, "ceiling"),
            ({"ceiling": f'[{{resource = "{TICKETS}", actions = []}}]'}, "ceiling"),
            ({"ceiling": f'[{{resource = "{TICKETS}", actions = ["a b"]}}]'}, "ceiling"),
            ({"ceiling": f'[{{resource = "{TICKETS}", actions = ["a"], more = 1}}]'}, "unknown key"),
            ({"max_duration": '"0s"'}, "max_duration"),
            ({"max_duration": f"{TASK_MAX_SECONDS + 1}"}, "max_duration"),
            ({"token_ttl": f"{TOKEN_TTL_MAX_SECONDS + 1}"}, "token_ttl"),
            ({"token_ttl": '"100ms"'}, "token_ttl"),
            ({"consequence": '"low"'}, "consequence"),
            ({"params": '{ticket = "date"}'}, "params"),
            ({"params": '{"a b" = "string"}'}, "params"),
            ({"params": '{"1a" = "string"}'}, "params"),
            ({"surprise": "1"}, "unknown key"),
            ({"limits": '{"ticket:eat" = 1}'}, "limits: the ceiling has no action 'ticket:eat'"),
            ({"limits": '{"ticket:read" = 0}'}, "limits"),
            ({"limits": f'{{"ticket:read" = {USES_MAX + 1}}}'}, "limits"),
            ({"limits": '{"ticket:read" = true}'}, "limits"),
            ({"limits": '["ticket:read"]'}, "limits"),
            ({"consequence_of": '{"ticket:eat" = "high"}'}, "consequence_of: the ceiling has no action 'ticket:eat'"),
            ({"consequence_of": '{"ticket:read" = "low"}'}, "consequence_of"),
            ({"consequence_of": '{"ticket:read" = "high"}', "bound": "false"}, "bound = false is not for high"),
            ({"max_calls": "3"}, "max_calls: is now max_reported_calls"),
            ({"owner": '" support"'}, "owner: has white space"),
            ({"sponsor": '"oidc:nobody"'}, "sponsor: is not oidc:ISSUER#SUBJECT"),
            ({"review_every": '"0s"'}, "review_every"),
            ({"when_overdue": '"stop"'}, "when_overdue"),
            ({"when_overdue": '"block_new"'}, 'when_overdue = "block_new" needs review_every'),
        ],
    )
    def test_refused(self, changes, says):
        """A file that is not whole or has what we do not know is refused, with the key."""
        with pytest.raises(InvalidPolicy, match=says):
            task_type(**changes)

    def test_all_faults_each_with_its_line(self):
        """All faults are told at once, each with its line."""
        with pytest.raises(InvalidPolicy) as caught:
            parse("x", 'surprise = 1\nconsequence = "low"\nceiling = []\n', "")
        for text in ("x.toml:1: surprise", "x.toml:2: consequence", "x.toml:3: ceiling", "x.toml: allowed_workloads"):
            assert text in caught.value.public

    @pytest.mark.parametrize("line", ['limits = {"page:read" = 1}', 'consequence_of = {"page:read" = "high"}'])
    def test_at_a_provider(self, line):
        """Of an action whose credentials a provider gives, uses are not counted, and it is of no high consequence."""
        ceiling = f'[{{resource = "{TICKETS}", actions = ["page:read"], provider = "corp"}}]'
        name, _, value = line.partition(" = ")
        with pytest.raises(InvalidPolicy, match="provider 'corp'"):
            task_type(ceiling=ceiling, **{name: value})

    def test_the_line_of_a_limit(self):
        """What is said of an action that is not there is told with the line of its table."""
        text = toml().replace("ceiling", '# no more\n[limits]\n"ticket:eat" = 1\n[[ceiling]]\n#ceiling')
        text += f'\nresource = "{TICKETS}"\nactions = ["a"]\n'
        with pytest.raises(InvalidPolicy, match=r"x\.toml:6: limits"):
            parse("x", text, PERMIT_ALL)

    def test_old_names_in_policies(self):
        """A policy that reads principal.calls is told what it is called now."""
        once = '@id("once") forbid (principal, action, resource) when { principal.calls >= 1 };'
        with pytest.raises(InvalidPolicy, match=r"principal\.calls is now principal\.reported_calls"):
            task_type(cedar=once)

    def test_uses_in_policies(self):
        """A policy may read the uses of an action that the type limits, and of no other."""
        once = '@id("once") forbid (principal, action, resource) when { principal.uses["ticket:read"] >= 1 };'
        assert task_type(cedar=once, limits='{"ticket:read" = 1}')
        with pytest.raises(InvalidPolicy, match="uses"):
            task_type(cedar=once, limits='{"ticket:write" = 1}')

    @pytest.mark.parametrize(
        ("changes", "high", "bound", "seconds"),
        [
            ({}, set(), False, 60),
            ({"consequence": '"high"'}, {"ticket:read", "ticket:write", "page:read"}, True, 15),
            ({"consequence_of": '{"ticket:write" = "high"}'}, {"ticket:write"}, False, 60),
            ({"consequence": '"high"', "consequence_of": '{"page:read" = "normal"}'}, {"ticket:read", "ticket:write"}, False, 60),
            ({"consequence": '"high"', "consequence_of": '{"page:read" = "normal"}', "bound": "true"}, {"ticket:read", "ticket:write"}, True, 60),
        ],
    )  # fmt: skip
    def test_classes(self, changes, high, bound, seconds):
        """Each action has the class that is said of it, or the type's; of them the type's tokens have the highest."""
        kind = task_type(**changes)
        assert (high, bound, timedelta(seconds=seconds)) == (kind.high, kind.bound, kind.token_ttl)
        assert ("high" if high else "normal") == kind.consequence
        for action in ("ticket:read", "ticket:write", "page:read"):
            assert ("high" if action in high else "normal") == kind.class_of([action])
            assert ("high" if high else "normal") == kind.class_of(["ticket:write", "ticket:read", "page:read"])

    def test_a_number_beyond_all_bounds(self):
        """A duration beyond all bounds is a fault and not a crash."""
        with pytest.raises(InvalidPolicy):
            task_type(max_duration="9" * 30)

    @pytest.mark.parametrize("name", ["", "A", "-a", "a_b", "a/b", "../a", "a" * 65, "a\n", "é"])
    def test_names(self, name):
        """A name has lower-case letters, digits and dashes, at most 64."""
        with pytest.raises(InvalidPolicy, match="name"):
            task_type(name)

    @pytest.mark.parametrize("cedar", ["", "nonsense", "permit (principal, action, resource);"])
    def test_policy(self, cedar):
        """A policy that cannot be used is refused; one without any policy permits nothing."""
        if cedar:
            with pytest.raises(InvalidPolicy):
                task_type(cedar=cedar)
        else:
            assert not task_type(cedar=cedar).policy.decide(None, "ticket:read", TICKETS, {})

    def test_not_toml(self):
        """A file that is no TOML is refused."""
        with pytest.raises(InvalidPolicy, match="not TOML"):
            parse("x", "a =", PERMIT_ALL)

    def test_digest(self):
        """The digest is over both files."""
        first = task_type()
        assert first.digest == task_type().digest
        assert 3 == len({first.digest, task_type(cedar=PERMIT_ALL + " ").digest, task_type(description='"x"').digest})

    @given(st.text(max_size=60))
    def test_ours_or_nothing(self, text):
        """Any file is a task type or an error of ours."""
        with contextlib.suppress(InvalidPolicy):
            parse("x", text, PERMIT_ALL)


class TestParams:
    @pytest.fixture
    def kind(self):
        return task_type()

    @pytest.mark.parametrize(
        ("given_params", "expected"),
        [
            ({}, {}),
            ({"ticket": ""}, {"ticket": ""}),
            ({"ticket": 'a"b\n', "level": "-5", "urgent": "true"}, {"ticket": 'a"b\n', "level": -5, "urgent": True}),
            ({"level": "9" * 18, "urgent": "false"}, {"level": 10**18 - 1, "urgent": False}),
        ],
    )
    def test_get_their_types(self, kind, given_params, expected):
        """Each parameter gets the type that the task type says."""
        assert expected == kind.read_params(given_params)

    @pytest.mark.parametrize(
        "given_params",
        [
            {"unknown": "x"},
            {"Ticket": "x"},
            {"ticket": "é" * (PARAM_MAX_BYTES // 2 + 1)},
            {"level": ""},
            {"level": "1.0"},
            {"level": "1" * 19},
            {"level": " 1"},
            {"level": "1\n"},
            {"level": "+1"},
            {"level": "٣"},
            {"urgent": "True"},
            {"urgent": "1"},
            {f"p{number}": "x" for number in range(PARAMS_PER_TASK + 1)},
        ],
    )
    def test_refused(self, kind, given_params):
        """A parameter that the type does not have, or of another form, is refused."""
        with pytest.raises(InvalidInput):
            kind.read_params(given_params)


class TestLoad:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "one.toml").write_text(toml())
        (tmp_path / "one.cedar").write_text(PERMIT_ALL)
        return tmp_path

    def test_all_types_of_a_folder(self, folder):
        """Every NAME.toml with its NAME.cedar is a task type; other files are not."""
        (folder / "README").write_text("x")
        (folder / "lonely.cedar").write_text("x")
        assert ["one"] == list(load(folder))

    def test_samples(self):
        """The samples that come along can be loaded."""
        assert "triage-ticket" in load(SAMPLES)

    def test_an_empty_folder(self, tmp_path):
        """An empty folder has no task types."""
        assert {} == load(tmp_path)

    def test_whole_or_not_at_all(self, folder):
        """The faults of all files are told at once, and nothing is loaded."""
        (folder / "two.toml").write_text("x = ")
        (folder / "two.cedar").write_text(PERMIT_ALL)
        (folder / "three.toml").write_text(toml())
        (folder / "BAD.toml").write_text(toml())
        (folder / "BAD.cedar").write_text(PERMIT_ALL)
        (folder / "five.toml").mkdir()
        (folder / "six.toml").write_bytes(b"\xff")
        (folder / "six.cedar").write_text(PERMIT_ALL)
        with pytest.raises(InvalidPolicy) as caught:
            load(folder)
        for text in ("two.toml:1: not TOML", "three.cedar: there is no policy", "BAD.toml", "five.toml", "six.toml"):
            assert text in caught.value.public

    def test_no_folder(self, tmp_path):
        """A folder that is not there is refused."""
        with pytest.raises(InvalidPolicy, match="cannot be read"):
            load(tmp_path / "none")

    def test_too_many(self, folder, monkeypatch):
        """The number of task types has a limit."""
        most = len(load(folder))
        monkeypatch.setattr(types_module, "TASK_TYPES", most)
        assert most == len(load(folder))
        monkeypatch.setattr(types_module, "TASK_TYPES", most - 1)
        with pytest.raises(InvalidPolicy, match=f"more than {most - 1}"):
            load(folder)

    def test_leaves_no_descriptor(self, folder):
        """Loading leaves no descriptor behind."""
        before = OpenFiles()
        load(folder)
        assert [] == before.opened_since()
