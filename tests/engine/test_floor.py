import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from iris.engine.floor import least_rows


@pytest.mark.parametrize("shape", [(96, 24), (256, 1024), (32, 1024), (1152, 128)])
@settings(max_examples=40, deadline=None)
@given(height=st.integers(0, 900), start=st.integers(0, 200))
def test_from_the_floor_on_a_row_is_the_same_in_any_height(shape, height, start):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    floor = least_rows([weight])
    x = torch.randn(2000, shape[1], generator=torch.Generator().manual_seed(2))
    part = slice(start, start + floor + height)
    assert torch.equal(functional.linear(x[part], weight), functional.linear(x, weight)[part])


def test_the_floor_of_several_is_that_of_the_most_demanding():
    weights = [torch.empty(96, 24), torch.empty(32, 1024), torch.empty(256, 768)]
    assert least_rows(weights) == max(least_rows([weight]) for weight in weights)
