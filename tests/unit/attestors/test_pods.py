"""pods.py: what a kubelet's list says, and what is made of it. The list was recorded from a real kubelet."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.kubeletstandin import listing, pod_of, status_of
from hypothesis import given
from hypothesis import strategies as st
from sojourn.attestation.selectors import Selector
from sojourn.limits import SELECTOR_VALUE_MAX_BYTES
from sojourn_attestors.pods.facts import Image, NotPods, Owner, Pod, PodContainer, parse_pods, selectors_of

UID = "527980c2-8345-47df-a7bf-ddeeb70adb97"
ID = "5" * 64
TEXTS = st.text(st.characters(codec=None), max_size=20)


def parsed(pods):
    return parse_pods(json.dumps(pods).encode())


def in_pod(**changes):
    """A container of a plain pod."""
    image = Image("localhost/app:1", "sha256:1")
    fields = {"uid": UID, "name": "web", "namespace": "default", "node": "node1", "service_account": "web"}
    fields |= {"labels": {}, "owners": (), "images": (image,), "init_images": ()}
    return PodContainer(Pod(**{**fields, **changes}), "main", image)


class TestParsing:
    def test_what_was_recorded(self):
        """Each container that was made is there under its id, of whichever kind, with its pod."""
        pods = listing()
        read = parsed(pods)
        names = {(each.pod.name, each.name): container_id for container_id, each in read.containers.items()}
        assert {
            *(("web", name) for name in ("first", "side", "main", "second", "debug")),
            *(("done", "main"), ("static-node1", "main")),
        } == set(names)
        assert status_of(pods, "web", "debug")["containerID"] == f"containerd://{names['web', 'debug']}"
        assert {each["metadata"]["uid"] for each in pods["items"]} == read.uids
        assert (frozenset(), 0) == (read.claimed_twice, read.unread)

    def test_the_same_as_a_plain_reader(self):
        """Decoding pod by pod finds what decoding all at once finds, however the text is spaced."""
        pods = listing()
        texts = [json.dumps(pods), json.dumps(pods, indent=3), json.dumps(pods, separators=(",", ":"))]
        assert 1 == len({repr(parse_pods(text.encode())) for text in texts})

    async def test_hundreds_hold_nobody_up(self):
        """While a list of 1,000 pods is read in a thread, others have their turns."""
        pods = listing()
        pod_of(pods, "web")["metadata"]["annotations"]["filler"] = "x" * 15_000
        pods["items"] *= 250
        body = json.dumps(pods).encode()
        with ThreadPoolExecutor(1) as pool:
            reading = asyncio.get_running_loop().run_in_executor(pool, parse_pods, body)
            turns = 0
            while not reading.done():
                await asyncio.sleep(0)
                turns += 1
        assert len((await reading).claimed_twice) > 0
        assert turns > 3  # a call that lets nobody in leaves one before it and one behind it

    @pytest.mark.parametrize("items", [None, []])
    def test_no_pods(self, items):
        """A node without pods lists none, in the ways in which Go writes that."""
        assert {} == parsed({"kind": "PodList", "items": items}).containers

    @pytest.mark.parametrize(
        "text",
        [
            *("", "[]", "{}", "null", "7", "{", "{]", '{"kind":"PodList"', '{"kind":"PodList"}', '{"items":[]}'),
            *('{"kind":"Status","items":[]}', '{"kind":"PodList","items":7}', '{"kind":"PodList","items":{}}'),
            *('{"kind":"PodList","items":[]} x', '{"kind":"PodList","items":[]}{}', '{"kind":"PodList","items":[}'),
            *('{"kind":"PodList","items":[1,]}', '{"kind":"PodList",}', '{"kind":"PodList","items":[1 2]}'),
            *('{"kind":"PodList","items":[],"items":[]}', '{"kind":"PodList","items":[],"items":null}'),
            *('{7:"PodList"}', '{"kind" "PodList"}', "\ufeff{}", '{"kind":"PodList","items":[' + "[" * 100_000),
            '{"kind":"PodList","items":[' + "9" * 10_000 + "]}",
        ],
    )
    def test_what_is_no_list(self, text):
        """What is no PodList is refused, and nothing but NotPods escapes."""
        with pytest.raises(NotPods):
            parse_pods(text.encode())

    def test_what_is_not_unicode(self):
        """Bytes that are no UTF-8 are refused."""
        with pytest.raises(NotPods):
            parse_pods(b'{"kind":"PodList","items":[],"x":"\xff"}')

    @given(st.binary(max_size=60))
    def test_any_bytes(self, body):
        """Of any bytes nothing but NotPods escapes."""
        with pytest.raises(NotPods):
            parse_pods(body)

    @given(
        st.recursive(st.none() | st.integers() | TEXTS, lambda e: st.lists(e) | st.dictionaries(TEXTS, e), max_leaves=9)
    )
    def test_any_item(self, item):
        """A pod that is not as Kubernetes writes it is passed over and counted, and takes no other's place."""
        pods = listing()
        expected = parsed(pods).containers
        pods["items"].insert(1, item)
        read = parsed(pods)
        assert (expected, 1) == (read.containers, read.unread)

    @pytest.mark.parametrize(
        ("part", "value"),
        [
            (("metadata", "uid"), 7),
            (("metadata", "uid"), ""),
            (("metadata", "labels"), {"a": 1}),
            (("metadata", "labels"), ["a"]),
            (("metadata", "namespace"), None),
            (("metadata", "ownerReferences"), [{"kind": "A", "name": "b"}]),
            (("spec", "serviceAccountName"), ["web"]),
            (("status", "containerStatuses"), {"a": 1}),
            (("status", "containerStatuses"), [7]),
        ],
    )
    def test_an_odd_part(self, part, value):
        """A pod of which one part is odd is passed over as a whole."""
        pods = listing()
        pod_of(pods, "web")[part[0]][part[1]] = value
        read = parsed(pods)
        assert ({"done", "static-node1"}, 1) == ({each.pod.name for each in read.containers.values()}, read.unread)

    @pytest.mark.parametrize(
        "name",
        [
            "",
            ID,
            f"containerd:{ID}",
            f"containerd://{ID[1:]}",
            f"containerd://{ID}0",
            f"containerd://{ID}\n",
            "docker://X",
        ],
    )
    def test_ids_that_are_none(self, name):
        """A container whose id is not RUNTIME://64 hex digits is not known by any."""
        pods = listing()
        status_of(pods, "web", "main")["containerID"] = name
        assert "main" not in {each.name for each in parsed(pods).containers.values() if each.pod.name == "web"}

    def test_one_container_in_two_pods(self):
        """A container that two pods claim is marked: neither is believed."""
        pods = listing()
        status_of(pods, "done", "main")["containerID"] = status_of(pods, "web", "main")["containerID"]
        assert {status_of(pods, "web", "main")["containerID"].partition("://")[2]} == parsed(pods).claimed_twice

    @pytest.mark.parametrize("other", ["second", "first", "debug"])
    def test_one_container_twice_in_a_pod(self, other):
        """A container that stands twice in one pod, under two names, is marked: neither is believed."""
        pods = listing()
        status_of(pods, "web", other)["containerID"] = status_of(pods, "web", "main")["containerID"]
        assert {status_of(pods, "web", "main")["containerID"].partition("://")[2]} == parsed(pods).claimed_twice


