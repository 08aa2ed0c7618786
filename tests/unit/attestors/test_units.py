"""units.py: names of systemd's units, and cgroups below a user's own systemd."""

import re

import pytest
from fakes.systembus import path_of
from hypothesis import given
from hypothesis import strategies as st
from sojourn_attestors.units.names import kind_of, name_of, template_of, user_of, user_unit

NAMES = st.from_regex(r"[A-Za-z0-9:_.\\-]{1,40}(@[A-Za-z0-9:_.\\-]{0,40})?\.(service|scope|slice)", fullmatch=True)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("a.service", "service"),
            ("a@1.service", "service"),
            ("a@.service", "service"),
            (r"dev-disk\x2d1.swap", "swap"),
            ("docker-0123.scope", "scope"),
            ("-.slice", "slice"),
            ("a:b.service", "service"),
            ("a.b.mount", "mount"),
        ],
    )
    def test_of_units(self, name, kind):
        """A name of a unit that has processes tells its kind."""
        assert kind == kind_of(name)

    @pytest.mark.parametrize(
        "name",
        [
            *("", ".service", "a", "a.timer", "a.service\n", "a/b.service", "a b.service", "ä.service", "a.service.d"),
            *("@1.service", "a\0.service", "a" * 248 + ".service", "a.SERVICE", "a.service "),
        ],
    )
    def test_of_nothing(self, name):
        """What is no name of such a unit is not taken for one."""
        assert "" == kind_of(name)

    @given(st.text())
    def test_of_any_text(self, text):
        """Whatever counts as a name has no character but those that systemd allows."""
        if kind_of(text):
            assert re.fullmatch(r"[A-Za-z0-9:_.\\@-]+", text)

    @pytest.mark.parametrize(
        ("name", "parts"),
        [
            ("web@1.service", ("web@.service", "1")),
            ("web@a@b.service", ("web@.service", "a@b")),
            (r"web@a\x2fb.service", ("web@.service", r"a\x2fb")),
            ("web@.service", ("", "")),
            ("web.service", ("", "")),
        ],
    )
    def test_of_instances(self, name, parts):
        """An instance has a template and a text of its own, which is as it stands in the name."""
        assert parts == template_of(name)

    @given(NAMES, NAMES)
    def test_instances_are_told_apart(self, one, another):
        """Two units of the same template and instance are the same unit."""
        if template_of(one)[0] and template_of(one) == template_of(another):
            assert one == another

    @pytest.mark.parametrize(
        ("name", "uid"),
        [
            ("user@1000.service", 1000),
            ("user@0.service", 0),
            *((each, None) for each in ("user@.service", "user@01.service", "user@a.service", "xuser@1.service")),
            *(
                (each, None)
                for each in ("user@1.service.service", "user-1000.slice", "user@1.scope", "user@-1.service")
            ),
        ],
    )
    def test_of_users(self, name, uid):
        """A user's own systemd is told by its name, with the uid as systemd writes it."""
        assert uid == user_of(name)


class TestPaths:
    @given(NAMES)
    def test_of_units(self, name):
        """A unit's D-Bus path has its name, whatever is escaped in it."""
        assert name == name_of(path_of(name))

    @pytest.mark.parametrize(
        "path",
        [
            *("", "/", "/org/freedesktop/systemd1/job/1", "/org/freedesktop/systemd1/unit/a_2eservice/b"),
            "/org/freedesktop/systemd1/unit/a_e4.service",
        ],
    )
    def test_of_other_things(self, path):
        """A D-Bus path that is no unit's has no unit."""
        assert "" == name_of(path)


class TestUnitsOfUsers:
    @pytest.mark.parametrize(
        ("below", "found"),
        [
            ("app.slice/web.service", ("web.service", "app.slice")),
            ("app.slice/app-a.slice/web.service/child", ("web.service", "app-a.slice")),
            ("init.scope", ("init.scope", "")),
            ("app.slice/_cpu.service", ("cpu.service", "app.slice")),
            ("app.slice/__a.service", ("_a.service", "app.slice")),
            ("app.slice", ("", "app.slice")),
            ("app.slice/folder/web.service", ("", "app.slice")),
            ("folder", ("", "")),
            ("web.service/app.slice/good.service", ("web.service", "")),
            ("", ("", "")),
        ],
    )
    def test_by_their_cgroup(self, below, found):
        """The first folder that is no slice's is the unit's; what lies below it tells nothing."""
        assert found == user_unit(list(filter(None, below.split("/"))))
