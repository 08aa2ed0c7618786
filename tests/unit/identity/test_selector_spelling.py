"""selector_spelling.py: selectors that no process can have are told apart from those that one may."""

import re
from pathlib import Path

import pytest
from sojourn.identity.selector_spelling import OURS, kinds_of, misspelled, unknown_kind

GUIDE = Path(__file__).parents[3] / "docs" / "attestors.md"
HEX = "a" * 64


def documented(type_: str) -> set[str]:
    """The kinds that the guide's tables have for one attestor."""
    rows = [line for line in GUIDE.read_text().splitlines() if line.startswith(f"| `{type_}:")]
    return {kind for row in rows for kind in re.findall(rf"`{type_}:([a-z0-9_-]+):", row.split(" | ")[0])}


def test_that_the_guide_has_the_same_kinds():
    """What is said to be unknown here is what the guide does not have either."""
    assert ("docker", "k8s", "systemd", "unix") == OURS
    never_given = {"script_path", "script_sha256"}
    assert {type_: documented(type_) for type_ in OURS} == {type_: {*kinds_of(type_)} - never_given for type_ in OURS}


@pytest.mark.parametrize(
    "selector",
    [
        *("unix:uid:0", "unix:gid:4294967295", "unix:user:a b", "unix:path:/opt/a:b", f"unix:sha256:{HEX}"),
        *("unix:cgroup:/system.slice/a", "unix:cgroup:memory:/a", "unix:cgroup:name=systemd:/a:b"),
        *("systemd:id:web.service", "systemd:id:web@1.service", r"systemd:id:a\x2db.mount", "systemd:slice:-.slice"),
        *("systemd:fragment_path:/etc/a", f"systemd:invocation_id:{HEX[:32]}", "systemd:template:web@.service"),
        *("systemd:instance:a@b", "systemd:manager:system", "systemd:manager:user:1000"),
        *("systemd:user:1000:id:a.service", "systemd:user:0:slice:app.slice"),
        *("docker:label:a:b", "docker:label:a:", "docker:env:A=", "docker:image_id:web:1"),
        *(f"docker:image_digest:sha256:{HEX}", f"docker:image_digest:r.example:5000/a/b@sha256:{HEX}"),
        *(f"docker:image_config_digest:sha256:{HEX}", "docker:rootless:1000:label:a:b\nc", "docker:rootless:1:env:A=b"),
        *("k8s:ns:default", "k8s:pod-label:app.kubernetes.io/name:web", "k8s:pod-label:a:", "k8s:pod-owner:Job:a"),
        *("k8s:pod-image-count:2", "k8s:container-image:web:1", "slurm:job", "slurm:anything:at all"),
    ],
)
def test_that_may_be(selector):
    """Of a selector as attestors give them, and of anything of another's attestor, nothing is said."""
    assert "" == misspelled(*selector.split(":", 1))


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ("unix:uid:root", "unix:uid: and NUMBER"),
        ("unix:uid:01", "NUMBER"),
        ("unix:uid:1000\n", "NUMBER"),
        ("unix:sha256:ABC", "HEX"),
        ("unix:cgroup:system.slice", "/PATH or CONTROLLER:/PATH"),
        ("unix:uuid:1", "gives uid, gid, "),
        ("unix:uid", "NUMBER"),
        ("systemd:id:web", "such as web.service"),
        ("systemd:id:web@.service", "such as web.service"),
        ("systemd:unit:web.service", "attestor systemd gives id, "),
        ("systemd:template:web.service", "web@.service"),
        ("docker:lable:a:b", "attestor docker gives label, "),
        ("docker:label:a=b", "KEY:VALUE"),
        ("docker:env:A", "NAME=VALUE"),
        ("docker:image_digest:web:1", "REPOSITORY@sha256:HEX"),
        ("docker:rootless:1000:image:web", "UID: and another"),
        ("k8s:namespace:default", "gives ns, sa, "),
        ("k8s:pod-label:app=web", "KEY:VALUE"),
    ],
)
def test_that_cannot_be(selector, says):
    """Of a kind that there is not, or another form, it is said that no process matches, and what there is."""
    said = misspelled(*selector.split(":", 1))
    assert said.startswith("no process matches, as ")
    assert says in said


def test_kinds():
    """Placeholders are looked at by their kind alone."""
    assert ("", "") == (unknown_kind("docker", "label"), unknown_kind("slurm", "x"))
    assert "no process matches" in unknown_kind("docker", "lable")
