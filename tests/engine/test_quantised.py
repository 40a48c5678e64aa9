import pytest
import torch
from torch import nn

from iris.engine.quantised import Fp8Linear, Int8Linear, check_fp8, in_fp8, round_layers
from iris.errors import StoreError

KINDS = pytest.mark.parametrize(("kind", "bound"), [(Int8Linear, 0.01), (Fp8Linear, 0.05)])


def a_layer(bias=False):
    torch.manual_seed(0)
    return nn.Linear(64, 48, bias=bias).to(torch.bfloat16)


@torch.no_grad()
@KINDS
@pytest.mark.parametrize("bias", [False, True])
def test_eight_bits_are_near_sixteen(kind, bound, bias):
    layer = a_layer(bias)
    x = torch.randn(33, 64).bfloat16()
    exact, rounded = layer(x).float(), kind(layer)(x).float()
    assert float((rounded - exact).norm() / exact.norm()) < bound
    assert not torch.equal(rounded, exact)


@torch.no_grad()
@KINDS
@pytest.mark.parametrize("bias", [False, True])
def test_some_outputs_are_those_of_the_whole_layer(kind, bound, bias):
    layer = kind(a_layer(bias))
    x = torch.randn(33, 64).bfloat16()
    assert torch.equal(layer(x, slice(16, 32)), layer(x)[:, 16:32])


@torch.no_grad()
@KINDS
def test_a_token_is_rounded_by_itself(kind, bound):
    """However large its neighbours are."""
    layer = kind(a_layer())
    x = torch.randn(32, 64).bfloat16()
    beside = x.clone()
    beside[16:] *= 1e4
    assert torch.equal(layer(x)[:16], layer(beside)[:16])


@torch.no_grad()
def test_tokens_are_rounded_once_for_all_layers_that_take_them():
    layer = Fp8Linear(a_layer(bias=True))
    x = torch.randn(32, 64).bfloat16()
    rounded = layer.rounded(x)
    assert torch.equal(layer(rounded), layer(x))
    parts = [layer(part) for part in rounded.split([16, 16])]
    assert torch.equal(torch.cat(parts), layer(x))


@torch.no_grad()
def test_no_token_is_too_large_for_float8():
    x = torch.tensor([[448.0, -1.0], [3.3e38, -3.3e38], [1e-30, 0.0]]).bfloat16()
    values, scales = in_fp8(x)
    exact = x.float()
    assert torch.isfinite(values.float()).all()
    assert torch.allclose(values.float() * scales, exact, rtol=0.07, atol=1e-13)


@torch.no_grad()
@KINDS
def test_nothing_comes_of_nothing(kind, bound):
    layer = a_layer()
    layer.weight.zero_()
    assert torch.equal(kind(layer)(torch.zeros(16, 64).bfloat16()), torch.zeros(16, 48).bfloat16())


@KINDS
def test_the_weights_take_half(kind, bound):
    layer = kind(a_layer())
    assert layer.weight.nbytes == 64 * 48
    assert layer.weight.nbytes + layer.scale.nbytes < 0.6 * a_layer().weight.nbytes


def test_every_linear_layer_below_is_rounded_and_nothing_else():
    model = nn.Sequential(nn.Linear(16, 16), nn.Sequential(nn.RMSNorm(16), nn.Linear(16, 32)))
    round_layers(model, Int8Linear, torch.device("cpu"))
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(Int8Linear) == 2
    assert nn.Linear not in kinds
    assert nn.RMSNorm in kinds


def test_float8_is_refused_where_it_is_not_multiplied():
    with pytest.raises(StoreError, match="IRIS_TRANSFORMER=int8"):
        check_fp8(torch.device("cpu"))


def test_float8_is_refused_for_widths_it_has_no_product_for():
    with pytest.raises(StoreError, match="multiples of 16"):
        Fp8Linear(nn.Linear(24, 32, bias=False))
