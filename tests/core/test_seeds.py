"""Facts about seeds: they never change, and differ wherever their paths do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.core.seeds import derive

paths = st.lists(st.one_of(st.integers(), st.text(max_size=6)), max_size=4)


def test_values_of_record_never_change():
    assert derive(0) == 4_761_921_975_702_974_394
    assert derive(3, "batch", 17) == 4_519_176_868_979_533_903


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.tuples(st.integers(), paths), st.tuples(st.integers(), paths))
def test_different_paths_have_different_seeds(one, other):
    first, second = derive(one[0], *one[1]), derive(other[0], *other[1])
    assert (first == second) == (one == other)
    assert 0 <= first < 2**63


@pytest.mark.parametrize(
    ("one", "other"),
    [((0, 1), (0, "1")), ((1, 2, 3), (1, 23)), ((0, "a", "b"), (0, "b", "a")), ((1,), (1, "")), ((12, 3), (1, 23)),
     ((0, "a/str:b"), (0, "a", "b")), ((0, "a\\", "b"), (0, "a\\/str:b"))],
)  # fmt: skip
def test_look_alikes_differ(one, other):
    assert derive(*one) != derive(*other)


def test_a_torch_generator_takes_them():
    import torch

    first, second = (torch.rand(3, generator=torch.Generator().manual_seed(derive(5, i))) for i in (0, 1))
    assert not torch.equal(first, second)
