"""enginefacts.py: what an engine's answer says, and that nothing hostile in it becomes a selector that it is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.attestation.selectors import Selector
from sojourn.errors import AttestationFailed
from sojourn.limits import SELECTORS_PER_CALLER
from sojourn_attestors.engines.facts import Container, Found, parse_container, parse_image

ID = "ab" * 32
IMAGE = f"sha256:{'cd' * 32}"
MANIFEST = f"sha256:{'ef' * 32}"
OTHER = f"sha256:{'01' * 32}"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def container(**config):
    return {
        "Id": ID,
        "State": {"Running": True, "Pid": 42},
        "Image": IMAGE,
        "Config": {"Image": "localhost/bb:1", "Labels": None, "Env": None, **config},
    }


def image(**changes):
    return {"Id": IMAGE, "RepoDigests": [], **changes}


def read(answer, environment=False):
    return parse_container(answer, ID, environment)


def read_image(answer, manifest=""):
    return parse_image(answer, Container(ID, 42, IMAGE, manifest, Found()))


class TestMany:
    @pytest.mark.parametrize(
        ("config", "environment"),
        [
            ({"Labels": {f"{number:x}": "" for number in range(SELECTORS_PER_CALLER + 1)}}, False),
            ({"Labels": {"a": "b"}, "Env": [f"{number:x}=" for number in range(SELECTORS_PER_CALLER)]}, True),
        ],
    )
    def test_of_a_container(self, config, environment):
        """More labels and variables than anybody may have are refused before one of them is read."""
        with pytest.raises(AttestationFailed, match="told of more than"):
            read(container(**config), environment)

    def test_variables_that_are_not_told(self):
        """Variables that nobody is told are no matter, and of those that are to be told none is left out for others."""
        many = [f"{number:x}=" for number in range(SELECTORS_PER_CALLER + 1)]
        assert {"image_id:localhost/bb:1"} == read(container(Env=many)).found.values
        assert "env:APP=x" in read(container(Env=[*many, "APP=x"]), ("APP",)).found.values

    def test_of_an_image(self):
        """An image that tells of more digests than a caller may have selectors is refused."""
        digests = [f"{number:x}@sha256:{number:064x}" for number in range(SELECTORS_PER_CALLER + 1)]
        with pytest.raises(AttestationFailed, match="told of more than"):
            read_image(image(RepoDigests=digests))


class TestContainer:
    def test_labels_and_image(self):
        """Labels and the image's name are given as SPIRE gives them; the first process and the image's id are told."""
        found = read(container(Labels={"app": "web", "empty": "", "url": "http://x:1/?a=b"}))
        assert (42, IMAGE) == (found.pid, found.image)
        assert {"label:app:web", "label:empty:", "label:url:http://x:1/?a=b", "image_id:localhost/bb:1"} == (
            found.found.values
        )
        assert {} == found.found.withheld

    def test_variables_only_if_asked_for(self):
        """Variables are often secrets: none is given, or those that are named, or all."""
        answer = container(Env=["TOKEN=s3cret", "APP=web=1", "ODD"])
        assert {"image_id:localhost/bb:1"} == read(answer).found.values
        assert "env:APP=web=1" in read(answer, ("APP",)).found.values
        assert "s3cret" not in str(read(answer, ("APP",)))
        assert {"env:TOKEN=s3cret", "env:APP=web=1"} < read(answer, environment=True).found.values

    def test_a_key_with_a_colon(self):
        """`a:b`=`c` and `a`=`b:c` would be the same selector, so only the second is given."""
        found = read(container(Labels={"a:b": "c", "x": "b:c"})).found
        assert {"label:x:b:c", "image_id:localhost/bb:1"} == found.values
        assert ["label:a:b"] == list(found.withheld)

    def test_a_variable_that_is_there_twice(self):
        """Which of the two the process sees is not the engine's to say."""
        found = read(container(Env=["A=1", "B=1", "A=2"]), environment=True).found
        assert {"env:B=1", "image_id:localhost/bb:1"} == found.values
        assert ["env:A"] == list(found.withheld)

    @pytest.mark.parametrize("value", ["a\0b", "x" * 5_000, "\ud800"])
    def test_what_no_selector_can_hold(self, value):
        """A value that no selector can hold is withheld, and what else there is is given."""
        found = read(container(Labels={"odd": value, "app": "web"}, Env=[f"ODD={value}"]), environment=True).found
        assert {"label:app:web", "image_id:localhost/bb:1"} == found.values
        assert {"label:odd", "env:ODD"} == set(found.withheld)

    def test_reasons_are_few_and_printable(self):
        """A container with a thousand odd labels has a hundred reasons, which can be shown."""
        found = read(container(Labels={f"\0\ud800:{number}": "x" for number in range(1_000)})).found
        assert 100 == len(found.withheld)
        assert all("\0" not in kind and kind.encode() for kind in found.withheld)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"Id": "cd" * 32}, "another container"),
            ({"Id": ID[:12]}, "another container"),
            ({"State": {"Running": False, "Pid": 42}}, "does not run"),
            ({"State": {"Running": True, "Pid": 0}}, "does not run"),
            ({"State": {"Running": 1, "Pid": 42}}, "does not run"),
            ({"State": {"Running": True, "Pid": True}}, "does not run"),
            ({"State": {"Running": True, "Pid": "42"}}, "does not run"),
            ({"State": {"Running": True, "Pid": -1}}, "cannot be read"),
            ({"State": {"Running": True, "Pid": 2**70}}, "cannot be read"),
            ({"State": None}, "cannot be read"),
            ({"Image": "bb:1"}, "cannot be read"),
            ({"Image": None}, "cannot be read"),
            ({"Image": f"{IMAGE}\n"}, "cannot be read"),
            ({"Config": None}, "cannot be read"),
            ({"Config": {"Image": 1}}, "cannot be read"),
            ({"Config": {"Image": "x", "Labels": ["a"]}}, "cannot be read"),
            ({"Config": {"Image": "x", "Labels": {"a": 1}}}, "cannot be read"),
        ],
    )
    def test_refused(self, changes, said):
        """What is of another container, or not as engines say it, is nobody's answer."""
        with pytest.raises(AttestationFailed, match=said):
            read({**container(), **changes})

    @given(ANYTHING, st.sampled_from(["Id", "State", "Image", "Config", None]))
    def test_anything(self, value, place):
        """Whatever stands where, it is read, or it is an AttestationFailed."""
        answer = value if place is None else {**container(), place: value}
        try:
            found = read(answer, environment=True)
        except AttestationFailed:
            return
        for each in found.found.values:
            Selector.from_parts("docker", each)

    @given(st.dictionaries(st.text(), st.text(), max_size=4), st.lists(st.text(), max_size=4))
    def test_read_one_way(self, labels, variables):
        """Each value given says one thing: it splits into the label or variable that the engine told, and no other."""
        found = read(container(Labels=labels, Env=variables), environment=True).found
        for value in found.values:
            kind, _, rest = value.partition(":")
            if kind == "label":
                key, _, text = rest.partition(":")
                assert labels[key] == text
            elif kind == "env":
                assert rest in variables


