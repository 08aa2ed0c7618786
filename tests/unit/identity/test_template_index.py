"""template_index.py: the registrations that make an ID are found, and no others."""

import pytest
from fakes.registrations import NODE, selectors
from hypothesis import given
from hypothesis import strategies as st
from sojourn.identity.entries import registration
from sojourn.identity.template_index import IdShapes
from sojourn.identity.templates import parse_id
from sojourn.spiffe.ids import SpiffeId


def template(path, entry_id=""):
    return registration(
        {
            "id": entry_id or path,
            "spiffe_id": parse_id(f"spiffe://example.org{path}"),
            "parent_id": NODE,
            "selectors": selectors("unix:uid:1"),
        }
    )


def filed(*paths):
    shapes = IdShapes()
    made = [template(path) for path in paths]
    for each in made:
        shapes.add(each, each.spiffe_id)
    return shapes, made


def found(shapes, path):
    return sorted(entry.id for entry in shapes.find(SpiffeId.from_parts("example.org", path)))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/ns/a", ["/ns/{k.n}", "/{k.n}/a"]),
        ("/ns/b", ["/ns/{k.n}"]),
        ("/x/a", ["/{k.n}/a"]),
        ("/x-a-y", ["/x-{k.n}-y", "/{k.n}"]),
        ("/x--y", ["/{k.n}"]),
        ("/ns", ["/{k.n}"]),
        ("/ns/a/b", []),
        ("", []),
    ],
)
def test_find(path, expected):
    """All of its shape are found, literal segments or not; a placeholder stands for one character at least."""
    shapes, _ = filed("/ns/{k.n}", "/{k.n}/a", "/x-{k.n}-y", "/{k.n}")
    assert expected == found(shapes, path)


def test_of_one_template():
    """Registrations of one template are all found, and the template is looked at once for all of them."""
    shapes = IdShapes()
    made = [template("/ns/{k.n}", f"e{number}") for number in range(3)]
    for each in made:
        shapes.add(each, each.spiffe_id)
    assert ["e0", "e1", "e2"] == found(shapes, "/ns/a")
    assert [1] == [len(node.here) for node in shapes._root.plain["ns"].open.values()]
    shapes.remove(made[1], made[1].spiffe_id)
    assert ["e0", "e2"] == found(shapes, "/ns/a")


def test_of_one_shape():
    """Registrations of one shape lie side by side, and go one by one; nothing stays behind."""
    shapes, made = filed("/ns/{k.n}", "/ns/{k.m}")
    assert 2 == len(found(shapes, "/ns/a"))
    shapes.remove(made[0], made[0].spiffe_id)
    assert ["/ns/{k.m}"] == found(shapes, "/ns/a")
    shapes.remove(made[0], made[0].spiffe_id)
    shapes.remove(made[1], made[1].spiffe_id)
    assert ([], True) == (found(shapes, "/ns/a"), shapes._root.empty)


@given(
    st.lists(
        st.sampled_from(["/a/{k.n}", "/{k.n}/b", "/a/b-{k.n}", "/{k.n}", "/{k.n}/{k.m}", "/{k.n}/{k.n}"]), unique=True
    ),
    st.data(),
)
def test_as_by_looking_at_all(paths, data):
    """What is found is what looking at every template finds."""
    shapes, made = filed(*paths)
    gone = data.draw(st.lists(st.sampled_from(made), unique_by=lambda each: each.id)) if made else []
    for each in gone:
        shapes.remove(each, each.spiffe_id)
    path = "/" + "/".join(
        data.draw(st.lists(st.sampled_from(["a", "b", "b-c", "b-", "spire"]), min_size=1, max_size=3))
    )
    spiffe_id = SpiffeId.from_parts("example.org", path)
    assert sorted(each.id for each in made if each not in gone and each.expanded_to(spiffe_id)) == found(shapes, path)
