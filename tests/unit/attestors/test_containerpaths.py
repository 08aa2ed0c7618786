"""containerpaths.py: what the path of a cgroup names, by the grammar of engines and kubelet."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn_attestors.containers.paths import containers_of

ID, OTHER = "0123456789abcdef" * 4, "f" * 64
UID = "1b2c3d4e-89ab-4def-8123-456789abcdef"
SLICE = f"kubepods-besteffort-pod{UID.replace('-', '_')}.slice"
STATIC = "0f" * 16


def found(path):
    return [(each.id, each.runtime, each.pod) for each in containers_of(path)]


class TestEngines:
    @pytest.mark.parametrize(
        ("path", "runtime"),
        [
            (f"/docker/{ID}", ""),
            (f"/elsewhere/{ID}", ""),
            (f"/../{ID}", ""),
            (f"/system.slice/docker-{ID}.scope", "docker"),
            (f"/system.slice/nerdctl-{ID}.scope", "nerdctl"),
            (f"/machine.slice/libpod-{ID}.scope", "libpod"),
            (f"/machine.slice/libpod-{ID}.scope/container", "libpod"),
            (f"/libpod_parent/libpod-{ID}", "libpod"),
            (f"/user.slice/libpod-payload-{ID}", "libpod"),
            (f"/system.slice:docker:{ID}", "docker"),
        ],
    )
    def test_drivers(self, path, runtime):
        """Each engine's names are known, with either driver of cgroups."""
        assert [(ID, runtime, "")] == found(path)

    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/..",
            "/docker",
            "/system.slice/nginx.service",
            f"/machine.slice/libpod-conmon-{ID}.scope",
            f"/system.slice/crio-conmon-{ID}.scope",
            f"/system.slice/docker-{ID}.service",
            f"/docker/{ID[1:]}",
            f"/docker/{ID}0",
            f"/docker/{ID.upper()}",
            f"/docker/x{ID}",
            f"/docker/{ID} ",
            f"/docker/docker-{ID}.scope.d",
            f"/docker/docker_{ID}",
        ],
    )
    def test_no_container(self, path):
        """A name is a container's as a whole or not at all."""
        assert [] == found(path)

    def test_nested(self):
        """A container in a container is named after the one that it is in."""
        assert [(ID, "", ""), (OTHER, "docker", "")] == found(f"/docker/{ID}/system.slice/docker-{OTHER}.scope/app")

    @pytest.mark.parametrize(
        "path", ["", "docker", f"docker/{ID}", "//", f"/docker//{ID}", f"/a/../{ID}", "/./a", f"/docker/{ID} (deleted)"]
    )
    def test_no_path(self, path):
        """What is not the path of a living cgroup is refused."""
        with pytest.raises(ValueError, match="not "):
            containers_of(path)


class TestPods:
    @pytest.mark.parametrize(
        ("path", "runtime", "pod"),
        [
            (f"/kubepods/besteffort/pod{UID}/{ID}", "", UID),
            (f"/kubepods/pod{UID}/{ID}", "", UID),
            (f"/kubepods/burstable/pod{STATIC}/{ID}", "", STATIC),
            (f"/kubepods/burstable/pod{UID}/crio-{ID}", "crio", UID),
            (f"/kubepods.slice/kubepods-besteffort.slice/{SLICE}/cri-containerd-{ID}.scope", "cri-containerd", UID),
            (f"/kubepods.slice/kubepods-pod{STATIC}.slice/crio-{ID}.scope", "crio", STATIC),
            (f"/../../{SLICE}/cri-containerd-{ID}.scope/child", "cri-containerd", UID),
            (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-{SLICE}/docker-{ID}.scope", "docker", UID),
            (f"/system.slice/containerd.service/{SLICE}:cri-containerd:{ID}", "cri-containerd", UID),
            (f"/../cri-containerd-{ID}.scope", "cri-containerd", ""),
        ],
    )
    def test_drivers(self, path, runtime, pod):
        """The pod's uid is told from the kubelet's folder around the container, as the kubelet itself has it."""
        assert [(ID, runtime, pod)] == found(path)

    @pytest.mark.parametrize(
        "folder",
        [
            f"pod{UID.replace('-', '_')}",
            f"pod{UID[1:]}",
            f"xpod{UID}",
            f"kubepods-pod{UID}.slice",
            f"kubepods-guaranteed-pod{STATIC}.slice",
            f"{SLICE}x",
            f"pod{UID}/between",
        ],
    )
    def test_no_pod(self, folder):
        """A folder that is not the kubelet's by its whole name names no pod."""
        assert [(ID, "", "")] == found(f"/kubepods/{folder}/{ID}")


_PARTS = st.one_of(
    st.sampled_from(
        [
            *("", ".", "..", "docker", "kubepods", "burstable", "system.slice", "user.slice", f"pod{UID}", SLICE, ID),
            *(OTHER, f"docker-{ID}.scope", f"libpod-{OTHER}", f"{SLICE}:crio:{ID}", f"crio-conmon-{ID}.scope"),
        ]
    ),
    st.text("0123456789abcdef-.:_ dockerlibpsn\udcff", max_size=80),
)


class TestAnyPath:
    @given(st.lists(_PARTS, max_size=8).map("/".join))
    def test_ours_or_nothing(self, path):
        """Of whatever path, either nothing is told, or whole names of it that hold a container's id each."""
        with contextlib.suppress(ValueError):
            for each in containers_of(path):
                assert each.path == path or path.startswith(f"{each.path}/")
                name = each.path.rpartition("/")[2]
                assert name.removesuffix(".scope").endswith(each.id)
                assert set(each.id) <= set("0123456789abcdef")
                assert 64 == len(each.id)
                assert not each.pod or each.pod in each.path.replace("_", "-")

    @given(st.lists(_PARTS, min_size=1, max_size=8))
    def test_sure_names(self, parts):
        """No name below a user's folder, or inside a container, is one that only root could have made."""
        path = "/".join(["", "user.slice", "user@1000.service", *parts])
        with contextlib.suppress(ValueError):
            assert not any(each.sure for each in containers_of(path))