class TestImage:
    def test_from_no_registry(self):
        """The image's id is the digest of its configuration; of a repository digest it is said why there is none."""
        found = read_image(image())
        assert {f"image_config_digest:{IMAGE}"} == found.values
        assert {"image_digest"} == set(found.withheld)

    def test_repository_digests(self):
        """With and without the repository, which may have a port."""
        digests = [f"registry.example:5000/team/web@{MANIFEST}", f"mirror/web@{OTHER}"]
        assert {
            f"image_config_digest:{IMAGE}",
            f"image_digest:registry.example:5000/team/web@{MANIFEST}",
            f"image_digest:mirror/web@{OTHER}",
            f"image_digest:{MANIFEST}",
            f"image_digest:{OTHER}",
        } == read_image(image(RepoDigests=digests)).values

    def test_without_a_name(self):
        """An image whose repository's name was taken away has its digest still."""
        assert {f"image_config_digest:{IMAGE}", f"image_digest:{MANIFEST}"} == (
            read_image(image(RepoDigests=[f"<none>@{MANIFEST}"])).values
        )

    def test_an_id_without_its_kind(self):
        """Podman's own answers leave `sha256:` out."""
        assert f"image_config_digest:{IMAGE}" in read_image(image(Id=IMAGE.removeprefix("sha256:"))).values

    def test_the_image_store_of_containerd(self):
        """There the id is the digest of the index: that is what is given, and no digest of a configuration."""
        descriptor = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": IMAGE, "size": 1}
        found = read_image(image(Descriptor=descriptor, RepoDigests=[f"web@{IMAGE}"]), manifest=MANIFEST)
        assert {f"image_digest:{IMAGE}", f"image_digest:web@{IMAGE}", f"image_digest:{MANIFEST}"} == found.values
        assert {"image_config_digest"} == set(found.withheld)

    @pytest.mark.parametrize(
        "changes",
        [
            {"Id": OTHER},
            {"Id": None},
            {"RepoDigests": "x"},
            {"RepoDigests": [1]},
            {"RepoDigests": ["web:1"]},
            {"RepoDigests": [f"web@{MANIFEST}\n"]},
            {"RepoDigests": ["web@sha256:abc"]},
        ],
    )
    def test_refused(self, changes):
        """What is of another image, or not as engines say it, is nobody's answer."""
        with pytest.raises(AttestationFailed):
            read_image(image(**changes))

    @given(ANYTHING, st.sampled_from(["Id", "RepoDigests", "Descriptor", None]))
    def test_anything(self, value, place):
        """Whatever stands where in an image, it is read, or it is an AttestationFailed."""
        answer = value if place is None else {**image(), place: value}
        try:
            found = read_image(answer)
        except AttestationFailed:
            return
        assert json.dumps(sorted(found.values))
