"""Labels of root keys as names of services that allow fewer characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.authority.token.labels import name_of, next_of, numbers_in
from sojourn.errors import FailedPrecondition
from sojourn.limits import KEYS_OF_NODE_IN_TOKEN

WORDS = st.text("ab_-.1", min_size=1, max_size=6)
LABELS = st.builds("sojourn/{}/{}/root/{}".format, WORDS, WORDS, st.integers(1, 99))


@pytest.mark.parametrize("allowed", [".-", "/-"])
@given(one=LABELS, other=LABELS)
def test_no_two_have_one_name(allowed, one, other):
    """Two labels that differ have names that do, whatever trust domains and nodes are called."""
    assert (one == other) is (name_of(one, allowed) == name_of(other, allowed))


@pytest.mark.parametrize(
    ("allowed", "name"),
    [(".-", "sojourn_sa-b.example_unet_sn1_sroot_s7"), ("/-", "sojourn/a-b_dexample_unet/n1/root/7")],
)
def test_names(allowed, name):
    """Letters, digits and what is allowed stay as they are."""
    assert name == name_of("sojourn/a-b.example_net/n1/root/7", allowed)


def test_numbers():
    """Only a prefix and a number, without zeros before it, is a key of ours."""
    assert {1, 12} == numbers_in(["p/1", "p/12", "p/01", "p/", "p/x", "p/1/2", "q/3", "p/-1", "p/٣"], "p/")


def test_next():
    """The next number is behind all that there are; with too many keys there is none."""
    assert (1, 8) == (next_of(set(), "here"), next_of({1, 7}, "here"))
    with pytest.raises(FailedPrecondition, match="here has"):
        next_of(set(range(1, KEYS_OF_NODE_IN_TOKEN + 1)), "here")