class TestSelectors:
    def test_of_what_was_recorded(self):
        """A container has what SPIRE's attestor says of it."""
        pods = listing()
        (container,) = (
            each for each in parsed(pods).containers.values() if (each.pod.name, each.name) == ("web", "second")
        )
        image = status_of(pods, "web", "second")["imageID"]
        expected = {
            *("ns:default", "sa:web", "node-name:node1", "pod-name:web", "container-name:second"),
            f"pod-uid:{pod_of(pods, 'web')['metadata']['uid']}",
            *("pod-label:app.kubernetes.io/name:web", "pod-label:team:blue", "pod-label:empty:"),
            *("pod-owner:ReplicaSet:web-5d4f", "pod-owner-uid:ReplicaSet:1f0c-test"),
            *("pod-image-count:2", "pod-init-image-count:2"),
            *(f"{kind}:localhost/app:1" for kind in ("container-image", "pod-image", "pod-init-image")),
            *(f"{kind}:{image}" for kind in ("container-image", "pod-image", "pod-init-image")),
        }
        assert (expected, {}) == selectors_of(container)

    def test_of_a_static_pod(self):
        """A pod without a service account has no `sa`, not an empty one."""
        values, withheld = selectors_of(in_pod(service_account=""))
        assert ([], {}) == ([each for each in values if each.startswith("sa")], withheld)

    def test_of_an_image_that_has_no_id_yet(self):
        """A container that waits for its image has its name alone."""
        values, _ = selectors_of(in_pod(images=(Image("a:1", ""),)))
        assert {"pod-image:a:1", "pod-image-count:1"} == {each for each in values if each.startswith("pod-image")}

    def test_a_kind_of_owner_with_a_colon(self):
        """`pod-owner:A:B:C` would be an owner A named B:C too: it is withheld, and good owners are not."""
        good, bad = Owner("ReplicaSet", "web:1", "1"), Owner("A:B", "C", "2")
        values, withheld = selectors_of(in_pod(owners=(good, bad)))
        owners = {each for each in values if each.startswith("pod-owner")}
        assert {"pod-owner:ReplicaSet:web:1", "pod-owner-uid:ReplicaSet:1"} == owners
        assert {"pod-owner", "pod-owner-uid"} == set(withheld)

    def test_a_label_whose_name_holds_a_colon(self):
        """`pod-label:a:b:c` would be a label a with value b:c too."""
        values, withheld = selectors_of(in_pod(labels={"a:b": "c", "": "d", "e": "f:g"}))
        assert {"pod-label:e:f:g"} == {each for each in values if each.startswith("pod-label")}
        assert "read in two ways" in withheld["pod-label"]

    @pytest.mark.parametrize("value", ["x" * SELECTOR_VALUE_MAX_BYTES, "a\0b", "\ud800"], ids=["long", "NUL", "half"])
    def test_values_that_no_selector_can_have(self, value):
        """What would be no selector is withheld with the reason, and the rest is given."""
        values, withheld = selectors_of(in_pod(labels={"a": value, "b": "c"}))
        assert {"pod-label:b:c"} == {each for each in values if each.startswith("pod-label")}
        assert {"pod-label"} == set(withheld)

    @given(
        labels=st.dictionaries(TEXTS, TEXTS, max_size=5),
        owners=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=3),
        name=TEXTS,
    )
    def test_one_meaning_each(self, labels, owners, name):
        """Whatever a pod's author writes, each value is a selector, and its reading gives back what was written."""
        pod = in_pod(labels=labels, owners=tuple(Owner(*each) for each in owners), name=name)
        for value in selectors_of(pod)[0]:
            Selector.from_parts("k8s", value)
            kind, _, rest = value.partition(":")
            key, _, text = rest.partition(":")
            if kind == "pod-label":
                assert labels[key] == text
            elif kind == "pod-owner":
                assert (key, text) in {(each[0], each[1]) for each in owners}
            elif kind == "pod-owner-uid":
                assert (key, text) in {(each[0], each[2]) for each in owners}
            elif kind == "pod-name":
                assert name == rest
