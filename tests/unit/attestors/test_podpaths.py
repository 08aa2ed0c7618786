"""podpaths.py: which cgroups are where a kubelet makes those of pods."""

import pytest
from sojourn_attestors.pods.paths import made_by_kubelet

POD, ID = "pod1b2c3d4e-89ab-4def-8123-456789abcdef", "a" * 64
SLICE = "kubepods-burstable-pod1b2c3d4e_89ab_4def_8123_456789abcdef.slice"


@pytest.mark.parametrize(
    ("path", "root"),
    [
        (f"/kubepods/{POD}/{ID}", "/"),
        (f"/kubepods/besteffort/{POD}/{ID}", "/"),
        (f"/kubepods.slice/kubepods-burstable.slice/{SLICE}/cri-containerd-{ID}.scope", "/"),
        (f"/kubelet/kubepods/burstable/{POD}/{ID}", "/kubelet"),
        (f"/a/b/kubepods/{POD}/{ID}", "/a/b/"),
        (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-{SLICE}/crio-{ID}.scope", "/kubelet.slice"),
        (f"/../../{POD}/{ID}", "/"),
        (f"/../../../burstable/{POD}/{ID}", "/a/b"),
        (f"/../../../../kubepods/{POD}/{ID}", "/a/b"),
        (f"/../../../../../b/kubepods/{POD}/{ID}", "/a/b"),
        (f"/../../../../../../a/b/kubepods/{POD}/{ID}", "/a/b"),
    ],
)
def test_where_they_are(path, root):
    """Below the kubelet's root, with either driver, also as seen from a cgroup namespace."""
    assert made_by_kubelet(path, root)


@pytest.mark.parametrize(
    ("path", "root"),
    [
        (f"/lxc.payload.c1/kubepods/{POD}/{ID}", "/"),
        (f"/kubepods/x/{POD}/{ID}", "/"),
        (f"/user.slice/user-1000.slice/kubepods/{POD}/{ID}", "/"),
        (f"/kubepods/{POD}/{ID}", "/kubelet"),
        (f"/kubelet2/kubepods/{POD}/{ID}", "/kubelet"),
        (f"/b/kubepods/{POD}/{ID}", "/a/b"),
        (f"/../../lxc.payload.c1/{POD}/{ID}", "/"),
        (f"/../../a/kubepods/{POD}/{ID}", "/a/b"),
        (f"/kubepods/besteffort/{POD}/{'b' * 64}/kubepods/{POD}/{ID}", "/"),
        (f"/kubepods.slice/evil.slice/{SLICE}/cri-containerd-{ID}.scope", "/"),
        (f"/kubepods\n/{POD}/{ID}", "/"),
    ],
)
def test_where_others_made_them(path, root):
    """A name on the way that is no kubelet's gives them away."""
    assert not made_by_kubelet(path, root)
