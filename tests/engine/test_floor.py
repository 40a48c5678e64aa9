import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from iris.engine import floor
from iris.engine.floor import least_rows
from iris.engine.quantised import Int8Linear

CPU = torch.device("cpu")


def a_layer(shape):
    return nn.Linear(shape[1], shape[0], bias=False)


@pytest.mark.parametrize("shape", [(96, 24), (256, 1024), (32, 1024), (1152, 128)])
@settings(max_examples=40, deadline=None)
@given(height=st.integers(0, 900), start=st.integers(0, 200))
def test_from_the_floor_on_a_row_is_the_same_in_any_height(shape, height, start):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    floor = least_rows([a_layer(shape)], CPU)
    x = torch.randn(2000, shape[1], generator=torch.Generator().manual_seed(2))
    part = slice(start, start + floor + height)
    assert torch.equal(functional.linear(x[part], weight), functional.linear(x, weight)[part])


def test_the_floor_of_several_is_that_of_the_most_demanding():
    layers = [a_layer(shape) for shape in ((96, 24), (32, 1024), (256, 768))]
    assert least_rows(layers, CPU) == max(least_rows([layer], CPU) for layer in layers)


def test_eight_bits_are_as_high_as_what_they_are_multiplied_out_to():
    layer = a_layer((96, 24))
    assert least_rows([Int8Linear(layer)], CPU) == least_rows([layer], CPU)


def test_of_some_outputs_it_is_that_of_a_layer_with_no_others(monkeypatch):
    monkeypatch.setattr(floor, "_least_rows", lambda shape, *_: shape)
    for outputs, rows in ((slice(None), 96), (slice(64, None), 32), (slice(8, 24), 16)):
        assert least_rows([a_layer((96, 24))], CPU, outputs) == (rows, 24)
